"""Bytes from upstream on their way into a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from regproxy.cache.store import Part
from regproxy.worker import Worker

_BATCH = 1024 * 1024
"""Bytes that make a write worth a trip to a thread at once."""

_BATCH_DELAY = 0.004
"""Seconds that fewer bytes wait for company."""

_BACKLOG_HIGH = 4 * 1024 * 1024
_BACKLOG_LOW = 1024 * 1024


class PartWriter:
    """Writes a part in a thread, in batches, and asks for a pause when the disk is behind.

    Attributes:
        accepted: Bytes taken from upstream.
        front: Bytes written: every one of them can be read back.
        paused: Whether upstream should not be sending.
    """

    def __init__(
        self,
        part: Part,
        clock: IReactorTime,
        worker: Worker,
        *,
        written: Callable[[Sequence[bytes]], None],
        grown: Callable[[], None],
        pause: Callable[[], None],
        resume: Callable[[], None],
    ) -> None:
        """Args:
        part: Where the bytes go.
        clock: Bounds how long a small batch waits.
        worker: Runs the writes.
        written: Called with each batch that is written, in order.
        grown: Called when the front has moved.
        pause: Called when upstream should stop sending.
        resume: Called when upstream may go on.
        """
        self._part = part
        self._clock = clock
        self._worker = worker
        self._wrote = written
        self._grown = grown
        self._pause = pause
        self._resume = resume
        self.accepted = 0
        self.front = 0
        self.failure: Failure | None = None
        self._pieces: list[bytes] = []
        self._backlog = 0
        self._writing = False
        self.paused = False
        self._timer: IDelayedCall | None = None
        self._flushed: Deferred[None] | None = None

    def write(self, data: bytes) -> None:
        """Takes *data* as the next bytes of the part.

        Raises:
            OSError: The disk has failed; nothing is taken any more.
        """
        if self.failure is not None:
            self.failure.raiseException()
        self._pieces.append(data)
        self._backlog += len(data)
        self.accepted += len(data)
        if self._backlog >= _BACKLOG_HIGH and not self.paused:
            self.paused = True
            self._pause()
        if self._writing:
            return
        # The very first bytes go at once: a client is waiting for them.
        if self._backlog >= _BATCH or self.front == 0:
            self._start()
        elif self._timer is None:
            self._timer = self._clock.callLater(_BATCH_DELAY, self._start)

    def flush(self) -> Deferred[None]:
        """Fires when everything taken is written; fails with OSError if the disk failed."""
        done: Deferred[None] = Deferred()
        self._flushed = done
        self._settle()
        return done

    def _start(self) -> None:
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        if self._writing or not self._pieces or self.failure is not None:
            return
        pieces, self._pieces = self._pieces, []
        self._writing = True
        job = self._worker(self._part.write, self.front, pieces)
        job.addCallbacks(self._written, self._failed, callbackArgs=(pieces,))

    def _written(self, count: int, pieces: Sequence[bytes]) -> None:
        self._writing = False
        self.front += count
        self._backlog -= count
        self._wrote(pieces)
        if self._backlog >= _BATCH or (self._flushed is not None and self._pieces):
            self._start()
        elif self._pieces and self._timer is None:
            self._timer = self._clock.callLater(_BATCH_DELAY, self._start)
        if self.paused and self._backlog <= _BACKLOG_LOW:
            self.paused = False
            self._resume()
        self._grown()
        self._settle()

    def _failed(self, failure: Failure) -> None:
        self._writing = False
        self.failure = failure
        self._pieces.clear()
        if self.paused:
            # The next byte that arrives meets the failure and ends the transfer.
            self.paused = False
            self._resume()
        self._settle()

    def _settle(self) -> None:
        if self._flushed is None or self._writing:
            return
        if self.failure is not None:
            done, self._flushed = self._flushed, None
            done.errback(self.failure)
        elif self._pieces:
            self._start()
        else:
            done, self._flushed = self._flushed, None
            done.callback(None)
