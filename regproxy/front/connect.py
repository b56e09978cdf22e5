"""CONNECT: registries are intercepted, other hosts are tunnelled to, as far as the operator allows.

A client that uses the proxy as its ``HTTPS_PROXY`` asks for a connection to ``host:port`` (RFC 9110
section 9.3.6). When the proxy serves that host, it answers the TLS inside by itself, and what
comes out goes through the same site as every other request. Nothing else is reached unless
``[connect] tunnel`` says so: a proxy that connects anyone to anything is an open relay.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, ISSLTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.connections import Connections
from regproxy.front.early import LINGER_SECONDS, TLS_HANDSHAKE, early_answer, malformed
from regproxy.front.site import LimitedSite
from regproxy.front.tunnel import Tunnel, TunnelEnd
from regproxy.model.errors import denied
from regproxy.model.hosts import HostPort, parse_host
from regproxy.model.route import WayIn
from regproxy.upstream.addresses import CheckedEndpoint, Reach

_WEB_PORTS = (443, 80)
"""Where ``tunnel = true`` reaches: any further port, such as that of mail, has to be named."""


@frozen
class _Pattern:
    """Hosts by name, ``*`` or ``*.name``, or addresses by network; at one port or at any."""

    host: str
    network: IPv4Network | IPv6Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> _Pattern:
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]").lower().removesuffix(".")
        try:
            network = ip_network(host, strict=False)
        except ValueError:
            network = None
        return cls(host, network, None if port == "*" else int(port))

    def matches(self, name: str) -> bool:
        """Whether the host is what a wildcard stands for."""
        return self.host == "*" or (self.host.startswith("*.") and name.endswith(self.host[1:]))


@frozen
class TunnelPolicy:
    """Which hosts and ports clients get to through the proxy.

    A host by its name means all its addresses, whatever they are, so its DNS is trusted; ``*`` and
    ``*.name`` mean the public addresses of hosts; an address or network means these addresses,
    whatever host resolves to them.
    """

    _patterns: tuple[_Pattern, ...]

    @classmethod
    def of(cls, tunnel: bool | tuple[str, ...]) -> TunnelPolicy:  # noqa: FBT001 - the key's value
        """The policy that ``[connect] tunnel`` describes.

        Args:
            tunnel: Valid patterns ``host:port``, where the host may also be ``*``, ``*.name``, an
                address or a network (IPv6 in brackets), and the port ``*``. True means every
                public host at ports 443 and 80, False nothing.
        """
        if isinstance(tunnel, bool):
            tunnel = tuple(f"*:{port}" for port in _WEB_PORTS) if tunnel else ()
        return cls(tuple(map(_Pattern.parse, tunnel)))

    def reach(self, host: HostPort, port: int) -> Reach:
        """Which addresses of a host may be connected to at a port.

        Args:
            host: As the client named it; its own port does not count.
            port: From 1 to 65535.
        """
        patterns = [each for each in self._patterns if each.port in {None, port}]
        return Reach(
            public=any(each.matches(host.name) for each in patterns),
            named=any(each.network is None and each.host == host.name for each in patterns),
            networks=tuple(each.network for each in patterns if each.network is not None),
        )

    def allows(self, host: HostPort, port: int) -> bool:
        """Whether a host may be asked for at a port; its addresses decide about the rest."""
        return self.reach(host, port) != Reach()

    def check(self, host: HostPort, port: int) -> None:
        """Nothing for a host that may be asked for at a port.

        Raises:
            RegistryError: 403 for any other.
        """
        if not self.allows(host, port):
            named = HostPort(host.name, port)
            raise denied(
                f"nothing is passed on to {named}: a pattern of the proxy's [connect] tunnel has "
                f'to name it, such as "{named}"'
            )


class Leaves(Protocol):
    """Where certificates come from."""

    def creator(self, default_name: str | None = None) -> Any:
        """Makes the server's side of TLS connections.

        Args:
            default_name: What the certificate is for when the client does not say.
        """


@frozen
class ConnectProxy:
    """Answers CONNECT.

    Attributes:
        serves: Whether the proxy itself answers for a host and port, and has certificates for it.
        leaves: These certificates.
        site: What answers inside.
        policy: Where tunnels may go.
        reactor: Connects, resolves and runs deadlines.
        connect_timeout: Seconds to resolve a target and connect to it.
        idle: Seconds without a byte in either direction, after which a tunnel is closed.
        access_log: Gets a line for each tunnel at its end.
        connections: Counts tunnels as connections of clients.
    """

    serves: Callable[[HostPort], bool]
    leaves: Leaves
    site: LimitedSite
    policy: TunnelPolicy
    reactor: Any
    connect_timeout: float
    idle: float
    access_log: AccessLog
    connections: Connections

    def connect(self, channel: Any, target: str, headers: Headers) -> Deferred[IProtocol]:
        """What goes on with a client's connection once it has been told that it is connected.

        Args:
            channel: The client's.
            target: The request's target.
            headers: The request's.

        Raises:
            RegistryError: (as a failure) 400 for a target that is no ``host:port``; 403 for one
                that is not reached through this proxy; 502 and 504 for one that does not answer.
        """
        return Deferred.fromCoroutine(self._connect(channel, target))

    async def _connect(self, channel: Any, target: str) -> IProtocol:
        try:
            host = parse_host(target)
        except ValueError as problem:
            raise malformed(str(problem)) from None
        if host.port is None:
            raise malformed(f"found {target}, expected a port as in {HostPort(host.name, 443)}")
        client = str(getattr(channel.getPeer(), "host", "-"))
        entry = Entry(method="CONNECT", client=client, way=WayIn.CONNECT.value, reference=str(host))
        if self.serves(host):
            return self._intercepted(host, entry)
        return await self._tunnel(host, host.port, entry)

    def _intercepted(self, host: HostPort, entry: Entry) -> IProtocol:
        creator = self.leaves.creator(default_name=host.name)
        inside = TLSMemoryBIOFactory(creator, False, _Inside(self.site, host), self.reactor)
        return _Interception(inside, host, entry, self)

    async def _tunnel(self, host: HostPort, port: int, entry: Entry) -> IProtocol:
        self.policy.check(host, port)
        reach = self.policy.reach(host, port)
        endpoint = CheckedEndpoint(self.reactor, host.name, port, reach, self.connect_timeout)
        since = self.reactor.seconds()
        target: Any = await endpoint.connect(_TARGETS)
        entry.status = 200
        entry.seconds = self.reactor.seconds() - since
        tunnel = Tunnel(target, entry, self.idle, self.reactor, self.connections, self.access_log)
        return tunnel.client


class _Targets(Factory):
    """Makes the ends of tunnels that lead away from clients."""

    protocol = TunnelEnd
    noisy = False


_TARGETS = _Targets()


class _Inside(Factory):
    """Makes the channel for what is inside one CONNECT."""

    noisy = False

    def __init__(self, site: LimitedSite, target: HostPort) -> None:
        self._site = site
        self._target = target

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        channel = self._site.buildProtocol(addr)
        channel.connect_target = self._target
        return channel


class _Interception(TwistedProtocol):
    """The TLS inside a CONNECT to a registry; what is none is told so."""

    transport: Any = None

    def __init__(
        self, inside: TLSMemoryBIOFactory, host: HostPort, entry: Entry, proxy: ConnectProxy
    ) -> None:
        self._inside = inside
        self._host = host
        self._entry = entry
        self._proxy = proxy
        self._begun = self._refused = False
        self._linger: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """See IProtocol."""
        self._tls: Any = self._inside.buildProtocol(self.transport.getPeer())
        self._tls.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if not self._begun:
            self._begun = True
            self._refused = data[:1] != TLS_HANDSHAKE
            if self._refused:
                self._refuse()
        if not self._refused:
            self._tls.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        self._tls.connectionLost(reason)

    def _refuse(self) -> None:
        error = malformed(f"expected TLS inside a CONNECT to {self._host}")
        head, body = early_answer(error)
        self.transport.writeSequence([head, body])
        # Closing at once with unread data would reset the connection before the answer is read.
        abort = self.transport.abortConnection
        self._linger = self._proxy.reactor.callLater(LINGER_SECONDS, abort)
        if ISSLTransport.providedBy(self.transport):
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()
        self._entry.status = error.status
        self._entry.sent = len(body)
        self._entry.note = "no TLS inside the CONNECT"
        self._proxy.access_log.add(self._entry)
