"""Bodies of requests, handed on while they arrive."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from regproxy.front.framing import ChunkedFraming, CountedFraming, Framing
from regproxy.front.stall import ClientGone

HELD_LIMIT = 64 * 1024
"""Bytes of a body that are kept for a consumer that has not started yet, before reading stops."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_PROGRESS = 1024
"""Bytes that a client must send within the silence deadline, so that a drip does not renew it."""


def expects_continue(headers: Headers) -> bool:
    """Whether the client waits to be told that it may send (RFC 9110 section 10.1.1)."""
    return headers.getRawHeaders(b"Expect", [b""])[0].lower() == b"100-continue"


@implementer(IBodyProducer)
class RequestBody:
    """The body of one request while it arrives, for one consumer.

    Nothing of it is kept but what came before the consumer started or after it paused; beyond
    64 KiB (and what was read with them) the client's connection is not read until it goes on.

    Attributes:
        length: Bytes, as the client announced them, or UNKNOWN_LENGTH.
        received: Bytes that have arrived, chunks' framing not counted.
        complete: Whether all of it has arrived.
        failure: Why it will never be complete, None while it may. The Deferred of
            `startProducing` fails with the same exception.
    """

    def __init__(
        self,
        transport: Any,
        clock: IReactorTime,
        length: int | None,
        silence: float,
        *,
        awaited: bool = False,
    ) -> None:
        """Args:
        transport: The client's.
        clock: Measures silence.
        length: Bytes that the client announced, None for chunks.
        silence: Seconds in which the client must send something while it is listened to.
        awaited: Whether the client waits to be told that it may send.
        """
        # Twisted's interface types it as the constant that it is.
        self.length: int | str = UNKNOWN_LENGTH if length is None else length
        self._framing: Framing = ChunkedFraming() if length is None else CountedFraming(length)
        self._transport = transport
        self._awaited = awaited
        self.received = 0
        self.complete = False
        self.failure: ClientGone | None = None
        self._clock = clock
        self._silence = silence
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._held = bytearray()
        self._started = self._paused = self._stopped = self._unread = False
        self._timer: IDelayedCall | None = None
        self._noted = 0

    # What a consumer asks for.

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See IBodyProducer.

        Returns:
            Fires when the consumer has all of it; fails with `ClientGone` when the client left,
            fell silent or sent what is no body, or when its request was answered before the end.

        Raises:
            RuntimeError: It was started before: what is gone is gone.
        """
        if self._started:
            raise RuntimeError("the body of a request can be read only once")
        self._started = True
        if self.failure is not None:
            return fail(self.failure)
        done: Deferred[None] = Deferred(lambda _: self.stopProducing())
        if self._stopped:
            return done
        self._consumer, self._done = consumer, done
        if self._awaited and not self.received:
            self._transport.write(_CONTINUE)
        if not self._paused:
            self.resumeProducing()
        return done

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._paused = True
        self._stop_timer()
        self._pause()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._paused = False
        if self._consumer is None:
            return
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            self._consumer.write(held)
        if self._paused or self._is_over():
            return
        if self.complete:
            self._finish()
            return
        self._resume()
        if self._timer is None:
            self._noted = self.received
            self._timer = self._clock.callLater(self._silence, self._silent)

    def stopProducing(self) -> None:
        """See IPushProducer: the rest is thrown away, and the Deferred never fires."""
        self._stopped = True
        self._let_go()
        self._resume()

    # What the connection has to say.

    def cut(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The body's part of the next bytes of the connection, and what is behind its end.

        The request may be answered as soon as the consumer has the last piece, so what is behind
        it has to be put aside before `arrived` is called.

        Args:
            data: What the client sent.

        Returns:
            As `Framing.cut`.

        Raises:
            MalformedBody: The framing is broken.
        """
        piece, rest = self._framing.cut(data)
        if rest is not None:
            self._resume()
            self.complete = True
        return piece, rest

    def answered(self) -> None:
        """The answer has begun: nothing else is sent to the client any more."""
        self._awaited = False

    def arrived(self, data: bytes) -> None:
        """The next bytes of the body; when it is complete, the last.

        Args:
            data: What `cut` made of them; may be empty.
        """
        if data:
            self._arrived(data)
        if self.complete:
            self._stop_timer()
            if not self._held and self._consumer is not None:
                self._finish()

    def _arrived(self, data: bytes) -> None:
        self.received += len(data)
        if self._stopped or self.failure is not None:
            return
        if self._consumer is None or self._paused or self._held:
            self._held += data
            if len(self._held) >= HELD_LIMIT:
                self._pause()
            return
        if self._timer is not None and self.received - self._noted >= _PROGRESS:
            self._noted = self.received
            self._timer.reset(self._silence)
        self._consumer.write(data)

    def failed(self, why: str) -> None:
        """The rest will not come; a body that is complete already stays so.

        Args:
            why: For the access log.
        """
        if self.complete or self.failure is not None:
            return
        self.failure = ClientGone(why)
        done = self._done
        self._let_go()
        self._resume()
        if done is not None:
            done.errback(Failure(self.failure))

    def _is_over(self) -> bool:
        return self._consumer is None

    def _pause(self) -> None:
        if not self.complete and self.failure is None:
            self._unread = True
            self._transport.pauseProducing()

    def _resume(self) -> None:
        # Behind the end of the body it is the channel that decides what is read.
        if self._unread and not self.complete:
            self._unread = False
            self._transport.resumeProducing()

    def _finish(self) -> None:
        done = self._done
        self._let_go()
        if done is not None:
            done.callback(None)

    def _let_go(self) -> None:
        self._stop_timer()
        self._consumer = self._done = None
        self._held.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _silent(self) -> None:
        self._timer = None
        self.failed(f"sent (next to) nothing of its body for {self._silence:g} s")
        self._transport.abortConnection()
