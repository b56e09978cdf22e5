"""All connections of clients, on all listeners together, and which of them may go first."""

from __future__ import annotations

from typing import Protocol


class Connection(Protocol):
    """A client's connection."""

    def abort(self) -> None:
        """Hangs up at once."""

    def loseConnection(self) -> None:
        """Hangs up when everything that was written is sent."""


class Connections:
    """Keeps the number of connections bounded: a new one replaces the one that is idle longest.

    Attributes:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        """Args:
        limit: How many there may be.
        """
        self.limit = limit
        self._idle: dict[Connection, None] = {}
        self._busy: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    @property
    def active(self) -> int:
        """How many have a request under way."""
        return len(self._busy)

    def close_idle(self) -> None:
        """Hangs up on everyone who has no request under way."""
        for connection in list(self._idle):
            connection.loseConnection()

    def abort_all(self) -> None:
        """Hangs up on everyone."""
        for connection in [*self._idle, *self._busy]:
            connection.abort()

    def make_room(self) -> bool:
        """Whether one more may come; the longest idle one goes for it if it must."""
        if len(self) < self.limit:
            return True
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        self.closed(oldest)
        oldest.abort()
        return True

    def idle(self, connection: Connection) -> None:
        """*connection* waits for a request, from now on."""
        self._busy.discard(connection)
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """*connection* has a request under way."""
        self._idle.pop(connection, None)
        self._busy.add(connection)

    def closed(self, connection: Connection) -> None:
        """*connection* is gone."""
        self._idle.pop(connection, None)
        self._busy.discard(connection)
