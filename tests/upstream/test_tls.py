"""Tests for regproxy.upstream.tls, over sockets on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto
from twisted.internet import reactor as global_reactor
from twisted.internet.ssl import Certificate, TLSVersion, trustRootFromCertificates
from twisted.trial.unittest import SynchronousTestCase

from regproxy.upstream.connecting import make_agent
from regproxy.upstream.destinations import Destinations
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.tls import Identity, Trust, UpstreamTLS
from tests.real.certificates import Certificates
from tests.upstream.test_connecting import DATA, UPSTREAM, ConnectingCase

reactor: Any = global_reactor


class TrustCase(ConnectingCase):
    """An agent with settings of its own; upstream's own host is 127.0.0.1."""

    def use(self, trust: Trust, host: str = "127.0.0.1") -> None:
        """Asks through an agent with these settings, for an upstream at this host."""
        agent: Any = make_agent(
            reactor,
            connections=4,
            connect_timeout=5,
            tls=UpstreamTLS(trust, host),
            destinations=Destinations("registry.test", UPSTREAM, (), reactor),
        )
        self.addCleanup(agent._pool.closeCachedConnections)  # noqa: SLF001
        self.exchange = Exchange(agent, reactor)


class IdentityTests(TrustCase):
    """A server that wants to see a client's certificate."""

    def setUp(self) -> None:
        """Makes the client's certificate, and a server that admits nobody else."""
        super().setUp()
        made = Certificates.make(Path(self.mktemp()), ExtendedKeyUsageOID.CLIENT_AUTH)
        key: Any = load_pem_private_key(made.private_key.read_bytes(), None)
        chain = [
            crypto.X509.from_cryptography(load_pem_x509_certificate(path.read_bytes()))
            for path in (made.certificate, made.authority)
        ]
        self.identity = Identity(chain, crypto.PKey.from_cryptography_key(key))
        roots = [Certificate.loadPEM(made.authority.read_bytes())]
        self.origin = self.listen_tls(trustRoot=trustRootFromCertificates(roots))

    async def test_shown(self) -> None:
        """It is shown to upstream's own host."""
        self.use(Trust([self.authority()], self.identity))
        self.assertEqual(await self.get(self.origin), DATA)

    async def test_unverified(self) -> None:
        """Also where upstream itself proves nothing."""
        self.use(Trust([], self.identity, is_verified=False))
        self.assertEqual(await self.get(self.origin), DATA)

    async def test_not_shown(self) -> None:
        """Without it there is no answer, and no other host is shown it."""
        for trust, host in (
            (Trust([self.authority()]), "127.0.0.1"),
            (Trust([self.authority()], self.identity), "localhost"),
        ):
            self.use(trust, host)
            self.assertIn("127.0.0.1 cannot be reached: ", await self.refused(self.origin))
        self.assertEqual(self.server.uris, [])

    async def test_hidden(self) -> None:
        """The key is no part of what is printed."""
        self.assertNotIn("PKey", repr(Trust([], self.identity)))


class UnverifiedTests(TrustCase):
    """An upstream whose certificate is not verified."""

    async def test_own_host(self) -> None:
        """Nobody has to vouch for upstream's own host, and its certificate may be another's."""
        for interface in ("127.0.0.1", "127.0.0.2"):
            self.use(Trust(is_verified=False), interface)
            self.assertEqual(await self.get(self.listen_tls(interface)), DATA)

    async def test_other_host(self) -> None:
        """For every other host somebody has to."""
        self.use(Trust(is_verified=False), "localhost")
        message = await self.refused(self.listen_tls())
        self.assertEqual(message, "127.0.0.1 cannot be reached: TLS: certificate verify failed")

    async def test_server_name(self) -> None:
        """The server is told which host is meant; an address is no such name."""
        seen: list[bytes | None] = []
        for host in ("localhost", "127.0.0.1"):
            options = self.options()
            context = options.getContext()
            context.set_tlsext_servername_callback(lambda c: seen.append(c.get_servername()))
            self.use(Trust(is_verified=False), host)
            await self.get(self.listen_tls(host=host, options=options))
        self.assertEqual([name for name in seen if name], [b"localhost"])

    async def test_old_tls(self) -> None:
        """TLS 1.1 is too old here as well."""
        options = self.options(
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_0, lowerMaximumSecurityTo=TLSVersion.TLSv1_1
        )
        options.getContext().set_cipher_list(b"ALL:@SECLEVEL=0")
        self.use(Trust(is_verified=False))
        self.assertIn("version", await self.refused(self.listen_tls(options=options)))


class KeptTests(SynchronousTestCase):
    """What was made for a host serves again."""

    def test_kept(self) -> None:
        """The same settings come back for the same host, whatever its case, while it is in use."""
        policy = UpstreamTLS(Trust(), "registry.test")
        first = policy.creatorForNetloc(b"registry.test", 443)
        for number in range(40):
            policy.creatorForNetloc(b"host%d.test" % number, 443)
            self.assertIs(policy.creatorForNetloc(b"Registry.test", 5000), first)
        second = policy.creatorForNetloc(b"host0.test", 443)
        self.assertIsNot(second, first)
        self.assertLessEqual(len(policy._creators), 16)  # noqa: SLF001
