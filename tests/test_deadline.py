"""Tests for regproxy.deadline."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError


class DeadlineTests(SynchronousTestCase):
    """Moments."""

    def setUp(self) -> None:
        """Ten seconds, of a clock that does not begin at 0."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.deadline = Deadline.after(self.clock, 10)

    def test_remaining(self) -> None:
        """What is left becomes less, and never less than nothing."""
        self.assertEqual(self.deadline.remaining, 10)
        self.clock.advance(4)
        self.assertEqual(self.deadline.remaining, 6)
        self.clock.advance(60)
        self.assertEqual(self.deadline.remaining, 0)

    def test_earlier(self) -> None:
        """The earlier of two moments counts."""
        self.assertEqual(self.deadline.earlier(3).remaining, 3)
        self.assertEqual(self.deadline.earlier(30).remaining, 10)
        self.clock.advance(8)
        self.assertEqual(self.deadline.earlier(3).remaining, 2)


class BoundTests(SynchronousTestCase):
    """Waits that end at a deadline."""

    def setUp(self) -> None:
        """A wait of ten seconds."""
        self.clock = Clock()
        self.deadline = Deadline.after(self.clock, 10)
        self.cancelled: list[Deferred[int]] = []

    def wait(self) -> Deferred[int]:
        """What is waited for; it notes that it was cancelled."""
        return Deferred(self.cancelled.append)

    def test_in_time(self) -> None:
        """A result in time is the result, and no timer is left."""
        waiting = self.wait()
        bound = self.deadline.bound(waiting, "asking")
        self.clock.advance(9)
        waiting.callback(5)
        self.assertEqual(self.successResultOf(bound), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_in_time(self) -> None:
        """A failure in time stays what it is."""
        waiting = self.wait()
        bound = self.deadline.bound(waiting, "asking")
        waiting.errback(ValueError())
        self.failureResultOf(bound, ValueError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """When the time is up the wait is cancelled, and the error says what it was for."""
        bound = self.deadline.bound(self.wait(), "registry.test: HEAD")
        self.clock.advance(10)
        self.assertEqual(len(self.cancelled), 1)
        error = self.failureResultOf(bound, RegistryError).value
        assert isinstance(error, RegistryError)
        self.assertEqual(error.status, 504)
        self.assertIn("registry.test: HEAD", error.message)

    def test_fails_its_own_way(self) -> None:
        """Whatever a cancelled request fails with, it was the time."""
        waiting: Deferred[int] = Deferred(lambda it: it.errback(ConnectionResetError()))
        bound = self.deadline.bound(waiting, "asking")
        self.clock.advance(10)
        self.failureResultOf(bound, RegistryError)

    def test_answers_when_cancelled(self) -> None:
        """A wait that ends with a result when it is cancelled has a result."""
        waiting: Deferred[int] = Deferred(lambda it: it.callback(5))
        bound = self.deadline.bound(waiting, "asking")
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(bound), 5)

    def test_cancelled_by_the_caller(self) -> None:
        """A caller that leaves before the deadline is not told of any."""
        bound = self.deadline.bound(self.wait(), "asking")
        bound.cancel()
        self.failureResultOf(bound, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_already_over(self) -> None:
        """A deadline that has passed leaves a result that is there, and no time to wait."""
        self.clock.advance(20)
        self.assertEqual(self.successResultOf(self.deadline.bound(succeed(5), "asking")), 5)
        bound = self.deadline.bound(self.wait(), "asking")
        self.clock.advance(0)
        self.failureResultOf(bound, RegistryError)
