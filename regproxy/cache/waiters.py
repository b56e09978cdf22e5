"""Readers that wait for content to grow, woken in slices."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

_SLICE = 64
"""Readers woken in one turn of the reactor: each may send a piece, and nobody may starve."""


class Waiters:
    """Deferreds that fire together, but never so many in one turn that the reactor stalls."""

    def __init__(self, clock: IReactorTime) -> None:
        """Args:
        clock: Schedules the slices.
        """
        self._clock = clock
        self._waiting: dict[Deferred[None], None] = {}
        self._due: dict[Deferred[None], Failure | None] = {}
        self._scheduled = False

    def wait(self) -> Deferred[None]:
        """Fires at the next `wake`, fails at the next `fail`; it may be cancelled."""
        mine: Deferred[None] = Deferred(self._forget)
        self._waiting[mine] = None
        return mine

    def wake(self) -> None:
        """Wakes everyone who waits now."""
        self._release(None)

    def fail(self, failure: Failure) -> None:
        """Fails everyone who waits now."""
        self._release(failure)

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiting.pop(waiter, None)
        self._due.pop(waiter, None)

    def _release(self, failure: Failure | None) -> None:
        if not self._waiting:
            return
        for waiter in self._waiting:
            self._due[waiter] = failure
        self._waiting = {}
        if not self._scheduled:
            self._slice()

    def _slice(self) -> None:
        self._scheduled = True
        for waiter in list(self._due)[:_SLICE]:
            # A reader that was just woken may have cancelled one behind it.
            if waiter in self._due:
                failure = self._due.pop(waiter)
                if failure is None:
                    waiter.callback(None)
                else:
                    waiter.errback(Failure(failure.value))
        if self._due:
            self._clock.callLater(0, self._slice)
        else:
            self._scheduled = False
