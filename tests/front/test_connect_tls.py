"""CONNECT to what the proxy serves itself: TLS, and the same site, inside."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone

from tests.front.connecting import ESTABLISHED, ConnectCase, TlsClient
from tests.front.proxy import LIMITS


class InterceptionTests(ConnectCase):
    """Hosts that the proxy answers for."""

    def test_request(self) -> None:
        """TLS with a certificate of the host, and the same site inside."""
        self.connect("quay.test:443")
        self.assertEqual(self.client.received, ESTABLISHED)
        tls = TlsClient(self)
        self.client.send(tls.hello)
        self.settle()
        tls.handshake()
        answer = tls.ask("/v2/")
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        self.assertTrue(answer.endswith(b"quay.test:443 quay.test /v2/"), answer)
        self.assertEqual(len(self.connections), 1)
        self.assertEqual(self.reactor.tcpClients, [])
        # Requests inside have lines of their own.
        self.assertEqual(self.log, [])

    def test_early_hello(self) -> None:
        """A ClientHello in one piece with the CONNECT belongs to TLS."""
        tls = TlsClient(self)
        self.connect("quay.test:443", tls.hello)
        tls.handshake()
        self.assertTrue(tls.ask("/a").endswith(b" /a"))
        self.assertTrue(tls.ask("/b").endswith(b" /b"))

    def test_address(self) -> None:
        """A client that asks for an address sends no name, and gets that address's certificate."""
        tls = TlsClient(self, None)
        self.connect("10.9.9.9:5000", tls.hello)
        tls.handshake()
        self.assertTrue(tls.ask("/v2/").endswith(b"10.9.9.9:5000 None /v2/"))
        certificate = tls.connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(
            names.get_values_for_type(x509.IPAddress), [ipaddress.ip_address("10.9.9.9")]
        )

    def test_other_name(self) -> None:
        """A name inside that is not served is refused by TLS."""
        tls = TlsClient(self, "evil.test")
        self.connect("quay.test:443", tls.hello)
        self.assertRaises(SSL.Error, tls.handshake)
        self.reactor.advance(LIMITS.idle)
        self.assert_quiet()

    def test_plain(self) -> None:
        """Plain HTTP inside is answered, logged and hung up on; the end of it is thrown away."""
        self.connect("quay.test:443", b"GET /v2/ HTTP/1.1\r\nHost: quay.test\r\n\r\n")
        del self.client.received[: len(ESTABLISHED)]
        self.assertIn(
            "expected TLS inside a CONNECT to quay.test:443", self.refused(400, "UNSUPPORTED")
        )
        self.assertTrue(self.client.finished)
        self.client.send(b"\x16more")
        self.reactor.advance(2.9)
        self.assertIsNone(self.client.closed)
        self.reactor.advance(0.1)
        self.assertIsNotNone(self.client.closed)
        self.assert_quiet()

    def test_plain_and_gone(self) -> None:
        """A client that leaves after that leaves nothing behind."""
        self.connect("quay.test:443", b"GET / HTTP/1.1\r\n\r\n")
        self.client.transport.hang_up(ConnectionDone())
        self.assert_quiet()

    def test_silent(self) -> None:
        """A client that sends nothing is hung up on like every other idle one."""
        self.connect("quay.test:443")
        self.reactor.advance(LIMITS.idle)
        self.settle()
        self.assertIsNotNone(self.client.closed)
        self.reactor.advance(3)
        self.assert_quiet()

    def test_nonsense(self) -> None:
        """What only begins like TLS ends the connection."""
        self.connect("quay.test:443", b"\x16\x03\x01" + b"\x00" * 100)
        self.settle()
        self.assertIsNotNone(self.client.closed)
        self.assert_quiet()

    def test_full(self) -> None:
        """The connection counts once, so the last one can still be intercepted."""
        self.connections.limit = 1
        self.connect("quay.test:443")
        self.assertIsNone(self.client.closed)
        self.assertEqual(len(self.connections), 1)

    def test_connect_inside(self) -> None:
        """A CONNECT inside a CONNECT is refused."""
        tls = TlsClient(self)
        self.connect("quay.test:443", tls.hello)
        tls.handshake()
        self.client.send(
            tls.step(tls.connection.send, b"CONNECT host.test:443 HTTP/1.1\r\nHost: h\r\n\r\n")
        )
        self.settle()
        tls.take()
        self.assertTrue(tls.connection.recv(1000).startswith(b"HTTP/1.1 400 "))
        self.assertEqual(self.reactor.tcpClients, [])
