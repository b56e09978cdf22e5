"""A client's socket, fed straight from a file: no byte passes through Python."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IWriteDescriptor)
class DirectSocket:
    """A second descriptor for a client's connection whose transport has nothing to send.

    The transport goes on reading and noticing that the client has left; it must not be written to
    before this is closed.
    """

    def __init__(
        self, reactor: IReactorFDSet, connection: socket.socket, writable: Callable[[], None]
    ) -> None:
        """Args:
        reactor: Tells when the socket takes more.
        connection: The transport's socket, which stays the transport's.
        writable: Called when the socket takes more.

        Raises:
            OSError: There is no descriptor left.
        """
        self._reactor = reactor
        self._socket = connection.dup()
        self._writable = writable
        self._listed = False

    def send(self, descriptor: int, offset: int, length: int) -> int | None:
        """Hands a part of a file to the kernel (sendfile(2)).

        Args:
            descriptor: The file.
            offset: First byte.
            length: The most bytes to send.

        Returns:
            How many were taken, 0 at the end of the file; None when the socket is full.

        Raises:
            OSError: The connection or the file is broken.
        """
        try:
            return os.sendfile(self._socket.fileno(), descriptor, offset, length)
        except BlockingIOError:
            return None

    def await_writable(self) -> None:
        """Calls back when the socket takes more, until `rest`."""
        if not self._listed:
            self._listed = True
            self._reactor.addWriter(self)

    def rest(self) -> None:
        """Calls back no more: there is nothing to send for now."""
        if self._listed:
            self._listed = False
            self._reactor.removeWriter(self)

    def close(self) -> None:
        """Gives the connection back to its transport."""
        self.rest()
        self._socket.close()

    def doWrite(self) -> None:
        """See IWriteDescriptor."""
        self._writable()

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor; the transport finds out for itself."""
        self.rest()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "delivery"


def direct_socket(
    reactor: IReactorFDSet | None, transport: Any, writable: Callable[[], None]
) -> DirectSocket | None:
    """A direct socket for a transport, None where the bytes must pass through it, as for TLS.

    Args:
        reactor: Tells when the socket takes more; None for no direct sockets at all.
        transport: The client's transport, all of whose bytes have been sent.
        writable: Called when the socket takes more.
    """
    if reactor is None:
        return None
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket):
        return None
    try:
        return DirectSocket(reactor, handle, writable)
    except OSError:
        # Too few descriptors: the client is served all the same.
        return None
