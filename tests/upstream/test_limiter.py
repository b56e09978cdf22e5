"""Tests for regproxy.upstream.limiter."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.upstream.limiter import Limiter


class LimiterTests(SynchronousTestCase):
    """Who waits, and who goes on."""

    def setUp(self) -> None:
        """Two places."""
        self.clock = Clock()
        self.limiter = Limiter(self.clock, 2)
        self.admitted: list[int] = []

    def enter(self, number: int, patience: float = 10.0) -> Deferred[None]:
        """Somebody asks for a place."""
        waiting = self.limiter.acquire(patience)
        waiting.addCallback(lambda _: self.admitted.append(number))
        return waiting

    def test_places(self) -> None:
        """As many as there are places go on at once."""
        for number in range(4):
            self.enter(number)
        self.assertEqual(self.admitted, [0, 1])
        self.assertEqual(self.limiter.held, 2)

    def test_order(self) -> None:
        """A place that is given up goes to whoever has waited longest."""
        for number in range(5):
            self.enter(number)
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 2])
        self.limiter.release()
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 2, 3, 4])

    def test_patience(self) -> None:
        """Nobody waits longer than its own patience, place or not."""
        for number, patience in enumerate([10.0, 10.0, 10.0, 3.0]):
            self.enter(number, patience)
        self.clock.advance(2.9)
        self.assertEqual(self.admitted, [0, 1])
        self.clock.advance(0.1)
        self.assertEqual(self.admitted, [0, 1, 3])
        self.clock.advance(7)
        self.assertEqual(self.admitted, [0, 1, 3, 2])
        self.assertEqual(self.limiter.held, 4)

    def test_over_full(self) -> None:
        """Those who went on without a place give none up."""
        for number, patience in enumerate([10.0, 10.0, 1.0, 10.0]):
            self.enter(number, patience)
        self.clock.advance(1)
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 2])
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 2, 3])

    def test_cancel(self) -> None:
        """Who leaves the queue holds nothing and is passed over."""
        self.enter(0)
        self.enter(1)
        gone = self.enter(2)
        self.enter(3)
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.assertEqual(self.limiter.held, 2)
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 3])

    def test_cancel_admitted(self) -> None:
        """Who has a place keeps it until it is released."""
        mine = self.enter(0)
        mine.cancel()
        self.successResultOf(mine)
        self.assertEqual(self.limiter.held, 1)

    def test_leaving_inside(self) -> None:
        """Places are right when one who goes on gives its place up at once."""
        self.enter(0)
        self.enter(1)
        for number in range(2, 6):
            self.enter(number).addCallback(lambda _: self.limiter.release())
        self.limiter.release()
        self.assertEqual(self.admitted, [0, 1, 2, 3, 4, 5])
        self.assertEqual(self.limiter.held, 1)

    def test_timers(self) -> None:
        """Nothing is left behind."""
        for number in range(6):
            waiting = self.enter(number)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        for _ in range(5):
            self.limiter.release()
        self.assertEqual(self.limiter.held, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
