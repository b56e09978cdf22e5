"""Tests for regproxy.single_flight."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.single_flight import SingleFlight


class SingleFlightTests(SynchronousTestCase):
    """One call for many."""

    def setUp(self) -> None:
        """Nothing is in flight."""
        self.clock = Clock()
        self.flights: SingleFlight[str, int] = SingleFlight(self.clock)
        self.landings: list[Deferred[int]] = []

    async def fly(self) -> int:
        """Waits for the test."""
        landing: Deferred[int] = Deferred()
        self.landings.append(landing)
        return await landing

    def call(self, key: str = "key") -> Deferred[int]:
        """Asks."""
        return self.flights.call(key, self.fly)

    def test_shared(self) -> None:
        """Who asks while a call is in flight gets its result."""
        callers = [self.call() for _ in range(3)]
        self.assertEqual(len(self.landings), 1)
        self.assertIn("key", self.flights)
        self.landings[0].callback(5)
        self.assertEqual([self.successResultOf(caller) for caller in callers], [5, 5, 5])
        self.assertNotIn("key", self.flights)

    def test_keys(self) -> None:
        """Different keys are different calls."""
        first, second = self.call("a"), self.call("b")
        self.landings[1].callback(2)
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), 2)
        self.landings[0].callback(1)
        self.assertEqual(self.successResultOf(first), 1)

    def test_not_remembered(self) -> None:
        """A result is nobody's who comes later, and neither is a failure."""
        first = self.call()
        self.landings[0].errback(ValueError())
        self.failureResultOf(first, ValueError)
        second = self.call()
        self.assertNoResult(second)
        self.landings[1].callback(2)
        self.assertEqual(self.successResultOf(second), 2)

    def test_failure(self) -> None:
        """Everyone has a failure of their own, with the same error."""
        callers = [self.call(), self.call()]
        error = ValueError()
        self.landings[0].errback(error)
        first, second = (self.failureResultOf(caller, ValueError) for caller in callers)
        self.assertIs(first.value, second.value)
        self.assertIsNot(first, second)

    def test_one_leaves(self) -> None:
        """A caller that leaves takes nobody along, not even the first."""
        callers = [self.call() for _ in range(3)]
        callers[0].cancel()
        self.failureResultOf(callers[0], CancelledError)
        self.assertFalse(self.landings[0].called)
        self.landings[0].callback(5)
        self.assertEqual([self.successResultOf(caller) for caller in callers[1:]], [5, 5])

    def test_all_leave(self) -> None:
        """A call that nobody waits for goes on, and whoever comes meanwhile joins it."""
        first = self.call()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        late = self.call()
        self.assertEqual(len(self.landings), 1)
        self.landings[0].callback(5)
        self.assertEqual(self.successResultOf(late), 5)

    def test_failure_that_nobody_waits_for(self) -> None:
        """When all have left there is nobody to tell."""
        first = self.call()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.landings[0].errback(ValueError())
        self.assertNotIn("key", self.flights)

    def test_many(self) -> None:
        """Many callers are told in slices, between which the reactor does other things."""
        callers = [self.call() for _ in range(200)]
        self.landings[0].callback(5)
        told = sum(caller.called for caller in callers)
        self.assertTrue(0 < told < 200, told)
        again = self.call()
        self.clock.pump([0] * 10)
        self.assertEqual([self.successResultOf(caller) for caller in callers], [5] * 200)
        self.assertNoResult(again)

    def test_lands_at_once(self) -> None:
        """A call may be over before it returns."""

        async def at_once() -> int:
            return 7

        self.assertEqual(self.successResultOf(self.flights.call("key", at_once)), 7)
        self.assertNotIn("key", self.flights)

    def test_leaves_when_another_lands(self) -> None:
        """A caller's callback may end another's wait, or ask again."""
        callers = [self.call() for _ in range(3)]
        again: list[Deferred[int]] = []

        def landed(result: int) -> int:
            callers[1].addErrback(lambda failure: failure.trap(CancelledError) and 0).cancel()
            again.append(self.call())
            return result

        callers[0].addCallback(landed)
        self.landings[0].callback(5)
        self.assertEqual(self.successResultOf(callers[1]), 0)
        self.assertEqual(self.successResultOf(callers[2]), 5)
        self.assertNoResult(again[0])
        self.landings[1].callback(6)
        self.assertEqual(self.successResultOf(again[0]), 6)

    def test_leaves_within_a_chain(self) -> None:
        """A coroutine that is cancelled in its wait leaves like any other caller."""

        async def chain() -> int:
            return await self.call() + 1

        leaving, staying = Deferred.fromCoroutine(chain()), Deferred.fromCoroutine(chain())
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.landings[0].callback(5)
        self.assertEqual(self.successResultOf(staying), 6)
