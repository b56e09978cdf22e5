"""Workers without threads: one that runs a job at once, one that waits to be told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute

P = ParamSpec("P")
T = TypeVar("T")


class ImmediateWorker:
    """Runs each job inside the call, so that its Deferred has already fired.

    Attributes:
        jobs: How many jobs have run.
    """

    def __init__(self) -> None:
        self.jobs = 0

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """A Deferred that has fired with the function's result or failure."""
        self.jobs += 1
        return execute(function, *args, **kwargs)


class HeldWorker:
    """Queues jobs until the test runs them, in the order in which they were given."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """A Deferred that fires when the job is run.

        As with a thread, a job whose Deferred was cancelled still runs; its result is dropped.
        """
        waiting: Deferred[T] = Deferred()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception:  # noqa: BLE001 - whatever a job raises is its Deferred's to tell
                waiting.errback()
            else:
                waiting.callback(result)

        self._jobs.append(run)
        return waiting

    @property
    def held(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def run_next(self) -> None:
        """Runs the oldest job.

        Raises:
            IndexError: None waits.
        """
        self._jobs.popleft()()

    def run_all(self) -> int:
        """Runs jobs until none waits, those included that are queued meanwhile.

        Returns:
            How many ran.
        """
        count = 0
        while self._jobs:
            self.run_next()
            count += 1
        return count
