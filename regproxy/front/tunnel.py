"""Tunnels: two connections whose bytes go from one to the other, unread."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.connections import Connections

_FLUSH_SECONDS = 10.0
"""How long an idle tunnel's ends may take to accept what is still buffered for them."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class TunnelEnd(Protocol):
    """One of a tunnel's two connections; reads nothing until it has a tunnel.

    Attributes:
        received: Bytes that came from it.
        finished: Whether it has said that no more will come.
        gone: Whether it is not connected.
        dismissed: Whether it was told to go in TLS, whose clients seldom say goodbye properly.
    """

    transport: Any = None
    tunnel: Tunnel | None = None

    def __init__(self) -> None:
        self.received = 0
        self.finished = False
        self.gone = True
        self.dismissed = False

    def connectionMade(self) -> None:
        """See IProtocol."""
        self.gone = False
        transport = ITCPTransport(self.transport, None)
        if transport is not None:
            # The peers decide what belongs together; a Unix socket has no such options.
            with contextlib.suppress(OSError):
                transport.setTcpNoDelay(True)
                transport.setTcpKeepAlive(True)
        if self.tunnel is None:
            self.transport.pauseProducing()
        else:
            self.tunnel.begin()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self.received += len(data)
        if self.tunnel is not None:
            self.tunnel.moved(self, data)

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""
        if self.tunnel is not None:
            self.tunnel.finished(self)

    def writeConnectionLost(self) -> None:
        """Nothing: the other direction goes on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self.gone = True
        if self.tunnel is not None:
            self.tunnel.lost(self, reason)

    # What the other end asks of this one, as its producer.

    def pauseProducing(self) -> None:
        """See IPushProducer: the other end's buffer is full."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer: the other end's buffer is empty, so that end is alive."""
        if self.tunnel is not None:
            self.tunnel.touch()
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Nothing: the other end's connectionLost follows."""

    # What the tunnel asks.

    def half_close(self) -> None:
        """Says that nothing more will be sent to this end, which may go on sending."""
        self.transport.unregisterProducer()
        self.dismissed = ISSLTransport.providedBy(self.transport)
        if self.dismissed:
            # TLS sends what it holds and its close_notify; below it, a FIN would come before them.
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Hangs up once everything is sent."""
        if not self.gone:
            self.dismissed = ISSLTransport.providedBy(self.transport)
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            # TLS waits for the other side's close_notify, which nobody hears who does not read.
            self.transport.resumeProducing()

    def abort(self) -> None:
        """Hangs up at once."""
        if not self.gone:
            self.transport.abortConnection()


class Tunnel:
    """Connects a client with its target; one line of the access log says how that went.

    Either side may end its direction (FIN), which is passed on while the other direction goes on.
    When one side is gone the other gets what is left for it, and is hung up on.

    Attributes:
        client: To be connected to the client.
        target: Is connected.
    """

    def __init__(
        self,
        target: TunnelEnd,
        entry: Entry,
        idle: float,
        clock: IReactorTime,
        connections: Connections,
        access_log: AccessLog,
    ) -> None:
        """Args:
        target: Connected, and not reading yet.
        entry: What is known of the tunnel; its seconds are those that connecting took.
        idle: Seconds without a byte in either direction, after which it is closed.
        clock: Measures.
        connections: Where it counts as a connection with a request under way.
        access_log: Told when it is over.
        """
        self.client = TunnelEnd()
        self.target = target
        self.client.tunnel = self.target.tunnel = self
        self._entry = entry
        self._idle = idle
        self._clock = clock
        self._connections = connections
        self._access_log = access_log
        self._since = self._last = clock.seconds()
        self._begun = False
        # Also for a client that leaves at this very moment, and is never connected.
        self._timer: IDelayedCall | None = clock.callLater(idle, self._check)

    # What its ends say.

    def begin(self) -> None:
        """The client is connected."""
        self._begun = True
        self._connections.busy(self)
        if self.target.gone:
            self.client.close()
            return
        self.client.transport.registerProducer(self.target, True)
        self.target.transport.registerProducer(self.client, True)
        self.target.transport.resumeProducing()
        self.client.transport.resumeProducing()

    def touch(self) -> None:
        """Something has moved."""
        self._last = self._clock.seconds()

    def moved(self, end: TunnelEnd, data: bytes) -> None:
        """*data* came from *end*."""
        self.touch()
        other = self._other(end)
        if not other.gone:
            other.transport.write(data)

    def finished(self, end: TunnelEnd) -> None:
        """Nothing more will come from *end*."""
        end.finished = True
        other = self._other(end)
        if other.finished:
            self.loseConnection()
        elif not other.gone:
            other.half_close()

    def lost(self, end: TunnelEnd, reason: Failure) -> None:
        """*end* is not connected any more."""
        orderly = end.dismissed or reason.check(ConnectionDone) is not None
        if not orderly and not self._entry.note:
            self._entry.note = f"{'client' if end is self.client else 'target'} reset"
        other = self._other(end)
        if other.gone:
            self._over()
        else:
            other.close()

    # What those say who count it among the connections.

    def loseConnection(self) -> None:
        """See Connection."""
        self.client.close()
        self.target.close()

    def abort(self) -> None:
        """See Connection."""
        self._entry.note = self._entry.note or "cut by the proxy"
        self.client.abort()
        self.target.abort()

    def _other(self, end: TunnelEnd) -> TunnelEnd:
        return self.target if end is self.client else self.client

    def _check(self) -> None:
        left = self._last + self._idle - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._check)
            return
        self._timer = None
        self._entry.note = self._entry.note or f"idle for {self._idle:g} s"
        # Connections may go on the spot, and with them the last reason to cut them later.
        self._timer = self._clock.callLater(_FLUSH_SECONDS, self._cut)
        self.loseConnection()

    def _cut(self) -> None:
        self._timer = None
        self.abort()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connections.closed(self)
        if self._begun:
            self._entry.sent = self.target.received
            self._entry.received = self.client.received
            self._entry.seconds += self._clock.seconds() - self._since
            self._access_log.add(self._entry)
