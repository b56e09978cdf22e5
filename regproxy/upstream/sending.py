"""The body of a request on its way upstream, and how long its answer is waited for."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from regproxy.deadline import Deadline
from regproxy.model.errors import upstream_too_slow

T = TypeVar("T")


@implementer(IBodyProducer)
class Sending:
    """Passes a body on, and is its request's deadline.

    Until the body flows the deadline is the request's. While it flows, the wait ends only when
    upstream takes nothing for too long, so that a body may take hours; that it comes at all is for
    its producer to watch. From its end on, the answer has the time that the deadline gave at first.

    Attributes:
        length: Bytes, or UNKNOWN_LENGTH.
    """

    def __init__(
        self,
        body: IBodyProducer,
        clock: IReactorTime,
        deadline: Deadline,
        silence: float,
        patience: float | None = None,
    ) -> None:
        """Args:
        body: Where the bytes come from; it is stopped when they are no longer wanted.
        clock: Measures.
        deadline: When the answer would be due if there were no body.
        silence: Seconds for which upstream may take nothing before it is given up.
        patience: Seconds for the answer from the body's end on; by default as many as the
            deadline gives.
        """
        self.length = body.length
        self._body = body
        self._clock = clock
        self._deadline = deadline
        self._patience = deadline.remaining if patience is None else patience
        self._silence = silence
        self._consumer: IConsumer | None = None
        self._connection: Any = None
        self._waiting: Deferred[Any] | None = None
        self._timer: IDelayedCall | None = None
        self._too_slow = ""
        self._over = False
        self._done: Deferred[None] = Deferred(lambda _: self.stop())

    def bound(self, waiting: Deferred[T], doing: str) -> Deferred[T]:
        """*waiting*, cancelled when the answer takes too long (see `Deadline.bound`).

        Raises:
            RegistryError: (as a failure) 504.
        """
        self._waiting = waiting
        flows = self._consumer is not None and not self._over
        if not waiting.called and not flows:
            self._expect_until(self._deadline.at)

        def ended(result: T | Failure) -> T | Failure:
            self._cancel_timer()
            self._waiting = None
            if isinstance(result, Failure) and self._too_slow:
                return Failure(upstream_too_slow(f"{doing}: {self._too_slow}"))
            return result

        return waiting.addBoth(ended)

    def connected(self, connection: Any) -> None:
        """Takes the connection that the body goes to, to abort it when the body stays unfinished.

        Args:
            connection: Has ``abortConnection``.
        """
        self._connection = connection

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See IBodyProducer."""
        self._consumer = consumer
        self._cancel_timer()
        self._body.startProducing(self).addBoth(self._ended)
        return self._done

    def write(self, data: bytes) -> None:
        """See IConsumer: the next piece of the body."""
        # In chunks, an empty piece would be the end.
        if data and not self._over and self._consumer is not None:
            self._consumer.write(data)

    def pauseProducing(self) -> None:
        """See IPushProducer: the connection is full."""
        if not self._over:
            self._cancel_timer()
            why = f"upstream took nothing of the request's body for {self._silence:g} s"
            self._timer = self._clock.callLater(self._silence, self._give_up, why)
            self._body.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer: the connection takes more."""
        if not self._over:
            self._cancel_timer()
            self._body.resumeProducing()

    def stopProducing(self) -> None:
        """See IBodyProducer: no more of it is wanted."""
        if not self._over:
            self._finish()
            self._body.stopProducing()

    def stop(self) -> None:
        """Ends a body that is not over, and with it the connection: half a body is none."""
        if self._over:
            return
        self.stopProducing()
        if self._connection is not None:
            self._connection.abortConnection()

    def _finish(self) -> None:
        self._over = True
        self._cancel_timer()

    def _ended(self, result: object) -> None:
        """The whole body was written, or it broke off."""
        if self._over:
            return
        self._finish()
        if isinstance(result, Failure):
            self._done.errback(result)
            return
        if self._waiting is not None:
            self._expect_until(self._clock.seconds() + self._patience)
        self._done.callback(None)

    def _expect_until(self, moment: float) -> None:
        seconds = max(0.0, moment - self._clock.seconds())
        self._timer = self._clock.callLater(seconds, self._give_up, "no answer within the deadline")

    def _give_up(self, why: str) -> None:
        self._timer = None
        self._too_slow = why
        if self._waiting is not None:
            self._waiting.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
