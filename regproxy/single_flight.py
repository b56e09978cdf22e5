"""One call for everyone who asks for the same thing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Calls in flight by key; a caller that leaves never cancels the call that others wait for."""

    def __init__(self) -> None:
        self._flights: dict[K, list[Deferred[V]]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def call(self, key: K, function: Callable[[], Coroutine[Deferred[Any], Any, V]]) -> Deferred[V]:
        """The result of the flight under *key*, which starts now unless it is under way.

        Args:
            key: What is asked; equal keys share one call.
            function: Starts the call; not used when one is in flight.

        Returns:
            A Deferred of this caller's own: cancelling it concerns nobody else.
        """
        waiters = self._flights.get(key)
        first = waiters is None
        if waiters is None:
            waiters = self._flights[key] = []
        mine: Deferred[V] = Deferred(lambda _: waiters.remove(mine) if mine in waiters else None)
        waiters.append(mine)
        if first:
            Deferred.fromCoroutine(function()).addBoth(self._land, key)
        return mine

    def _land(self, result: V | Failure, key: K) -> None:
        waiters = self._flights.pop(key)
        # Whoever is told may cancel somebody behind it.
        while waiters:
            waiter = waiters.pop(0)
            if isinstance(result, Failure):
                waiter.errback(Failure(result.value))
            else:
                waiter.callback(result)
