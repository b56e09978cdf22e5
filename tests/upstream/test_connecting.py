"""Tests for regproxy.upstream.connecting, over sockets on loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort
from regproxy.upstream.connecting import make_agent, pinning
from regproxy.upstream.destinations import Destinations
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.headers import HEADERS_LIMIT
from regproxy.upstream.tls import Trust, UpstreamTLS
from regproxy.upstream.transfer import Transfer, TransferCut
from tests.real.certificates import Certificates

DATA = bytes(range(256)) * 32 * 1024
UPSTREAM = HostPort("127.0.0.1", 1)  # what is on loopback leads to what is on loopback

reactor: Any = global_reactor


class _Server(Resource):
    """Answers everything with `DATA`, or with a body that never ends."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.uris: list[bytes] = []
        self.hosts: list[bytes | None] = []
        self.peers: list[object] = []
        self.transports: list[Any] = []
        self.left: Deferred[None] = Deferred()

    def render_GET(self, request: Request) -> bytes | int:
        """Notes what was asked."""
        self.uris.append(request.uri)
        self.hosts.append(request.getHeader(b"host"))
        self.peers.append(request.getClientAddress())
        self.transports.append(request.transport)
        if request.path == b"/endless":
            request.notifyFinish().addErrback(lambda _: self.left.callback(None))
            request.write(DATA)
            return NOT_DONE_YET
        if request.path == b"/empty":
            return b""
        return DATA


class ConnectingCase(TestCase):
    """A server on loopback, and an agent that trusts it."""

    timeout = 20

    def setUp(self) -> None:
        """Makes certificates, but listens nowhere yet."""
        self.server = _Server()
        self.site = Site(self.server)
        self.certificates = Certificates.make(Path(self.mktemp()))
        self.use_agent([self.authority()])

    def authority(self) -> Certificate:
        """What the agent is to trust."""
        return Certificate.loadPEM(self.certificates.authority.read_bytes())

    def use_agent(self, trusted: Sequence[Certificate]) -> None:
        """Asks through an agent that trusts these, or the platform's roots without any."""
        agent: Any = make_agent(
            reactor,
            connections=4,
            connect_timeout=5,
            tls=UpstreamTLS(Trust(trusted), UPSTREAM.name),
            destinations=Destinations("registry.test", UPSTREAM, (), reactor),
        )
        # An agent lives as long as its process, and has no way to close what it keeps.
        self.addCleanup(agent._pool.closeCachedConnections)  # noqa: SLF001
        self.exchange = Exchange(agent, reactor)

    def listen(self, interface: str = "127.0.0.1") -> str:
        """Listens for plain http; returns the origin."""
        port = reactor.listenTCP(0, self.site, interface=interface)
        self.addCleanup(port.stopListening)
        return f"http://{interface}:{port.getHost().port}"

    def options(self, **arguments: Any) -> CertificateOptions:
        """The server's TLS."""
        certificate = x509.load_pem_x509_certificate(self.certificates.certificate.read_bytes())
        key: Any = load_pem_private_key(self.certificates.private_key.read_bytes(), None)
        return CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
            **arguments,
        )

    def listen_tls(self, interface: str = "127.0.0.1", host: str = "", **arguments: Any) -> str:
        """Listens for https; returns the origin."""
        options = arguments.pop("options", None) or self.options(**arguments)
        port = reactor.listenSSL(0, self.site, options, interface=interface)
        self.addCleanup(port.stopListening)
        return f"https://{host or interface}:{port.getHost().port}"

    async def send(self, url: str) -> Answer:
        """An answer whose body is unread."""
        return await self.exchange.send("GET", url, {}, Deadline.after(reactor, 15))

    async def get(self, url: str) -> bytes:
        """A whole body."""
        answer = await self.send(url)
        return await answer.read(len(DATA), Deadline.after(reactor, 15))

    async def refused(self, url: str) -> str:
        """Why there is no answer."""
        error: Any = await self.assertFailure(Deferred.fromCoroutine(self.send(url)), RegistryError)
        self.assertEqual(error.status, 502)
        return str(error.message)


class PlainTests(ConnectingCase):
    """Connections without TLS."""

    async def test_url(self) -> None:
        """On the wire, too, a URL is what it was, and Host goes with it."""
        origin = self.listen()
        target = "/a%2Fb%2fc/%7e/~/./x/../y//z;v=1?sig=%2F%2f+%20&empty=&flag&x=1&x=2"
        self.assertEqual(await self.get(origin + target), DATA)
        self.assertEqual(self.server.uris, [target.encode()])
        self.assertEqual(self.server.hosts, [origin.removeprefix("http://").encode()])

    async def test_reuse(self) -> None:
        """A connection serves again after a body was read, let go, or given up at its end."""
        origin = self.listen()
        await self.get(origin)
        (await self.send(f"{origin}/empty")).discard()
        transfer = Transfer(lambda _: None, reactor, 5)
        (await self.send(origin)).deliver(transfer)
        await transfer.done
        transfer.abort()
        await self.get(origin)
        self.assertEqual(len(self.server.peers), 4)
        self.assertEqual(len(set(map(str, self.server.peers))), 1)

    async def test_reuse_closed(self) -> None:
        """A connection that the server closed meanwhile is replaced, unnoticed by who asks."""
        origin = self.listen()
        await self.get(origin)
        self.server.transports[0].abortConnection()
        self.assertEqual(await self.get(origin), DATA)
        self.assertEqual(len(set(map(str, self.server.peers))), 2)

    async def test_read_size(self) -> None:
        """More than Twisted's 64 KiB are read at once when they are there."""
        pieces: list[int] = []
        answer = await self.send(self.listen())
        await deferLater(reactor, 0.05, lambda: None)
        transfer = Transfer(lambda data: pieces.append(len(data)), reactor, 5)
        answer.deliver(transfer)
        await transfer.done
        self.assertEqual(sum(pieces), len(DATA))
        self.assertGreater(max(pieces), 64 * 1024)

    async def test_nobody_listens(self) -> None:
        """A port where nobody listens is 502, in the system's words."""
        port = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        origin = f"http://127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        self.assertIn("onnection refused", await self.refused(origin))

    async def test_impossible(self) -> None:
        """Names and ports that cannot be are 502."""
        for url in ("https://a..b/", f"https://{'a' * 70}.test/", "http://127.0.0.1:0/"):
            self.assertIn("cannot be reached", await self.refused(url))


class HeadersTests(ConnectingCase):
    """An upstream that does not come to the point."""

    def listen_sending(self, *pieces: bytes) -> str:
        """Answers every request so."""

        class Sending(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.writeSequence(pieces)

        port = reactor.listenTCP(0, Factory.forProtocol(Sending), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def test_endless(self) -> None:
        """Headers without an end are 502, as one line; so are interim answers."""
        for start, line in (
            (b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 8000 + b"\r\n"),
            (b"", b"HTTP/1.1 102 Wait\r\n" + b"X-Filler: x\r\n" * 100 + b"\r\n"),
        ):
            endless = line * (HEADERS_LIMIT * 2 // len(line))
            message = await self.refused(self.listen_sending(start, endless))
            self.assertEqual(
                message, "127.0.0.1 cannot be reached: headers of more than 262144 bytes"
            )

    async def test_below(self) -> None:
        """Large headers are fine, on a connection that is used again as well."""
        line = b"X-Filler: " + b"x" * 8000 + b"\r\n"
        origin = self.listen_sending(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            line * 20,
            b"\r\nok",
        )
        for _ in range(5):
            self.assertEqual(await self.get(origin), b"ok")

    async def test_body(self) -> None:
        """A body may be as long as it likes, however much of it comes with the headers."""
        for origin in (self.listen(), self.listen_tls()):
            self.assertEqual(await self.get(origin), DATA)
            self.assertEqual(await self.get(origin), DATA)


class TrustTests(ConnectingCase):
    """Whom the agent believes."""

    async def test_own_authority(self) -> None:
        """A certificate of the configured authority is accepted, for an address and for a name."""
        for host in ("127.0.0.1", "localhost"):
            self.assertEqual(await self.get(self.listen_tls(host=host)), DATA)

    async def test_platform(self) -> None:
        """Without the authority it is not; the message says that trust is what failed."""
        self.use_agent([])
        message = await self.refused(self.listen_tls())
        self.assertEqual(message, "127.0.0.1 cannot be reached: TLS: certificate verify failed")
        self.assertEqual(self.server.uris, [])

    async def test_other_authority(self) -> None:
        """Another authority of the same name is another one."""
        other = Certificates.make(Path(self.mktemp()))
        self.use_agent([Certificate.loadPEM(other.authority.read_bytes())])
        message = await self.refused(self.listen_tls())
        self.assertIn("TLS: ", message)
        self.assertEqual(self.server.uris, [])

    async def test_name(self) -> None:
        """A certificate for another host is refused though its authority is trusted."""
        message = await self.refused(self.listen_tls("127.0.0.2"))
        self.assertEqual(
            message, "127.0.0.2 cannot be reached: TLS: the certificate is for another name"
        )
        self.assertEqual(self.server.uris, [])

    async def test_old_tls(self) -> None:
        """A server that can do no better than TLS 1.1 is refused, which others would accept."""
        options = self.options(
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_0, lowerMaximumSecurityTo=TLSVersion.TLSv1_1
        )
        options.getContext().set_cipher_list(b"ALL:@SECLEVEL=0")
        origin = self.listen_tls(options=options)
        self.assertEqual(await self._version_for_anyone(origin), "TLSv1.1")
        message = await self.refused(origin)
        self.assertIn("127.0.0.1 cannot be reached: TLS: ", message)
        self.assertIn("version", message)

    async def _version_for_anyone(self, origin: str) -> str:
        """What a client agrees on with the server that accepts everything."""
        anything = CertificateOptions(insecurelyLowerMinimumTo=TLSVersion.TLSv1_0)
        anything.getContext().set_cipher_list(b"ALL:@SECLEVEL=0")
        factory = TLSMemoryBIOFactory(anything, True, Factory.forProtocol(Protocol))
        endpoint = HostnameEndpoint(reactor, b"127.0.0.1", int(origin.rpartition(":")[2]))
        protocol: Any = await endpoint.connect(factory)
        protocol = protocol.wrappedProtocol
        connection = protocol.transport.getHandle()
        while connection.get_state_string() != b"SSL negotiation finished successfully":
            await deferLater(reactor, 0.01, lambda: None)
        version = str(connection.get_protocol_version_name())
        protocol.transport.abortConnection()
        await deferLater(reactor, 0.01, lambda: None)
        return version

    async def test_plain_server(self) -> None:
        """A server that speaks no TLS is told apart."""
        message = await self.refused(self._listen_answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        self.assertIn("127.0.0.1 cannot be reached: TLS: wrong version number", message)

    async def test_dropped(self) -> None:
        """A server that hangs up during the handshake is 502."""
        message = await self.refused(self._listen_answering(b""))
        self.assertIn("127.0.0.1 cannot be reached: ", message)

    def _listen_answering(self, answer: bytes) -> str:
        """Answers the first bytes of a handshake so, and hangs up."""

        class Answering(Protocol):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.write(answer)
                transport.loseConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Answering), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"https://127.0.0.1:{port.getHost().port}"


class LeavingTests(ConnectingCase):
    """Bodies that are given up."""

    async def assert_left(self, origin: str, give_up: Callable[[Transfer], None]) -> None:
        """The server notices at once that nobody reads any more."""
        answer = await self.send(f"{origin}/endless")
        transfer = Transfer(lambda _: transfer.pause(), reactor, 5)
        answer.deliver(transfer)
        await deferLater(reactor, 0.05, lambda: None)
        give_up(transfer)
        await self.assertFailure(transfer.done, TransferCut)
        await self.server.left.addTimeout(2, reactor)

    async def test_abort(self) -> None:
        """Giving up closes a paused connection."""
        await self.assert_left(self.listen(), Transfer.abort)

    async def test_abort_tls(self) -> None:
        """With TLS, too, where an orderly close would wait for the far end."""
        await self.assert_left(self.listen_tls(), Transfer.abort)

    async def test_abort_before_body(self) -> None:
        """A transfer that was given up before its body came closes the connection as well."""
        for origin in (self.listen(), self.listen_tls()):
            self.server.left = Deferred()
            transfer = Transfer(lambda _: None, reactor, 5)
            transfer.abort()
            await self.assertFailure(transfer.done, TransferCut)
            (await self.send(f"{origin}/endless")).deliver(transfer)
            await self.server.left.addTimeout(2, reactor)

    async def test_discard(self) -> None:
        """A long body that nobody wants closes its connection."""
        for origin in (self.listen(), self.listen_tls()):
            self.server.left = Deferred()
            (await self.send(f"{origin}/endless")).discard()
            await self.server.left.addTimeout(2, reactor)


@implementer(IHostnameResolver)
class _Names:
    """Notes which names are asked for, and finds none."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See IHostnameResolver."""
        self.asked.append(hostName)
        resolution: Any = object()
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.resolutionComplete()
        return resolution  # type: ignore[no-any-return]


def agent_for(reactor: Any, upstream: HostPort) -> IAgent:
    """An agent that keeps one connection and trusts the platform's roots."""
    return make_agent(
        reactor,
        connections=1,
        connect_timeout=5,
        tls=UpstreamTLS(Trust(), upstream.name),
        destinations=Destinations("registry.test", upstream, (), reactor),
    )


class NameTests(SynchronousTestCase):
    """What is looked up."""

    def test_hosts(self) -> None:
        """The host without its port is, and no address; a name without addresses is 502."""
        clock: Any = MemoryReactorClock()
        names = _Names()
        clock.installNameResolver(names)
        exchange = Exchange(agent_for(clock, HostPort("registry.test", 443)), clock)
        for url in (
            "https://registry.test/",
            "https://registry.test:5000/",
            "http://Other.test/",
        ):
            sending = exchange.send("GET", url, {}, Deadline.after(clock, 5))
            error: Any = self.failureResultOf(Deferred.fromCoroutine(sending)).value
            self.assertEqual(error.status, 502)
            self.assertIn("name not found", error.message)
        asked = ["registry.test", "registry.test", "registry.test", "registry.test", "other.test"]
        self.assertEqual(names.asked, asked)
        for url in ("https://[2606:4700::5]:5000/", "http://[2606:4700::5]/"):
            sending = exchange.send("GET", url, {}, Deadline.after(clock, 5))
            waiting = Deferred.fromCoroutine(sending)
            host = clock.tcpClients[-1][0]
            self.assertEqual(host, "2606:4700::5")
            waiting.cancel()
            self.failureResultOf(waiting)
        self.assertEqual([port for _, port, *_ in clock.tcpClients], [5000, 80])

    def test_pinned(self) -> None:
        """A pinned host is connected to where it is said to be, all its addresses tried."""
        clock: Any = MemoryReactorClock()
        names = _Names()
        clock.installNameResolver(names)
        pinned = {"registry.test": ["192.0.2.7", "2001:db8::7"]}
        agent = agent_for(pinning(clock, pinned), HostPort("registry.test", 5000))
        exchange = Exchange(agent, clock)
        for url in ("http://Registry.test:5000/", "http://other.test/"):
            sending = exchange.send("GET", url, {}, Deadline.after(clock, 5))
            waiting = Deferred.fromCoroutine(sending)
            clock.pump([0.5] * 4)
            waiting.cancel()
            self.failureResultOf(waiting)
        self.assertEqual(names.asked, ["other.test"])
        tried = [(host, port) for host, port, *_ in clock.tcpClients]
        self.assertEqual(tried, [("192.0.2.7", 5000), ("2001:db8::7", 5000)])
