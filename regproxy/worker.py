"""Where blocking work runs: files, hashes, fsync."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

P = ParamSpec("P")
T = TypeVar("T")


class Worker(Protocol):
    """Runs a function elsewhere, so that the reactor is not blocked.

    ``functools.partial(deferToThreadPool, reactor, pool)`` is one.
    """

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """The result of ``function(*args, **kwargs)``, or its failure.

        Cancelling the Deferred gives up the result; the function runs all the same.
        """
        ...
