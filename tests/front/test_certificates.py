"""Certificates by the name that a client asks for, through handshakes in memory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, cast

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from regproxy.front.certificate_authority import (
    AuthorityProblem,
    CertificateAuthority,
    load_authority,
    open_authority,
)
from regproxy.front.certificates import LeafCertificates, NameRefused
from tests.front.authorities import DAY, WallClock, make_issuer

LOCAL = IPv4Address("TCP", "10.0.0.5", 443)

# RFC 8446 section 6: fatal, then the description.
INTERNAL_ERROR = bytes((21, 3, 3, 0, 2, 2, 80))
UNRECOGNIZED_NAME = bytes((21, 3, 3, 0, 2, 2, 112))
NO_APPLICATION_PROTOCOL = bytes((21, 3, 3, 0, 2, 2, 120))

# Not a name that Python's own ssl would send.
MALFORMED = (
    b"a.test:443",
    b"b\xc3\xa9.test",
    b"a b",
    b"..",
    b"a" * 254,
    b"[::1]",
    b"127.1",
    b"\xff",
)


@frozen
class Agreed:
    """What a handshake came to.

    Attributes:
        certificate: What the client was shown.
        chain: That and what came with it.
        protocol: What ALPN chose.
        version: The TLS version.
    """

    certificate: x509.Certificate
    chain: list[x509.Certificate]
    protocol: bytes
    version: str

    @property
    def names(self) -> list[str]:
        """The names in the certificate."""
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(name.value) for name in found.value]


class RefusedByServer(Exception):
    """The handshake failed; its argument is what the server sent."""


class LeafCase(SynchronousTestCase):
    """An authority, clocks, and clients that verify nothing."""

    def setUp(self) -> None:
        """Makes them."""
        self.directory = Path(self.mktemp())
        self.clock, self.now = Clock(), WallClock()
        self.served = {"a.test", "b.test", "192.0.2.7"}
        self.opened = 0
        self.authority = open_authority(self.directory / "ca", (), self.now)
        self.logged: list[tuple[LogLevel, str]] = []
        observer = cast(Any, self._log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.leaves = self.leaves_of(self.open)

    def _log(self, event: Any) -> None:
        if event.get("log_namespace") == "regproxy.front.certificates":
            self.logged.append((event["log_level"], event["log_format"].format(**event)))

    def open(self) -> CertificateAuthority:
        """Counts how often it is."""
        self.opened += 1
        return self.authority

    def leaves_of(self, authority: Any) -> LeafCertificates:
        """Leaves that this authority signs."""
        return LeafCertificates(
            authority, lambda host: host.name in self.served, self.clock, self.now
        )

    def shake(
        self,
        name: bytes | None,
        default: str | None = None,
        *,
        local: IAddress = LOCAL,
        alpn: tuple[bytes, ...] = (),
        newest: int = SSL.TLS1_3_VERSION,
    ) -> Agreed:
        """What a client with this SNI gets.

        Raises:
            RefusedByServer: A failed handshake.
        """
        factory = TLSMemoryBIOFactory(
            self.leaves.creator(default), False, Factory.forProtocol(Protocol)
        )
        server = factory.buildProtocol(LOCAL)
        assert server is not None
        transport = StringTransport(hostAddress=local)
        server.makeConnection(transport)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(newest)
        if newest < SSL.TLS1_2_VERSION:
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
        if alpn:
            context.set_alpn_protos(list(alpn))
        client = SSL.Connection(context)
        client.set_connect_state()
        if name is not None:
            client.set_tlsext_host_name(name)
        for _ in range(4):
            received = transport.value()
            transport.clear()
            if received:
                client.bio_write(received)
            try:
                client.do_handshake()
            except SSL.WantReadError:
                server.dataReceived(client.bio_read(65536))
            except SSL.Error:
                self.assertTrue(transport.disconnecting)
                raise RefusedByServer(received) from None
            else:
                break
        chain = client.get_peer_cert_chain(as_cryptography=True)
        assert chain is not None
        agreed = client.get_alpn_proto_negotiated()
        return Agreed(chain[0], chain, agreed, client.get_protocol_version_name())

    def assert_refused(self, alert: bytes, name: bytes | None, *given: Any, **options: Any) -> None:
        """The client is told why before anything else, and nothing breaks."""
        refusal = self.assertRaises(RefusedByServer, self.shake, name, *given, **options)
        self.assertEqual(refusal.args[0][: len(alert)], alert)


class NameTests(LeafCase):
    """Which certificate a client gets."""

    def test_by_name(self) -> None:
        """Each served name gets its own, signed by the authority, in TLS 1.3 and 1.2."""
        for name in ("a.test", "b.test"):
            agreed = self.shake(name.encode())
            self.assertEqual((agreed.names, agreed.version), ([name], "TLSv1.3"))
            agreed.certificate.verify_directly_issued_by(self.authority.certificate)
        agreed = self.shake(b"a.test", newest=SSL.TLS1_2_VERSION)
        self.assertEqual((agreed.names, agreed.version), (["a.test"], "TLSv1.2"))

    def test_one_key(self) -> None:
        """They all have the same key, which is not the authority's."""
        keys = [self.shake(name).certificate.public_key() for name in (b"a.test", b"b.test")]
        self.assertEqual(keys[0], keys[1])
        self.assertNotEqual(keys[0], self.authority.certificate.public_key())

    def test_spelling(self) -> None:
        """Case and a trailing dot make no other name."""
        contexts = {id(self.leaves.context_for(name)) for name in ("a.test", "A.Test", "a.test.")}
        self.assertEqual((len(contexts), len(self.leaves)), (1, 1))
        self.assertEqual(self.shake(b"A.TEST.").names, ["a.test"])

    def test_unknown(self) -> None:
        """A name that is not served is refused, and leaves nothing in the cache."""
        self.assert_refused(UNRECOGNIZED_NAME, b"c.test")
        self.assert_refused(UNRECOGNIZED_NAME, b"c.test", newest=SSL.TLS1_2_VERSION)
        self.assertRaises(NameRefused, self.leaves.context_for, "c.test")
        self.assertEqual((len(self.leaves), self.opened), (0, 0))

    def test_malformed(self) -> None:
        """So is what is no name at all."""
        self.served |= {"a", "::1", "127.0.0.1"}
        for name in MALFORMED:
            self.assert_refused(UNRECOGNIZED_NAME, name)
        for text in ("", "a.test:443", "[::1]:443", "a/b"):
            self.assertRaises(NameRefused, self.leaves.context_for, text)
        self.assertEqual(len(self.leaves), 0)

    def test_address_as_name(self) -> None:
        """An address may be asked for like a name, although RFC 6066 says otherwise."""
        self.assertEqual(self.shake(b"192.0.2.7").names, ["192.0.2.7"])
        self.assert_refused(UNRECOGNIZED_NAME, b"192.0.2.8")
        self.served.add("fd00::1")
        self.assertIsNotNone(self.leaves.context_for("FD00:0::1"))

    def test_no_name(self) -> None:
        """A client that asks for none gets the address that it connected to."""
        for local, name in (
            (LOCAL, "10.0.0.5"),
            (IPv6Address("TCP", "fd00::5", 443), "fd00::5"),
            (IPv6Address("TCP", "::ffff:10.0.0.6", 443), "10.0.0.6"),
            (IPv6Address("TCP", "fe80::1%eth0", 443), "fe80::1"),
        ):
            self.assertEqual(self.shake(None, local=local).names, [name])
        self.assert_refused(UNRECOGNIZED_NAME, None, local=UNIXAddress("/run/socket"))

    def test_default(self) -> None:
        """A default is what no name means, and is served without being asked about."""
        self.assertEqual(self.shake(None, "c.test").names, ["c.test"])
        self.assertEqual(self.shake(b"c.test", "C.test.").names, ["c.test"])
        self.assertEqual(self.shake(b"a.test", "c.test").names, ["a.test"])
        self.assertEqual(self.shake(None, "fd00::7").names, ["fd00::7"])
        self.assert_refused(UNRECOGNIZED_NAME, b"d.test", "c.test")
        # It is that connection's, and no other's.
        self.assert_refused(UNRECOGNIZED_NAME, b"c.test")
        self.assertRaises(NameRefused, self.leaves.creator, "c.test:443")

    def test_constraints(self) -> None:
        """Names that the authority cannot vouch for are refused, but not addresses without one."""
        self.authority = open_authority(self.directory / "other", ["a.test"], self.now)
        self.assertEqual(self.shake(b"a.test").names, ["a.test"])
        self.assert_refused(UNRECOGNIZED_NAME, b"b.test")
        self.assert_refused(UNRECOGNIZED_NAME, None, "b.test")
        self.assertEqual(self.shake(None).names, ["10.0.0.5"])

    def test_interface(self) -> None:
        """What Twisted is given is what it asks for."""
        verifyObject(IOpenSSLServerConnectionCreator, self.leaves.creator())


class AgreementTests(LeafCase):
    """What else is agreed on."""

    def test_alpn(self) -> None:
        """HTTP/1.1 alone; a client that wants something else is told so."""
        self.assertEqual(self.shake(b"a.test", alpn=(b"h2", b"http/1.1")).protocol, b"http/1.1")
        self.assertEqual(self.shake(b"a.test").protocol, b"")
        self.assert_refused(NO_APPLICATION_PROTOCOL, b"a.test", alpn=(b"h2",))
        self.assertEqual(self.logged, [])

    def test_old_tls(self) -> None:
        """TLS before 1.2 is refused."""
        self.assertRaises(RefusedByServer, self.shake, b"a.test", newest=SSL.TLS1_1_VERSION)

    def test_chain(self) -> None:
        """What is between certificate and root is sent, the root is not."""
        self.assertEqual(len(self.shake(b"a.test").chain), 1)
        root = make_issuer("root")
        lower = make_issuer("lower", signed_by=root)
        self.authority = load_authority(*lower.write(self.directory, root), self.now)
        chain = self.shake(b"b.test").chain
        self.assertEqual(chain[1:], [lower.certificate])

    def test_verified(self) -> None:
        """A client that trusts the authority verifies what it is shown."""
        trusting = ssl.create_default_context(cadata=self.authority.pem.decode())
        server = TLSMemoryBIOFactory(
            self.leaves.creator(), False, Factory.forProtocol(Protocol)
        ).buildProtocol(LOCAL)
        assert server is not None
        for name in ("a.test", "10.0.0.5"):
            self.assertIn(name, str(self._verified(trusting, name)))

    def _verified(self, trusting: ssl.SSLContext, name: str) -> object:
        server = TLSMemoryBIOFactory(
            self.leaves.creator(), False, Factory.forProtocol(Protocol)
        ).buildProtocol(LOCAL)
        assert server is not None
        transport = StringTransport(hostAddress=LOCAL)
        server.makeConnection(transport)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(incoming, outgoing, server_hostname=name)
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                server.dataReceived(outgoing.read())
                incoming.write(transport.value())
                transport.clear()
            else:
                return client.getpeercert()


class CacheTests(LeafCase):
    """What is kept, and for how long."""

    def test_bounded(self) -> None:
        """At most 1024 are kept; those used last stay."""
        leaves = LeafCertificates(self.open, lambda _: True, self.clock, self.now)
        first = leaves.context_for("n0.test")
        second = leaves.context_for("n1.test")
        for number in range(2, 1024):
            leaves.context_for(f"n{number}.test")
        self.assertIs(leaves.context_for("n0.test"), first)
        leaves.context_for("one.more.test")
        self.assertEqual(len(leaves), 1024)
        self.assertIs(leaves.context_for("n0.test"), first)
        self.assertIsNot(leaves.context_for("n1.test"), second)

    def test_renewed(self) -> None:
        """A certificate is replaced ten days before it expires."""
        first, context = self.shake(b"a.test"), self.leaves.context_for("a.test")
        self.now.advance(19.9)
        self.assertIs(self.leaves.context_for("a.test"), context)
        self.now.advance(0.2)
        second = self.shake(b"a.test")
        self.assertNotEqual(first.certificate, second.certificate)
        self.assertEqual(second.certificate.not_valid_after_utc, self.now() + 30 * DAY)
        self.assertEqual(len(self.leaves), 1)

    def test_clock_set_back(self) -> None:
        """Certificates from the future are not shown."""
        self.now.advance(10)
        context = self.leaves.context_for("a.test")
        self.now.advance(-5)
        self.assertIsNot(self.leaves.context_for("a.test"), context)

    def test_authority_ends(self) -> None:
        """Close to the authority's end certificates end with it, and are still kept for a while."""
        self.now.time = self.authority.certificate.not_valid_after_utc - 3 * DAY
        context = self.leaves.context_for("a.test")
        self.now.advance(1.9)
        self.assertIs(self.leaves.context_for("a.test"), context)
        self.now.advance(0.2)
        self.assertIsNot(self.leaves.context_for("a.test"), context)
        self.now.advance(1)
        self.assertRaises(AuthorityProblem, self.leaves.context_for, "a.test")

    def test_lazy(self) -> None:
        """The authority is not asked for before a certificate is needed, and for each once."""
        self.leaves.creator()
        self.assertEqual(self.opened, 0)
        for _ in range(3):
            self.shake(b"a.test")
        self.assertEqual(self.opened, 1)


class TroubleTests(LeafCase):
    """Clients that are hostile, and an authority that fails."""

    def test_refusals_logged(self) -> None:
        """Refused names fill no log: one line a minute, which counts the others."""
        for number in range(5):
            self.assert_refused(UNRECOGNIZED_NAME, f"evil{number}.test".encode())
        self.assertEqual(len(self.logged), 1)
        self.assertIn("'evil0.test'", self.logged[0][1])
        self.clock.advance(60)
        self.assert_refused(UNRECOGNIZED_NAME, b"late.test")
        self.assertEqual(len(self.logged), 2)
        self.assertIn("'late.test'", self.logged[1][1])
        self.assertIn("(4 more", self.logged[1][1])
        self.assertEqual({level for level, _ in self.logged}, {LogLevel.info})

    def test_hostile_name_in_log(self) -> None:
        """What a client sends is shown escaped and cut."""
        self.assert_refused(UNRECOGNIZED_NAME, b"a\n\x1b[31m" + b"b" * 200)
        self.assertIn("'a\\n\\x1b[31mbbb", self.logged[0][1])
        self.assertLess(len(self.logged[0][1]), 400)
        self.assertTrue(self.logged[0][1].isprintable())

    def test_no_authority(self) -> None:
        """Without an authority clients are refused, the log says why, and the next one may do."""
        problems: list[Exception] = [AuthorityProblem("it is gone"), OSError(5, "disk")]

        def failing() -> CertificateAuthority:
            if problems:
                raise problems[0]
            return self.authority

        self.leaves = self.leaves_of(failing)
        for _ in range(3):
            self.assert_refused(INTERNAL_ERROR, b"a.test")
        del problems[0]
        self.clock.advance(61)
        self.assert_refused(INTERNAL_ERROR, b"a.test")
        self.assertEqual([level for level, _ in self.logged], [LogLevel.error] * 2)
        self.assertIn("it is gone (0 more", self.logged[0][1])
        self.assertIn("disk", self.logged[1][1])
        self.assertIn("(2 more", self.logged[1][1])
        problems.clear()
        self.assertEqual(self.shake(b"a.test").names, ["a.test"])

    def test_mistake(self) -> None:
        """A mistake of our own is logged with its traceback, and once a minute as well."""
        self.leaves = self.leaves_of({}.popitem)
        for _ in range(3):
            self.assert_refused(INTERNAL_ERROR, b"a.test")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.clock.advance(60)
        self.assert_refused(INTERNAL_ERROR, b"a.test")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_no_tls(self) -> None:
        """Bytes that are no TLS end the connection, and nothing is logged."""
        server = TLSMemoryBIOFactory(
            self.leaves.creator(), False, Factory.forProtocol(Protocol)
        ).buildProtocol(LOCAL)
        assert server is not None
        transport = StringTransport(hostAddress=LOCAL)
        server.makeConnection(transport)
        server.dataReceived(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.logged, [])
