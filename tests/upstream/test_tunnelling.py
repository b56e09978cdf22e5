"""Tests for regproxy.upstream.tunnelling."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import OutgoingProxy, ProxyRules, parse_proxy
from regproxy.upstream.connecting import make_agent
from regproxy.upstream.destinations import Destinations
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.tls import Trust, UpstreamTLS
from regproxy.upstream.tunnelling import ProxyEndpoint, TunnelEndpoint
from tests.upstream.resolver import FixedResolver

TARGET = HostPort("registry.test", 443)
OPEN = OutgoingProxy("10.9.9.9", 3128)
CLOSED = parse_proxy("http://me:secret@10.9.9.9:3128")
SECRET = "bWU6c2VjcmV0"  # of me:secret


class _Inner(Protocol):
    """Collects what comes through the tunnel."""

    data = b""
    reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self.reason = reason


class _Transport(StringTransport):
    """A connection to the proxy."""

    protocol: Any = None
    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.aborted = True


class ProxyCase(SynchronousTestCase):
    """An outgoing proxy that answers what a test says."""

    def setUp(self) -> None:
        """Makes a reactor that connects to nothing."""
        self.transport: Any = None
        self.reactor: Any = MemoryReactorClock()
        self.reactor.installNameResolver(FixedResolver({"proxy.test": ["10.9.9.9"]}))

    def accept(self) -> _Transport:
        """The proxy accepts the last attempt to connect to it."""
        address, port, factory, *_ = self.reactor.tcpClients[-1]
        peer = IPv4Address("TCP", address, port)
        transport = _Transport(IPv4Address("TCP", "10.9.9.1", 40000), peer)
        transport.protocol = factory.buildProtocol(peer)
        transport.protocol.makeConnection(transport)
        return transport

    def receive(self, data: bytes) -> None:
        """Something comes from the proxy."""
        self.transport.protocol.dataReceived(data)


class TunnelTests(ProxyCase):
    """CONNECT."""

    def connect(self, proxy: OutgoingProxy = OPEN, target: HostPort = TARGET) -> None:
        """Asks for a tunnel, up to the proxy's answer."""
        endpoint = TunnelEndpoint(ProxyEndpoint(self.reactor, proxy, 5), proxy, target)
        self.waiting: Deferred[IProtocol] = endpoint.connect(Factory.forProtocol(_Inner))
        self.transport = self.accept()

    def refused(self) -> str:
        """Why there is no tunnel; nobody holds the connection any more."""
        error: Any = self.failureResultOf(self.waiting, RegistryError).value
        self.assertEqual((error.status, error.code), (502, "UNKNOWN"))
        return str(error.message)

    def test_request(self) -> None:
        """The proxy is asked for the host and port."""
        self.connect()
        agent = f"regproxy/{__version__}"
        self.assertEqual(
            self.transport.value().decode(),
            "CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\n"
            f"User-Agent: {agent}\r\n\r\n",
        )
        self.connect(target=HostPort("fd00::5", 5000))
        self.assertIn(b"CONNECT [fd00::5]:5000 HTTP/1.1\r\n", self.transport.value())

    def test_credentials(self) -> None:
        """It is shown the credential that it has."""
        self.connect(CLOSED)
        wanted = f"\r\nProxy-Authorization: Basic {SECRET}\r\n"
        self.assertIn(wanted.encode(), self.transport.value())

    def test_open(self) -> None:
        """Behind the answer begins the tunnel, however the bytes come."""
        answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nVia: 1.1 p\r\n\r\n"
        for size in (1, 7, 1000):
            self.connect()
            data = answer + b"hello"
            for start in range(0, len(data), size):
                self.receive(data[start : start + size])
            inner: Any = self.successResultOf(self.waiting)
            self.assertEqual(inner.data, b"hello")
            self.receive(b", world")
            self.assertEqual(inner.data, b"hello, world")
            self.assertIs(inner.transport, self.transport)
            self.transport.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertTrue(inner.reason.check(ConnectionDone))

    def test_many_interim_answers(self) -> None:
        """However many interim answers come at once, they are read one after the other."""
        self.connect()
        self.receive(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000 + b"HTTP/1.1 200 OK\r\n\r\n")
        self.successResultOf(self.waiting)

    def test_refused(self) -> None:
        """A refusal is told in the proxy's words."""
        for answer, words in (
            (b"403 Forbidden", "refused: 403 Forbidden"),
            (b"503", "refused: 503"),
            (b"502 Bad \x1b[2J Gateway", "refused: 502 Bad"),
            (b"302 Found", "refused: 302 Found"),
        ):
            self.connect()
            self.receive(b"HTTP/1.1 " + answer + b"\r\nLocation: http://x/\r\n\r\n<html>")
            self.assertEqual(
                self.refused(), f"registry.test:443: the outgoing proxy 10.9.9.9:3128 {words}"
            )
            self.assertTrue(self.transport.aborted)

    def test_credentials_wanted(self) -> None:
        """One that wants a credential, or another, is told apart; the credential is not told."""
        for proxy, words in (
            (OPEN, "wants a user name and password (407): none are configured"),
            (CLOSED, "does not accept its user name and password (407)"),
        ):
            self.connect(proxy)
            self.receive(b"HTTP/1.1 407 Nope\r\n\r\n")
            message = self.refused()
            self.assertIn(words, message)
            self.assertNotIn("secret", message)
            self.assertNotIn(SECRET, message)

    def test_nonsense(self) -> None:
        """Whatever else it says or does is 502."""
        for data, words in (
            (b"SSH-2.0-x\r\n\r\n", "answered with what is no HTTP"),
            (b"HTTP/1.1 20 OK\r\n\r\n", "answered with what is no HTTP"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "sent an answer that is too large"),
        ):
            self.connect()
            self.receive(data)
            self.assertIn(words, self.refused())
            self.receive(b"more")
            self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.connect()
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIn("hung up", self.refused())

    def test_unreachable(self) -> None:
        """A proxy that does not answer is named."""
        tunnel = TunnelEndpoint(ProxyEndpoint(self.reactor, OPEN, 5), OPEN, TARGET)
        self.waiting = tunnel.connect(Factory.forProtocol(Protocol))
        factory, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[-1]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.assertIn("outgoing proxy: connecting to 10.9.9.9:3128: ", self.refused())
        unknown = OutgoingProxy("nowhere.test", 1)
        self.waiting = ProxyEndpoint(self.reactor, unknown, 5).connect(
            Factory.forProtocol(Protocol)
        )
        self.assertEqual(self.refused(), "outgoing proxy: nowhere.test cannot be resolved")

    def test_cancelled(self) -> None:
        """When nobody waits any more, the connection is closed."""
        self.connect()
        self.waiting.cancel()
        self.failureResultOf(self.waiting)
        self.assertTrue(self.transport.aborted)
        self.receive(b"HTTP/1.1 200 OK\r\n\r\n")

    def test_by_name(self) -> None:
        """A proxy that has a name is looked up."""
        self.connect(OutgoingProxy("proxy.test", 3128))
        self.assertEqual(self.reactor.tcpClients[-1][:2], ("10.9.9.9", 3128))


class AgentTests(ProxyCase):
    """Requests of a registry behind a proxy."""

    def setUp(self) -> None:
        """Makes the agent."""
        super().setUp()
        rules = ProxyRules.everywhere(CLOSED)
        upstream = HostPort("registry.test", 80)
        agent = make_agent(
            self.reactor,
            connections=2,
            connect_timeout=5,
            tls=UpstreamTLS(Trust(), upstream.name),
            destinations=Destinations("registry.test", upstream, (), self.reactor, is_proxied=True),
            proxies=rules,
        )
        self.exchange = Exchange(agent, self.reactor)

    def ask(self, url: str) -> Deferred[Answer]:
        """Begins a request."""
        sending = self.exchange.send("GET", url, {}, Deadline.after(self.reactor, 5))
        return Deferred.fromCoroutine(sending)

    def test_http(self) -> None:
        """What is http is asked with its whole URL, byte for byte, and the credential."""
        waiting = self.ask("http://registry.test/a%2Fb?x=%7e")
        self.transport = self.accept()
        request = self.transport.value().decode()
        self.assertTrue(request.startswith("GET http://registry.test/a%2Fb?x=%7e HTTP/1.1\r\n"))
        self.assertIn("\r\nHost: registry.test\r\n", request)
        self.assertIn(f"\r\nProxy-Authorization: Basic {SECRET}\r\n", request)
        self.receive(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(waiting).status, 204)

    def test_http_refused(self) -> None:
        """A proxy that does not accept the credential is 502, and not upstream's answer."""
        waiting = self.ask("http://registry.test/")
        self.transport = self.accept()
        self.receive(b"HTTP/1.1 407 Nope\r\nContent-Length: 0\r\n\r\n")
        error: Any = self.failureResultOf(waiting, RegistryError).value
        self.assertEqual(error.status, 502)
        words = "does not accept its user name and password (407)"
        self.assertEqual(
            error.message, f"registry.test:80: the outgoing proxy 10.9.9.9:3128 {words}"
        )

    def test_https(self) -> None:
        """What is https goes through a tunnel, in which TLS begins; no request is readable."""
        waiting = self.ask("https://registry.test/secret-path")
        self.transport = self.accept()
        self.assertTrue(
            self.transport.value().startswith(b"CONNECT registry.test:443 HTTP/1.1\r\n")
        )
        self.transport.clear()
        self.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        hello = self.transport.value()
        self.assertEqual(hello[:2], b"\x16\x03")
        self.assertIn(b"registry.test", hello)
        self.assertNotIn(SECRET.encode(), hello)
        waiting.cancel()
        self.failureResultOf(waiting)

    def test_https_refused(self) -> None:
        """A refused tunnel is 502, in the proxy's words."""
        waiting = self.ask("https://registry.test/")
        self.transport = self.accept()
        self.receive(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        error: Any = self.failureResultOf(waiting, RegistryError).value
        self.assertEqual(error.status, 502)
        self.assertIn("refused: 403 Forbidden", error.message)
