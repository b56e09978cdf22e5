"""Requests through an outgoing proxy: CONNECT for https, the whole URL for http."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from regproxy import __version__
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import OutgoingProxy, ProxyRules
from regproxy.upstream.addresses import CheckedEndpoint, Reach
from regproxy.upstream.bodies import discard_body
from regproxy.upstream.destinations import Destinations

_ANSWER_LIMIT = 16 * 1024
"""Bytes of the answer to a CONNECT, before the tunnel begins."""

_STATUS = re.compile(
    rb"HTTP/1\.[01] (?P<status>[1-5][0-9][0-9])(?: (?P<reason>[ -~]{0,100})|(?=\r)|$)"
)
_INTERIM = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9](?:[ \r]|$)")
_CREDENTIALS_WANTED = 407


@frozen
@implementer(IStreamClientEndpoint)
class ProxyEndpoint:
    """The outgoing proxy itself: the operator chose it, so it may be anywhere.

    Attributes:
        reactor: Resolves, connects and tells the time.
        proxy: Which one.
        timeout: Seconds to resolve its name and connect.
    """

    reactor: Any
    proxy: OutgoingProxy
    timeout: float

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint.

        Raises:
            RegistryError: (as a failure) 502 or 504, it cannot be reached.
        """
        host, port = self.proxy.host, self.proxy.port
        endpoint = CheckedEndpoint(self.reactor, host, port, Reach(named=True), self.timeout)
        return endpoint.connect(factory).addErrback(_of_proxy)


def _of_proxy(failure: Failure) -> NoReturn:
    failure.trap(RegistryError)
    error: Any = failure.value
    raise RegistryError(error.status, error.code, f"outgoing proxy: {error.message}")


@frozen
@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """A host and port behind an outgoing proxy (RFC 9110 section 9.3.6).

    Attributes:
        endpoint: Leads to the proxy.
        proxy: Which one.
        target: The host, with the port.
    """

    endpoint: IStreamClientEndpoint
    proxy: OutgoingProxy
    target: HostPort

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint.

        Raises:
            RegistryError: (as a failure) 502 or 504, the proxy cannot be reached or refuses.
        """
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        opening: Any = await self.endpoint.connect(_OpeningFactory(self, factory))
        protocol: IProtocol = await opening.opened
        return protocol


class _OpeningFactory(Factory):
    """Makes the one protocol of a connection to the proxy."""

    noisy = False

    def __init__(self, tunnel: TunnelEndpoint, inner: IProtocolFactory) -> None:
        self._tunnel = tunnel
        self._inner = inner

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """See IProtocolFactory."""
        return _Opening(self._tunnel, self._inner, addr)


class _Opening(Protocol):
    """Asks the proxy for a tunnel, and from then on is nothing but its near end.

    Attributes:
        opened: Fires with the protocol inside the tunnel.
    """

    def __init__(self, tunnel: TunnelEndpoint, inner: IProtocolFactory, address: Any) -> None:
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._hang_up())
        self._tunnel = tunnel
        self._factory = inner
        self._address = address
        self._received = b""
        self._inner: IProtocol | None = None

    def connectionMade(self) -> None:
        """Asks."""
        target, authorization = self._tunnel.target, self._tunnel.proxy.authorization
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        lines.append(f"User-Agent: regproxy/{__version__}")
        if authorization:
            lines.append(f"Proxy-Authorization: {authorization}")
        transport: Any = self.transport
        transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif not self.opened.called:
            self._received += data
            self._read_answer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self._fail("hung up")

    def _read_answer(self) -> None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        while end and len(head) <= _ANSWER_LIMIT and _INTERIM.match(head):
            self._received = rest
            head, end, rest = rest.partition(b"\r\n\r\n")
        if len(head) > _ANSWER_LIMIT:
            self._fail("sent an answer that is too large")
        elif end:
            self._received = b""
            match = _STATUS.match(head)
            if match is None:
                self._fail("answered with what is no HTTP")
            elif match["status"].startswith(b"2"):
                self._open(rest)
            else:
                self._fail(
                    _refusal(int(match["status"]), match["reason"] or b"", self._tunnel.proxy)
                )

    def _open(self, rest: bytes) -> None:
        inner = self._inner = self._factory.buildProtocol(self._address)
        if inner is None or self.transport is None:
            self._fail("was not waited for")
            return
        inner.makeConnection(self.transport)
        if rest:
            inner.dataReceived(rest)
        self.opened.callback(inner)

    def _fail(self, what: str) -> None:
        tunnel = self._tunnel
        self.opened.errback(
            upstream_failed(f"{tunnel.target}: the outgoing proxy {tunnel.proxy} {what}")
        )
        self._hang_up()

    def _hang_up(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


def _refusal(status: int, reason: bytes, proxy: OutgoingProxy) -> str:
    if status == _CREDENTIALS_WANTED:
        if proxy.authorization:
            return "does not accept its user name and password (407)"
        return "wants a user name and password (407): none are configured"
    return f"refused: {status} {reason.decode('ascii')}".rstrip()


@implementer(IAgent)
class ProxyingAgent:
    """Sends what is for http hosts behind an outgoing proxy there, and the rest by another agent.

    A proxy's own answer looks like upstream's; only one that wants a credential is told apart.
    """

    def __init__(
        self,
        agent: IAgent,
        proxying: IAgent,
        rules: ProxyRules,
        destinations: Destinations,
        reactor: Any,
    ) -> None:
        """Args:
        agent: For all other requests.
        proxying: Sends requests with their whole URL to ``rules.http``.
        rules: Say which they are.
        destinations: Judges where they lead.
        reactor: Tells the time.
        """
        self._agent = agent
        self._proxying = proxying
        self._rules = rules
        self._destinations = destinations
        self._reactor = reactor

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See IAgent."""
        host, proxy = None, None
        if uri.lower().startswith(b"http:"):
            host = host_of(URI.fromBytes(uri))
            proxy = self._rules.choose("http", host)
        if host is None or proxy is None:
            return self._agent.request(method, uri, headers, bodyProducer)
        self._destinations.check_unresolved(host)
        headers = Headers() if headers is None else headers.copy()
        if proxy.authorization:
            headers.setRawHeaders(b"Proxy-Authorization", [proxy.authorization.encode("ascii")])
        waiting = self._proxying.request(method, uri, headers, bodyProducer)
        return waiting.addCallback(self._check, host, proxy)

    def _check(self, response: IResponse, host: HostPort, proxy: OutgoingProxy) -> IResponse:
        if response.code == _CREDENTIALS_WANTED:
            discard_body(response, self._reactor)
            what = _refusal(_CREDENTIALS_WANTED, b"", proxy)
            raise upstream_failed(f"{host}: the outgoing proxy {proxy} {what}")
        return response


def host_of(uri: URI) -> HostPort:
    """The host and port of a URL."""
    return HostPort(uri.host.decode("ascii").lower(), uri.port)
