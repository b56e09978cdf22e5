"""Minted certificates, judged by real clients: OpenSSL, curl, Python, and one in Go."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from regproxy.front.certificate_authority import (
    CertificateAuthority,
    load_authority,
    open_authority,
)
from regproxy.front.certificates import LeafCertificates
from regproxy.front.listeners import tls_options
from tests.front.authorities import Issuer, key_usage, make_issuer, rsa_key
from tests.real import peers
from tests.real.clients import environment
from tests.real.processes import CommandFailed, run

REPOSITORY = "team/app"


class Rejected(Exception):
    """The client did not take the certificate, or got none; with what it said."""


class Tags(Resource):
    """As much of a registry as a list of tags needs."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See Resource."""
        request.setHeader("content-type", "application/json")
        return json.dumps({"name": REPOSITORY, "tags": ["plain"]}).encode()


def strict_issuer(name: str, key: Any, signed_by: Issuer | None = None) -> Issuer:
    """One with all that RFC 5280 wants of an authority."""
    identifiers: list[x509.ExtensionType] = [
        x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    ]
    if signed_by is not None:
        above = signed_by.key.public_key()
        identifiers.append(x509.AuthorityKeyIdentifier.from_issuer_public_key(above))
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    usage = key_usage(signs=True)
    return make_issuer(name, constraints, usage, *identifiers, signed_by=signed_by, key=key)


class CertificateCases:
    """What every client has to accept and to refuse. Subclasses say how it connects."""

    constrained = "subtree violation"
    """What the client says of a certificate outside the name constraints."""

    def ask(self, host: str, port: int, authority: Path) -> None:
        """Connects, verifies, and asks something.

        Raises:
            Rejected: It did not come to that.
        """
        raise NotImplementedError

    def setUp(self) -> None:
        """Makes a directory."""
        self.directory = Path(self.mktemp()).absolute()  # type: ignore[attr-defined]
        self.trusted = self.directory / "trusted/ca.crt"
        self.trusted.parent.mkdir(parents=True)

    def open(self, *permitted: str) -> CertificateAuthority:
        """One that is made, and that clients trust."""
        authority = open_authority(self.directory / "ca", permitted)
        self.trusted.write_bytes(authority.pem)
        return authority

    def minting(
        self, authority: CertificateAuthority, served: str = "localhost"
    ) -> IOpenSSLServerConnectionCreator:
        """What a listener with this authority is given."""
        clock: Any = reactor
        return LeafCertificates(
            lambda: authority, lambda host: host.name == served, clock
        ).creator()

    def showing(
        self, authority: CertificateAuthority, name: str
    ) -> IOpenSSLServerConnectionCreator:
        """What shows a certificate for *name*, whether it may be vouched for or not."""
        key = ec.generate_private_key(ec.SECP256R1())
        return tls_options([authority.issue(name, key.public_key())], key)

    def attempt(self, creator: IOpenSSLServerConnectionCreator, host: str) -> Deferred[None]:
        """One connection to a server that is there for it."""
        case: Any = self
        # Without a log: its lines are not the test's.
        site: Any = Site(Tags())
        site.noisy, site.log = False, lambda _: None
        factory: Any = TLSMemoryBIOFactory(creator, False, site)
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        case.addCleanup(port.stopListening)
        ask: Callable[..., None] = self.ask
        return deferToThread(ask, host, port.getHost().port, self.trusted)

    async def assert_rejected(self, creator: IOpenSSLServerConnectionCreator, host: str) -> str:
        """It is; gives what the client says."""
        try:
            await self.attempt(creator, host)
        except Rejected as rejection:
            return str(rejection)
        raise AssertionError(f"a certificate for {host} was accepted")

    def assert_in(self, part: str, said: str) -> None:
        """What the client says has this in it."""
        case: Any = self
        case.assertIn(part, said)

    async def test_name(self) -> None:
        """A name is sent as SNI, and its certificate accepted."""
        await self.attempt(self.minting(self.open()), "localhost")

    async def test_address(self) -> None:
        """An address is not, and its certificate accepted all the same."""
        await self.attempt(self.minting(self.open()), "127.0.0.1")

    async def test_other_name(self) -> None:
        """A name that is not served is told so."""
        said = await self.assert_rejected(self.minting(self.open(), "other.test"), "localhost")
        self.assert_in("unrecognized name", said.lower())

    async def test_permitted_name(self) -> None:
        """An authority that is constrained to names is not trusted for addresses."""
        creator = self.minting(self.open("localhost"))
        await self.attempt(creator, "localhost")
        self.assert_in(self.constrained, await self.assert_rejected(creator, "127.0.0.1"))

    async def test_permitted_address(self) -> None:
        """One for addresses is not trusted for names."""
        authority = self.open("127.0.0.0/8")
        await self.attempt(self.minting(authority), "127.0.0.1")
        said = await self.assert_rejected(self.showing(authority, "localhost"), "localhost")
        self.assert_in(self.constrained, said)

    async def test_both_permitted(self) -> None:
        """Names and addresses may be permitted together."""
        creator = self.minting(self.open("localhost", "127.0.0.1", "::1"))
        await self.attempt(creator, "localhost")
        await self.attempt(creator, "127.0.0.1")

    async def test_outside(self) -> None:
        """A certificate outside the constraints is refused, whoever made it."""
        authority = self.open("example.com", "10.0.0.0/8")
        for host in ("localhost", "127.0.0.1"):
            said = await self.assert_rejected(self.showing(authority, host), host)
            self.assert_in(self.constrained, said)

    async def test_supplied(self) -> None:
        """With one's own authority below a root, clients need the root alone."""
        root = strict_issuer("root", rsa_key())
        for key in (rsa_key(), ec.generate_private_key(ec.SECP384R1())):
            lower = strict_issuer("lower", key, root)
            authority = load_authority(*lower.write(self.directory, root))
            self.trusted.write_bytes(root.pem)
            await self.attempt(self.minting(authority), "localhost")
            await self.attempt(self.minting(authority), "127.0.0.1")


class OpenSSLTests(CertificateCases, TestCase):
    """With openssl s_client."""

    def ask(self, host: str, port: int, authority: Path) -> None:
        """See CertificateCases."""
        named = ["-servername", host, "-verify_hostname", host]
        if host[0].isdigit():
            named = ["-noservername", "-verify_ip", host]
        argv = [peers.find("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *named]
        argv += ["-verify_return_error", "-CAfile", str(authority), "-x509_strict"]
        for version in ("-tls1_2", "-tls1_3"):
            ended = run([*argv, version], seconds=20, check=False)
            if ended.status != 0:
                raise Rejected(ended.stderr)


class CurlTests(CertificateCases, TestCase):
    """With curl."""

    def ask(self, host: str, port: int, authority: Path) -> None:
        """See CertificateCases."""
        argv = [peers.find("curl"), "--silent", "--show-error", "--ipv4", "--noproxy", "*"]
        argv += ["--cacert", str(authority), f"https://{host}:{port}/v2/"]
        ended = run(argv, seconds=20, check=False)
        if ended.status != 0:
            raise Rejected(ended.stderr)


class PythonTests(CertificateCases, TestCase):
    """With Python's ssl, as strict as it can be."""

    def ask(self, host: str, port: int, authority: Path) -> None:
        """See CertificateCases."""
        context = ssl.create_default_context(cafile=authority)
        # The default from 3.13 on.
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
                context.wrap_socket(plain, server_hostname=host) as tls,
            ):
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if b"200 OK" not in tls.recv(65536):
                    raise Rejected("no answer")
        except ssl.SSLError as error:
            # Some versions have a name for this alert and no text.
            raise Rejected(f"{error} {error.reason}".replace("_", " ")) from error


class GoTests(CertificateCases, TestCase):
    """With skopeo, for all that are written in Go."""

    constrained = "not authorized to sign for this name"

    def ask(self, host: str, port: int, authority: Path) -> None:
        """See CertificateCases."""
        argv = [peers.find("skopeo"), "list-tags", f"--cert-dir={authority.parent}"]
        argv.append(f"docker://{host}:{port}/{REPOSITORY}")
        try:
            run(argv, seconds=30, environment=environment(self.directory))
        except CommandFailed as failure:
            raise Rejected(str(failure)) from failure
