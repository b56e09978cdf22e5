"""Connections to upstreams: trust, deadlines, and reads large enough for blobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.web.client import URI, Agent, HTTPConnectionPool, ProxyAgent
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import DIRECT, ProxyRules
from regproxy.upstream.addresses import CheckedEndpoint, Reach
from regproxy.upstream.destinations import DestinationEndpoint, Destinations
from regproxy.upstream.headers import limit_headers
from regproxy.upstream.tunnelling import ProxyEndpoint, ProxyingAgent, TunnelEndpoint, host_of

_READ_SIZE = 1024 * 1024
"""Bytes read from a socket at once: with Twisted's 64 KiB a fill spends a third more time."""

_IDLE_SECONDS = 60


def make_agent(
    reactor: Any,
    *,
    connections: int,
    connect_timeout: float,
    tls: IPolicyForHTTPS,
    destinations: Destinations,
    proxies: ProxyRules = DIRECT,
    kept: bool = True,
) -> IAgent:
    """An agent with connections of its own.

    Args:
        reactor: Connects and resolves names.
        connections: Idle connections kept for each host.
        connect_timeout: Seconds for a TCP connection; name and TLS have the request's deadline.
        tls: Whom it believes.
        destinations: Which addresses it may connect to.
        proxies: Which outgoing proxies lead where.
        kept: Whether connections are kept for further requests.
    """
    pool = HTTPConnectionPool(reactor, persistent=kept)
    pool.maxPersistentPerHost = connections
    pool.cachedConnectionTimeout = _IDLE_SECONDS
    endpoints = _Endpoints(reactor, tls, destinations, proxies, connect_timeout)
    agent: IAgent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    if proxies.http is None:
        return agent
    proxy = _Endpoint(ProxyEndpoint(reactor, proxies.http, connect_timeout))
    proxying = ProxyAgent(proxy, reactor, pool)
    return ProxyingAgent(agent, proxying, proxies, destinations, reactor)


def make_checked_agent(
    reactor: Any, reach: Callable[[HostPort], Reach], connect_timeout: float
) -> IAgent:
    """An agent for plain HTTP to hosts that clients name, each request on its own connection.

    Args:
        reactor: Connects and resolves names.
        reach: Which addresses of a host with a port may be connected to.
        connect_timeout: Seconds to resolve a name and connect.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)
    agent: IAgent = Agent.usingEndpointFactory(
        reactor, _CheckedEndpoints(reactor, reach, connect_timeout), pool
    )
    return agent


@frozen
@implementer(IAgentEndpointFactory)
class _CheckedEndpoints:
    reactor: Any
    reach: Callable[[HostPort], Reach]
    connect_timeout: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory."""
        if uri.scheme != b"http":
            raise ValueError("found a URL that is not http")
        host = HostPort(uri.host.decode("ascii"), uri.port)
        checked = CheckedEndpoint(
            self.reactor, host.name, uri.port, self.reach(host), self.connect_timeout
        )
        return _Endpoint(checked)


@frozen
@implementer(IAgentEndpointFactory)
class _Endpoints:
    reactor: Any
    tls: IPolicyForHTTPS
    destinations: Destinations
    proxies: ProxyRules
    connect_timeout: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory: most requests find a kept connection, and use no endpoint."""
        if uri.scheme not in (b"http", b"https"):
            raise ValueError("found a URL that is neither http nor https")
        return _Endpoint(_Lazy(partial(self._make, uri)))

    def _make(self, uri: URI) -> IStreamClientEndpoint:
        host = host_of(uri)
        scheme = uri.scheme.decode("ascii")
        proxy = self.proxies.choose(scheme, host)
        endpoint: IStreamClientEndpoint
        if proxy is None:
            endpoint = DestinationEndpoint(
                self.reactor, self.destinations, host, self.connect_timeout
            )
        else:
            self.destinations.check_unresolved(host)
            leading = ProxyEndpoint(self.reactor, proxy, self.connect_timeout)
            endpoint = TunnelEndpoint(leading, proxy, host)
        if scheme == "https":
            endpoint = wrapClientTLS(self.tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint


@frozen
@implementer(IStreamClientEndpoint)
class _Lazy:
    make: Callable[[], IStreamClientEndpoint]

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        return self.make().connect(factory)


def pinning(reactor: Any, pinned: Mapping[str, Sequence[str]]) -> Any:
    """A reactor for which the names of some hosts are not looked up.

    Args:
        reactor: Does all the rest.
        pinned: The IP addresses of these hosts.
    """
    return _Pinning(reactor, pinned) if pinned else reactor


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class _Pinning:
    """A reactor that knows the addresses of some hosts without asking."""

    def __init__(self, reactor: Any, pinned: Mapping[str, Sequence[str]]) -> None:
        self._reactor = reactor
        self._pinned = pinned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def nameResolver(self) -> IHostnameResolver:
        """See IReactorPluggableNameResolver."""
        return self

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See IHostnameResolver."""
        addresses = self._pinned.get(hostName.lower())
        if addresses is None:
            resolution: IHostResolution = self._reactor.nameResolver.resolveHostName(
                resolutionReceiver, hostName, portNumber, addressTypes, transportSemantics
            )
            return resolution
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in addresses:
            family = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(family("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@frozen
@implementer(IHostResolution)
class _Resolution:
    name: str

    def cancel(self) -> None:
        """See IHostResolution: it is over already."""


@frozen
@implementer(IStreamClientEndpoint)
class _Endpoint:
    wrapped: IStreamClientEndpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        # Two lines in the log for every connection tell nobody anything.
        quiet: Any = factory
        quiet.noisy = False
        return self.wrapped.connect(limit_headers(quiet)).addCallback(_read_more)


def _read_more(limited: Any) -> IProtocol:
    transport: Any = limited.transport
    while transport is not None:
        if hasattr(transport, "bufferSize"):
            transport.bufferSize = _READ_SIZE
        # TLS wraps the transport that has the socket.
        transport = getattr(transport, "transport", None)
    protocol: IProtocol = limited.wrappedProtocol
    return protocol
