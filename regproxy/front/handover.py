"""CONNECT: a client's connection goes from HTTP to what its target needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from regproxy.front.early import UNEXPECTED
from regproxy.model.errors import RegistryError

EARLY_LIMIT = 64 * 1024
"""Bytes that are kept behind a CONNECT before the client's connection is no longer read."""

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_log = Logger()


class Connector(Protocol):
    """Decides what a CONNECT leads to."""

    def connect(self, channel: Any, target: str, headers: Headers) -> Deferred[IProtocol]:
        """The protocol that takes the client's connection over.

        Args:
            channel: The client's `ClientChannel`, which leaves `Connections` when the Deferred
                fires.
            target: What the client named, not validated.
            headers: The request's.

        Returns:
            Fires when the client may be told that it is connected; fails with a `RegistryError`
            that the client gets; is cancelled when the client leaves before.
        """
        ...


class HandOver:
    """A connection behind the headers of a CONNECT.

    What the client sends there is never HTTP of this connection: it waits for the successor.

    Attributes:
        successor: Has the connection, None until then.
    """

    def __init__(
        self,
        transport: Any,
        released: Callable[[], None],
        refused: Callable[[RegistryError], None],
    ) -> None:
        """Args:
        transport: The client's.
        released: Called before the successor gets the transport.
        refused: Called instead when there will be none.
        """
        self.successor: IProtocol | None = None
        self._transport = transport
        self._released = released
        self._refused = refused
        self._connecting: Deferred[None] | None = None
        self._early: list[bytes] = []
        self._size = 0
        self._over = False

    def begin(self, connecting: Deferred[IProtocol]) -> None:
        """Waits for the successor.

        Args:
            connecting: What the connector returned.
        """
        self._connecting = connecting.addCallbacks(self._connected, self._failed)
        self._connecting.addErrback(self._broken)

    def received(self, data: bytes) -> None:
        """The client has sent something behind its CONNECT."""
        if self.successor is not None:
            self.successor.dataReceived(data)
        elif not self._over:
            self._early.append(data)
            self._size += len(data)
            if self._size > EARLY_LIMIT:
                self._transport.pauseProducing()

    def lost(self, reason: Failure) -> None:
        """The client's connection is gone."""
        self._over = True
        self._early.clear()
        if self.successor is not None:
            self.successor.connectionLost(reason)
        elif self._connecting is not None:
            self._connecting.cancel()

    def _connected(self, protocol: IProtocol) -> None:
        self._released()
        self.successor = protocol
        self._transport.write(_ESTABLISHED)
        self._transport.resumeProducing()
        protocol.makeConnection(self._transport)
        early, self._early = b"".join(self._early), []
        if early:
            protocol.dataReceived(early)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        known = isinstance(error, RegistryError)
        if not known and not (self._over and isinstance(error, CancelledError)):
            _log.failure("answering CONNECT", failure=failure)
        if not self._over:
            self._over = True
            self._early.clear()
            self._refused(error if isinstance(error, RegistryError) else UNEXPECTED)

    def _broken(self, failure: Failure) -> None:
        _log.failure("handing a connection over", failure=failure)
        self._transport.abortConnection()
