"""Tests for regproxy.cache.waiters."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.waiters import Waiters


class WaitersTests(SynchronousTestCase):
    """Readers that wait."""

    def setUp(self) -> None:
        """Nobody waits."""
        self.clock = Clock()
        self.waiters = Waiters(self.clock)

    def test_wake(self) -> None:
        """Who waits is woken at once, and by one wake only."""
        waiting = self.waiters.wait()
        self.waiters.wake()
        self.assertIsNone(self.successResultOf(waiting))
        later = self.waiters.wait()
        self.clock.advance(1)
        self.assertNoResult(later)

    def test_nobody(self) -> None:
        """To wake nobody is nothing."""
        self.waiters.wake()
        self.waiters.fail(Failure(ValueError()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fail(self) -> None:
        """Each waiter has a failure of its own, so that none is changed by another's callbacks."""
        failures = [self.waiters.wait(), self.waiters.wait()]
        error = ValueError("no")
        self.waiters.fail(Failure(error))
        first, second = (self.failureResultOf(waiting, ValueError) for waiting in failures)
        self.assertIs(first.value, error)
        self.assertIsNot(first, second)

    def test_cancel(self) -> None:
        """A waiter that leaves is not woken, and takes nobody along."""
        leaving, staying = self.waiters.wait(), self.waiters.wait()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        self.waiters.wake()
        self.successResultOf(staying)

    def test_slices(self) -> None:
        """Of many waiters some are woken in each turn, in their order, until all are."""
        woken: list[int] = []
        for number in range(2000):
            self.waiters.wait().addCallback(lambda _, number: woken.append(number), number)
        self.waiters.wake()
        longest = len(woken)
        while self.clock.getDelayedCalls():
            before = len(woken)
            self.clock.calls, due = [], self.clock.calls
            for call in due:
                call.func()
            longest = max(longest, len(woken) - before)
        self.assertEqual(woken, list(range(2000)))
        self.assertLessEqual(longest, 100)

    def test_waits_again_while_others_are_woken(self) -> None:
        """Who waits again when woken is woken by the next wake, not by this one."""
        again: list[Deferred[None]] = []
        for _ in range(100):
            self.waiters.wait().addCallback(lambda _: again.append(self.waiters.wait()))
        self.waiters.wake()
        self.clock.advance(0)
        self.assertEqual(len(again), 100)
        for waiting in again:
            self.assertNoResult(waiting)
        self.waiters.wake()
        self.clock.advance(0)
        for waiting in again:
            self.successResultOf(waiting)

    def test_cancel_one_that_is_due(self) -> None:
        """A reader that is woken may end the wait of one behind it, due now or in a later turn."""
        waiting = [self.waiters.wait() for _ in range(100)]
        for left in (1, 99):
            waiting[left].addErrback(lambda failure: failure.trap(CancelledError))

        def woken(_: None) -> None:
            waiting[1].cancel()
            waiting[99].cancel()

        waiting[0].addCallback(woken)
        self.waiters.wake()
        self.clock.advance(0)
        for waiter in waiting:
            self.successResultOf(waiter)

    def test_wake_within_a_wake(self) -> None:
        """A reader may cause the next wake; those it concerns are woken as well."""
        inner: list[Deferred[None]] = []

        def woken(_: None) -> None:
            inner.append(self.waiters.wait())
            self.waiters.wake()

        self.waiters.wait().addCallback(woken)
        self.waiters.wake()
        self.clock.advance(0)
        self.successResultOf(inner[0])

    def test_fail_behind_a_wake(self) -> None:
        """Those whom a wake concerned are woken although the failure comes before their turn."""
        first = [self.waiters.wait() for _ in range(100)]
        self.waiters.wake()
        late = self.waiters.wait()
        self.waiters.fail(Failure(ValueError()))
        self.clock.advance(0)
        for waiting in first:
            self.successResultOf(waiting)
        self.failureResultOf(late, ValueError)
