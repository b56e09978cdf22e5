"""Deadlines: one moment by which a chain of waits must be over."""

from __future__ import annotations

from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from regproxy.model.errors import upstream_too_slow

T = TypeVar("T")


@frozen
class Deadline:
    """A moment that every step of a request shares: queueing, tokens, redirects, headers.

    Attributes:
        clock: Tells the time.
        at: The moment, in the clock's seconds.
    """

    clock: IReactorTime
    at: float

    @classmethod
    def after(cls, clock: IReactorTime, seconds: float) -> Deadline:
        """The deadline *seconds* from now."""
        return cls(clock, clock.seconds() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.seconds())

    def earlier(self, seconds: float) -> Deadline:
        """This deadline, or *seconds* from now if that comes first."""
        return Deadline(self.clock, min(self.at, self.clock.seconds() + seconds))

    def bound(self, waiting: Deferred[T], doing: str) -> Deferred[T]:
        """*waiting*, cancelled at the deadline.

        Args:
            waiting: What is waited for; it is cancelled when the time is up.
            doing: Names the wait in the error, such as ``"registry-1.docker.io: HEAD"``.

        Raises:
            RegistryError: (as a failure) 504, when the deadline came first.
        """

        def too_slow(result: T | Failure, _: float) -> T | Failure:
            if isinstance(result, Failure):
                # A cancelled request fails in several ways, all of which mean that time is up.
                return Failure(upstream_too_slow(f"{doing}: no answer within the deadline"))
            return result

        return waiting.addTimeout(self.remaining, self.clock, too_slow)
