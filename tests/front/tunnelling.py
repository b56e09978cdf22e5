"""What tests of tunnels have in common: connections that close one direction at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from regproxy.front.accesslog import Entry
from regproxy.testing.transport import Address, MemoryTransport

CLIENT = IPv4Address("TCP", "8.8.4.4", 40000)
PROXY = IPv4Address("TCP", "127.0.0.1", 5000)


class Entries(list[Entry]):
    """An access log that keeps its entries."""

    def add(self, entry: Entry) -> None:
        """See AccessLog."""
        self.append(entry)


class Peer:
    """The far end of a connection.

    Attributes:
        transport: The near end.
        received: What was read.
        reading: Whether it reads.
        finished: Whether it was told that nothing more comes.
        closed: Why the near end closed, None while it has not.
    """

    def __init__(self, clock: Clock, peer: Address = CLIENT) -> None:
        """Args:
        clock: Runs the turns.
        peer: The address of this end.
        """
        self.received = bytearray()
        self.reading = True
        self.finished = False
        self.closed: Failure | None = None
        self.transport = HalfClosing(clock, self, PROXY, peer)

    @property
    def aborted(self) -> bool:
        """Whether the near end closed without an orderly end."""
        return self.closed is not None and self.closed.check(ConnectionAborted) is not None

    def take(self, data: bytes) -> int:
        """See FarEnd."""
        if not self.reading:
            return 0
        self.received += data
        return len(data)

    def resumed(self) -> None:
        """See FarEnd."""

    def lost(self, reason: Failure) -> None:
        """See FarEnd."""
        self.closed = reason

    def send(self, data: bytes) -> None:
        """Sends, if there is anything."""
        if data:
            self.transport.deliver(data)

    def finish(self) -> None:
        """Sends no more, and goes on reading."""
        self.transport.finish()

    def reset(self) -> None:
        """Goes without an orderly end."""
        self.transport.hang_up(ConnectionLost())

    def read(self) -> None:
        """Reads (again)."""
        self.reading = True
        self.transport.drain()


class HalfClosing(MemoryTransport):
    """A transport that can close its directions one by one, as TCP can."""

    def __init__(self, clock: Clock, peer: Peer, host: Address, address: Address) -> None:
        super().__init__(clock, peer, host, address)
        self._connected_to = peer
        self._turns = clock
        self._wrapped: Any = None

    def start(self, protocol: Any) -> None:
        """See MemoryTransport."""
        self._wrapped = protocol
        super().start(protocol)

    def finish(self) -> None:
        """The far end sends no more."""
        self._turns.callLater(0, self._finished)

    def _finished(self) -> None:
        if self.reading:
            self.stopReading()
            half_closing: Any = IHalfCloseableProtocol(self._wrapped, None)
            if half_closing is None:
                self.hang_up(ConnectionDone())
                self.startReading()
            else:
                half_closing.readConnectionLost()

    def _closeWriteConnection(self) -> None:
        """Everything is sent; called by Twisted's base class, as for its TCP."""
        self._connected_to.finished = True
