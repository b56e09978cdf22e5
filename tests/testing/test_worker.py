"""Tests for regproxy.testing.worker."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from regproxy.testing import HeldWorker, ImmediateWorker
from regproxy.worker import Worker


def _divide(dividend: int, *, by: int) -> float:
    return dividend / by


class ImmediateWorkerTests(SynchronousTestCase):
    """A worker that does not wait."""

    def test_result(self) -> None:
        """The Deferred has fired with the result when the call returns."""
        worker = ImmediateWorker()
        self.assertEqual(self.successResultOf(worker(_divide, 6, by=3)), 2)
        self.assertEqual(worker.jobs, 1)

    def test_failure(self) -> None:
        """What the function raises fails the Deferred."""
        worker: Worker = ImmediateWorker()
        self.failureResultOf(worker(_divide, 6, by=0), ZeroDivisionError)


class HeldWorkerTests(SynchronousTestCase):
    """A worker that waits to be told."""

    def setUp(self) -> None:
        """Has no jobs."""
        self.worker = HeldWorker()

    def test_waits(self) -> None:
        """A job runs when it is its turn, and not before."""
        first, second = self.worker(_divide, 6, by=3), self.worker(_divide, 6, by=2)
        self.assertNoResult(first)
        self.assertEqual(self.worker.held, 2)
        self.worker.run_next()
        self.assertEqual(self.successResultOf(first), 2)
        self.assertNoResult(second)
        self.worker.run_next()
        self.assertEqual(self.successResultOf(second), 3)
        self.assertEqual(self.worker.held, 0)

    def test_failure(self) -> None:
        """What the function raises fails the Deferred, not the test."""
        waiting = self.worker(_divide, 6, by=0)
        self.worker.run_next()
        self.failureResultOf(waiting, ZeroDivisionError)

    def test_all(self) -> None:
        """Jobs that a job's result leads to are run as well."""
        results: list[float] = []
        self.worker(_divide, 6, by=3).addCallback(
            lambda _: self.worker(_divide, 6, by=2).addCallback(results.append)
        )
        self.assertEqual(self.worker.run_all(), 2)
        self.assertEqual(results, [3])

    def test_cancelled(self) -> None:
        """A job whose Deferred was cancelled runs, as it would in a thread, and nobody hears."""
        ran: list[int] = []
        waiting = self.worker(ran.append, 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.worker.run_next()
        self.assertEqual(ran, [1])

    def test_none_held(self) -> None:
        """There must be a job to run."""
        self.assertRaises(IndexError, self.worker.run_next)
        self.assertEqual(self.worker.run_all(), 0)
