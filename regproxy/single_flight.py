"""One call for everyone who asks for the same thing at the same time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from regproxy.cache.waiters import Waiters

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Calls in flight by key; a caller that leaves never cancels the call that others wait for."""

    def __init__(self, clock: IReactorTime) -> None:
        """Args:
        clock: Tells callers in slices, so that many of them do not stall the reactor.
        """
        self._clock = clock
        self._flights: dict[K, _Flight[V]] = {}

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
        flight = self._flights.get(key)
        if flight is not None:
            return flight.wait()
        flight = self._flights[key] = _Flight(self._clock)
        mine = flight.wait()
        Deferred.fromCoroutine(function()).addBoth(self._land, key)
        return mine

    def _land(self, result: V | Failure, key: K) -> None:
        self._flights.pop(key).land(result)


class _Flight(Generic[V]):
    """One call and who waits for it."""

    def __init__(self, clock: IReactorTime) -> None:
        self._waiters = Waiters(clock)
        self._results: list[V] = []

    def wait(self) -> Deferred[V]:
        return self._waiters.wait().addCallback(lambda _: self._results[0])

    def land(self, result: V | Failure) -> None:
        if isinstance(result, Failure):
            self._waiters.fail(result)
        else:
            self._results.append(result)
            self._waiters.wake()
