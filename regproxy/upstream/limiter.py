"""How many things happen at once, with patience that ends."""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Limiter:
    """At most *places* holders at once, but nobody waits longer than its patience.

    A plain semaphore would let transfers that nobody reads any more starve a client that waits;
    here a waiter whose patience is over starts all the same.
    """

    def __init__(self, clock: IReactorTime, places: int) -> None:
        """Args:
        clock: Ends patience.
        places: How many holders there are before the next one waits.
        """
        self._clock = clock
        self._places = places
        self.held = 0
        self._waiting: OrderedDict[Deferred[None], IDelayedCall] = OrderedDict()

    def acquire(self, patience: float) -> Deferred[None]:
        """Fires when the caller may go on; `release` must follow, once.

        Args:
            patience: Seconds after which the caller goes on although every place is taken.

        Returns:
            A Deferred that may be cancelled while it waits; then nothing is held.
        """
        if self.held < self._places:
            self.held += 1
            return succeed(None)
        mine: Deferred[None] = Deferred(self._forget)
        self._waiting[mine] = self._clock.callLater(patience, self._admit, mine)
        return mine

    def release(self) -> None:
        """Gives the place up; the longest waiter gets it."""
        self.held -= 1
        if self._waiting and self.held < self._places:
            self._admit(next(iter(self._waiting)))

    def _forget(self, waiter: Deferred[None]) -> None:
        patience = self._waiting.pop(waiter, None)
        if patience is not None and patience.active():
            patience.cancel()

    def _admit(self, waiter: Deferred[None]) -> None:
        self._forget(waiter)
        self.held += 1
        waiter.callback(None)
