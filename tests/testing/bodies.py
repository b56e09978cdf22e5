"""A reader of response bodies that the tests can stop at any byte."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure


class Sink(Protocol):
    """Collects a body.

    Attributes:
        pieces: What arrived, as it arrived.
        reason: Why it ended, None before.
    """

    def __init__(self, *, one_by_one: bool = False) -> None:
        """Args:
        one_by_one: Pauses after every piece.
        """
        self.pieces: list[bytes] = []
        self.reason: Failure | None = None
        self._one_by_one = one_by_one

    @property
    def body(self) -> bytes:
        """All of what arrived."""
        return b"".join(self.pieces)

    @property
    def producer(self) -> IPushProducer:
        """Pauses, resumes and stops the body."""
        return cast(IPushProducer, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Keeps the piece."""
        self.pieces.append(data)
        if self._one_by_one:
            self.producer.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keeps the reason."""
        self.reason = reason
