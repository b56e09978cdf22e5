"""Listeners: TLS, binding, and how they stop."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource

from regproxy.front.accesslog import AccessLog
from regproxy.front.certificate_authority import open_authority
from regproxy.front.certificates import LeafCertificates
from regproxy.front.connections import Connections
from regproxy.front.listeners import (
    Listener,
    load_certificates,
    load_private_key,
    tls_options,
)
from regproxy.front.site import LimitedSite
from regproxy.testing import HeldWorker
from tests.front.proxy import DATA, LIMITS, ProxyCase
from tests.real.certificates import Certificates

DRAIN = 8.0


class DrainTests(ProxyCase):
    """How a listener stops."""

    def setUp(self) -> None:
        """Starts a listener on a port that is none."""
        super().setUp()
        self.reactor = MemoryReactorClock()
        self.listener = Listener(self.reactor, self.clock, "tcp:5000", self.proxy.site, None, DRAIN)
        self.listener.privilegedStartService()
        self.listener.startService()

    def test_idle(self) -> None:
        """Without requests it stops at once, and idle clients are hung up on."""
        client = self.proxy.client()
        self.assert_whole(client.request("GET", "/v2/"), b"{}")
        done = self.listener.stopService()
        self.clock.pump([0.05] * 2)
        self.successResultOf(done)
        self.assertTrue(client.disconnected)
        self.assertFalse(client.aborted)
        self.assertTrue(self.reactor.tcpServers)

    def test_running_request_ends(self) -> None:
        """What runs is finished, and its client is hung up on after it."""
        self.upstream.hold(self.path, at=1000)
        client = self.proxy.client()
        answer = client.request("GET", self.blob)
        done = self.listener.stopService()
        self.clock.pump([0.05] * 20)
        self.assertNoResult(done)
        self.assertFalse(client.disconnected)
        self.upstream.release(self.path)
        self.clock.pump([0.05] * 4)
        self.successResultOf(done)
        self.assert_whole(answer)
        self.assertTrue(client.disconnected)

    def test_last_bytes(self) -> None:
        """A request is not over before its last byte has left this process."""
        self.fill()
        client = self.proxy.client(reading=False)
        # The last piece is so small that it does not fill the transport's buffer.
        answer = client.request("GET", self.blob, {"Range": "bytes=0-249999"})
        client.read(240_000)
        self.proxy.settle()
        self.assertEqual(self.proxy.site.connections.active, 0)
        done = self.listener.stopService()
        self.clock.pump([0.05] * 4)
        self.assertNoResult(done)
        client.reading = True
        self.clock.pump([0.05] * 4)
        self.successResultOf(done)
        self.assert_whole(answer, DATA[:250_000], 206)

    def test_deadline(self) -> None:
        """What still runs at the deadline is cut, and never looks complete."""
        self.upstream.hold(self.path, at=1000)
        answer = self.proxy.ask(self.blob)
        done = self.listener.stopService()
        self.clock.pump([0.5] * 15)
        self.assertNoResult(done)
        self.clock.pump([0.5] * 2)
        self.successResultOf(done)
        self.assert_cut(answer)
        self.assertEqual(len(self.proxy.site.connections), 0)


class MintedTests(ProxyCase):
    """A TLS listener without a certificate of its own."""

    def test_creator(self) -> None:
        """Every client is shown what the creator of its connection chooses."""
        authority = open_authority(Path(self.mktemp()))
        leaves = LeafCertificates(lambda: authority, lambda _: True, self.clock)
        memory = MemoryReactorClock()
        listener = Listener(
            memory, self.clock, "tcp:443", self.proxy.site, leaves.creator("a.test"), DRAIN
        )
        listener.privilegedStartService()
        self.addCleanup(listener.stopService)
        server: Any = memory.tcpServers[0][1].buildProtocol(IPv4Address("TCP", "127.0.0.1", 50_000))
        transport: Any = StringTransport()
        transport.setTcpNoDelay = bool
        server.makeConnection(transport)
        sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusting = ssl.create_default_context(cadata=authority.pem.decode())
        client = trusting.wrap_bio(received, sent, server_hostname="a.test")
        self.assertRaises(ssl.SSLWantReadError, client.do_handshake)
        server.dataReceived(sent.read())
        received.write(transport.value())
        client.do_handshake()
        server.connectionLost(Failure(ConnectionDone()))


class PortTests(SynchronousTestCase):
    """Binding."""

    def test_backlog(self) -> None:
        """A crowd that comes at once may wait to be accepted, unless the operator says less."""
        site = LimitedSite(
            Resource(), LIMITS, Connections(1), AccessLog(Clock(), HeldWorker(), 1), Clock()
        )
        for endpoint, backlog in (("tcp:5000", 1024), ("tcp:5000:backlog=7", 7)):
            memory = MemoryReactorClock()
            Listener(memory, Clock(), endpoint, site, None, DRAIN).privilegedStartService()
            self.assertEqual(memory.tcpServers[0][2], backlog)

    def test_in_use(self) -> None:
        """A port in use ends the start, with one line that says which."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            site = LimitedSite(
                Resource(), LIMITS, Connections(1), AccessLog(Clock(), HeldWorker(), 1), Clock()
            )
            endpoint = f"tcp:{port}:interface=127.0.0.1"
            listener = Listener(reactor, Clock(), endpoint, site, None, DRAIN)
            refusal = self.assertRaises(SystemExit, listener.privilegedStartService)
        self.assertIn(endpoint, str(refusal))
        self.assertIn(f"[Errno {errno.EADDRINUSE}]", str(refusal))


class CertificateTests(SynchronousTestCase):
    """What a TLS listener is given."""

    def setUp(self) -> None:
        """Writes certificates and keys."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.files = Certificates.make(self.directory)

    def write_key(self, password: bytes | None = None) -> Path:
        """Another key."""
        path = self.directory / "other.key"
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        path.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )
        return path

    def refusal(self, certificate: Path, private_key: Path) -> str:
        """What is said of these."""
        return str(self.assertRaises(ValueError, self.options, certificate, private_key))

    def options(self, certificate: Path, private_key: Path) -> CertificateOptions:
        """What a listener with these files shows."""
        return tls_options(load_certificates(certificate), load_private_key(private_key))

    def test_good(self) -> None:
        """A key that belongs to its certificate is taken."""
        self.assertIsNotNone(self.options(self.files.certificate, self.files.private_key))

    def test_wrong_key(self) -> None:
        """A key of another certificate is refused before anything listens."""
        self.assertIn("does not belong", self.refusal(self.files.certificate, self.write_key()))

    def test_encrypted_key(self) -> None:
        """So is one that nobody can read without being asked."""
        self.assertIn("encrypted", self.refusal(self.files.certificate, self.write_key(b"x")))

    def test_not_pem(self) -> None:
        """So are files that are something else."""
        empty = self.directory / "empty"
        empty.write_bytes(b"")
        self.refusal(empty, self.files.private_key)
        self.refusal(self.files.certificate, empty)


class TlsTests(TestCase, ProxyCase):
    """A TLS listener on a real port, on which everything holds that holds in plain."""

    def setUp(self) -> None:
        """Listens."""
        ProxyCase.setUp(self)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.files = Certificates.make(directory)
        connections = Connections(10)
        self.site = LimitedSite(
            self.proxy.site.resource,
            LIMITS,
            connections,
            self.proxy.access_log,
            reactor,
        )
        self.site.doStart = self.site.doStop = lambda: None  # type: ignore[method-assign]
        options = tls_options(
            load_certificates(self.files.certificate), load_private_key(self.files.private_key)
        )
        factory: Any = TLSMemoryBIOFactory(options, False, self.site)
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.number = port.getHost().port
        self.addCleanup(port.stopListening)
        self.addCleanup(connections.abort_all)

    def ask_raw(self, data: bytes) -> Deferred[tuple[bytes, str | None]]:
        """All that is answered to these bytes, and the protocol that was agreed on."""
        number = self.number

        def blocking() -> tuple[bytes, str | None]:
            context = self.files.trust()
            context.set_alpn_protocols(["h2", "http/1.1"])
            with (
                socket.create_connection(("127.0.0.1", number), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as tls,
            ):
                tls.sendall(data)
                answer = b""
                while piece := tls.recv(65536):
                    answer += piece
                return answer, tls.selected_alpn_protocol()

        return deferToThread(blocking)

    async def test_request(self) -> None:
        """A request over verified TLS, HTTP/1.1 only."""
        answer, protocol = await self.ask_raw(
            b"GET /v2/ HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\n{}"))
        self.assertEqual(protocol, "http/1.1")

    async def test_refused_body(self) -> None:
        """The refusal of a push can be read although its body was being sent."""
        head = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: p\r\nContent-Length: 629145600\r\n\r\n"
        answer, _ = await self.ask_raw(head + b"x" * 300_000)
        self.assertTrue(answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n"), answer)
        self.assertIn(b'"UNSUPPORTED"', answer)

    async def test_old_tls(self) -> None:
        """TLS before 1.2 is refused."""
        number = self.number

        def blocking() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
            with (
                socket.create_connection(("127.0.0.1", number), timeout=10) as plain,
                context.wrap_socket(plain),
            ):
                pass

        try:
            await deferToThread(blocking)
        except ssl.SSLError:
            return
        self.fail("it was accepted")
