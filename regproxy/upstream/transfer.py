"""The transfer of one body from upstream, with back-pressure and a limit on silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

LEAST = 4096
"""Bytes of a blob without which upstream counts as silent: a drip must not hold a transfer."""

LARGEST_UNANNOUNCED = 32 * 1024**3
"""Bytes of a blob whose length upstream does not announce: a body without an end fills no disk."""


class TransferCut(Exception):
    """The body ended before its end: the connection broke, or upstream fell silent."""


class Transfer(Protocol):
    """Hands a body on, piece by piece.

    Attributes:
        done: Fires when the body is there; fails with `TransferCut`, or with what the sink raised.
    """

    def __init__(
        self,
        sink: Callable[[bytes], None],
        clock: IReactorTime,
        silence: float,
        *,
        least: int = 1,
        most: int | None = None,
    ) -> None:
        """Args:
        sink: Takes each piece as it arrives.
        clock: Measures silence.
        silence: Seconds without a byte after which the transfer is given up; time in which it
            is paused does not count.
        least: Bytes that it takes to break the silence: an upstream that lets them drip must not
            hold a transfer for ever.
        most: Bytes after which the transfer is given up, None for any number.
        """
        self._sink = sink
        self._clock = clock
        self._silence = silence
        self._least = least
        self._most = most
        self._count = self._total = 0
        self._timer: IDelayedCall | None = None
        self._last = clock.seconds()
        self._paused = False
        self._over = False
        self.done: Deferred[None] = Deferred(lambda _: self.abort())

    def connectionMade(self) -> None:
        """See IProtocol."""
        if self._over:
            self._producer.stopProducing()
            return
        self._last = self._clock.seconds()
        self._timer = self._clock.callLater(self._silence, self._check)

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._over:
            return
        self._total += len(data)
        if self._most is not None and self._total > self._most:
            self._end(Failure(TransferCut(f"upstream sent more than {self._most} bytes")))
            self._producer.stopProducing()
            return
        self._count += len(data)
        if self._count >= self._least or not data:
            self._count = 0
            self._last = self._clock.seconds()
        try:
            if data:
                self._sink(data)
        except Exception:  # noqa: BLE001  # handed on through done
            self._end(Failure())
            self._producer.stopProducing()
            return
        if self._paused:
            # deliverBody ends by resuming, whatever was paused before or while it ran.
            self._producer.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        if reason.check(ResponseDone, PotentialDataLoss):
            self._end(None)
        else:
            self._end(Failure(TransferCut(_describe(reason))))

    def pause(self) -> None:
        """Stops reading from upstream until `resume`."""
        self._paused = True
        if self.transport is not None and not self._over:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """Reads on."""
        self._paused = False
        self._last = self._clock.seconds()
        if self.transport is not None and not self._over:
            self._producer.resumeProducing()

    def abort(self) -> None:
        """Drops the connection; `done` fails with `TransferCut` unless it has fired."""
        if self.transport is not None:
            self._producer.stopProducing()
        self._end(Failure(TransferCut("given up")))

    @property
    def _producer(self) -> IPushProducer:
        # Only stopProducing closes a paused TLS connection at once.
        return cast(IPushProducer, self.transport)

    def _check(self) -> None:
        now = self._clock.seconds()
        # Moments are compared: a difference of spans may be too small to move a clock on.
        due = (now if self._paused else self._last) + self._silence
        if now < due:
            self._timer = self._clock.callLater(due - now, self._check)
            return
        self._timer = None
        little = f"only {self._count} bytes" if self._count else "nothing"
        self._end(Failure(TransferCut(f"upstream sent {little} for {self._silence:g} s")))
        self._producer.stopProducing()

    def _end(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if failure is None:
            self.done.callback(None)
        elif not self.done.called:
            self.done.errback(failure)


def _describe(reason: Failure) -> str:
    reasons = getattr(reason.value, "reasons", None)
    cause = reasons[0].value if reasons else reason.value
    return f"connection cut ({type(cause).__name__})"
