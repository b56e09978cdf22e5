"""One end of a TCP connection whose other end is the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IProtocol, IReactorFDSet, ITCPTransport
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

Address = IPv4Address | IPv6Address

# The methods of the base class that have no annotations of their own.
_do_write: Callable[[FileDescriptor], BaseException | int | None] = FileDescriptor.doWrite
_connection_lost: Callable[[FileDescriptor, Failure], None] = FileDescriptor.connectionLost


class FarEnd(Protocol):
    """What a `MemoryTransport` is connected to."""

    def take(self, data: bytes) -> int:
        """Reads the beginning of *data*; returns how many bytes, 0 while it does not read."""
        ...

    def resumed(self) -> None:
        """The near end reads (again)."""
        ...

    def lost(self, reason: Failure) -> None:
        """The near end has closed; `ConnectionAborted` when it discarded unsent bytes."""
        ...


@implementer(ITCPTransport)
class MemoryTransport(FileDescriptor):
    """A transport with the buffers and the flow control of Twisted's sockets, but no socket.

    Everything happens in a turn of its own, as in a reactor: nothing is read, written or closed
    inside a call, but at ``clock.advance(0)``, which runs until all is quiet.

    A connection that the far end closed is noticed as a socket would notice it: when reading, or
    else at the next write.
    """

    def __init__(self, clock: Clock, far_end: FarEnd, host: Address, peer: Address) -> None:
        """Args:
        clock: Runs the turns.
        far_end: Takes what is written.
        host: The address of this end.
        peer: The address of the far end.
        """
        super().__init__(cast(IReactorFDSet, clock))
        self._clock = clock
        self._far_end = far_end
        self._host = host
        self._peer = peer
        self._protocol: IProtocol | None = None
        self._arrived: deque[bytes | Failure] = deque()
        self._closed_by_far_end = False
        self._aborting = False
        self._reading = False
        self._writing = False
        self._read_due = False
        self._write_due = False
        self._progress = False
        self._no_delay = False
        self._keep_alive = False

    @property
    def reading(self) -> bool:
        """Whether bytes that arrive are passed on, that is, whether reading is not paused."""
        return self._reading

    # What the far end does.

    def start(self, protocol: IProtocol) -> None:
        """Connects *protocol*."""
        self._protocol = protocol
        self.connected = 1
        self.startReading()
        protocol.makeConnection(self)

    def deliver(self, data: bytes) -> None:
        """Sends *data* to the protocol, which receives it in one piece once it reads."""
        self._arrived.append(data)
        self._read_soon()

    def hang_up(self, reason: Exception) -> None:
        """Closes the far end; what was delivered before is still read."""
        self._closed_by_far_end = True
        self._arrived.append(Failure(reason))
        self._read_soon()

    def drain(self) -> None:
        """The far end reads (again), so what is buffered can be written."""
        self._write_soon()

    # What the descriptor asks of the reactor.

    def startReading(self) -> None:
        """Reads when something arrives."""
        if self._aborting or self.disconnected:
            return
        self._reading = True
        self._read_soon()
        self._far_end.resumed()

    def stopReading(self) -> None:
        """Leaves unread what arrives."""
        self._reading = False

    def startWriting(self) -> None:
        """Writes as soon as the far end reads."""
        if not self._aborting:
            self._writing = True
            self._write_soon()

    def stopWriting(self) -> None:
        """Has nothing to write."""
        self._writing = False

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """What the far end takes of *data*, or the error of writing to a closed connection."""
        if self._closed_by_far_end:
            return CONNECTION_LOST
        taken = self._far_end.take(bytes(data)) if data else 0
        self._progress = taken > 0
        return taken

    def connectionLost(self, reason: Failure) -> None:
        """Tells the producer, the far end and the protocol, once."""
        if self.disconnected:
            return
        _connection_lost(self, reason)
        self._far_end.lost(reason)
        if self._protocol is not None:
            self._protocol.connectionLost(reason)

    def _read_soon(self) -> None:
        if self._reading and self._arrived and not self._read_due:
            self._read_due = True
            self._clock.callLater(0, self._read_turn)

    def _read_turn(self) -> None:
        self._read_due = False
        if not self._reading or self.disconnected or self._protocol is None:
            return
        arrival = self._arrived.popleft()
        if isinstance(arrival, Failure):
            self.connectionLost(arrival)
            return
        self._protocol.dataReceived(arrival)
        self._read_soon()

    def _write_soon(self) -> None:
        if self._writing and not self._write_due:
            self._write_due = True
            self._clock.callLater(0, self._write_turn)

    def _write_turn(self) -> None:
        self._write_due = False
        if not self._writing or self.disconnected:
            return
        self._progress = False
        outcome = _do_write(self)
        if isinstance(outcome, BaseException):
            self.connectionLost(Failure(outcome))
        elif self._progress:
            self._write_soon()

    # ITCPTransport, besides what the descriptor has.

    def abortConnection(self) -> None:
        """Closes without writing what is buffered."""
        if self.disconnected or self._aborting:
            return
        self._aborting = True
        self.stopReading()
        self.stopWriting()
        self._clock.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def getHost(self) -> Address:
        """The address of this end."""
        return self._host

    def getPeer(self) -> Address:
        """The address of the far end."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """What was set."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001 - the interface's
        """Is only remembered."""
        self._no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        """What was set."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: FBT001 - the interface's
        """Is only remembered."""
        self._keep_alive = enabled
