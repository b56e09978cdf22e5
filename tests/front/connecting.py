"""What tests of CONNECT have in common: a site that answers it, and a network that is the test."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

from OpenSSL import SSL, crypto
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from regproxy.front.accesslog import AccessLog
from regproxy.front.certificate_authority import CertificateAuthority, open_authority
from regproxy.front.certificates import LeafCertificates
from regproxy.front.connect import ConnectProxy, TunnelPolicy
from regproxy.front.connections import Connections
from regproxy.front.site import LimitedSite
from regproxy.model.hosts import HostPort
from tests.front.proxy import LIMITS
from tests.front.tunnelling import Entries, Peer
from tests.upstream.resolver import FixedResolver

IDLE = 600.0
CONNECT_TIMEOUT = 10.0
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SERVED = {"quay.test", "10.9.9.9"}


class _Answer(Resource):
    """Says how a request came."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        """The target, the CONNECT around it and the path."""
        channel: Any = request.channel
        return f"{channel.connect_target} {channel.server_name} {request.uri.decode()}".encode()


class ConnectCase(SynchronousTestCase):
    """A site that answers CONNECT, and a network that the test is."""

    tunnel: bool | tuple[str, ...] = ("*:443", "git.test:22", "172.16.0.0/12:443")

    def setUp(self) -> None:
        """Serves two hosts, and knows a few others."""
        self.reactor: Any = MemoryReactorClock()
        self.reactor.installNameResolver(
            FixedResolver(
                {
                    "host.test": ["8.8.8.8"],
                    "git.test": ["10.0.0.1"],
                    "inside.test": ["10.0.0.2"],
                    "lab.test": ["172.16.0.9"],
                }
            )
        )
        self.log = Entries()
        access_log = cast(AccessLog, self.log)
        self.connections = Connections(10)
        self.site = LimitedSite(
            _Answer(), LIMITS, self.connections, access_log, reactor=self.reactor
        )
        self.leaves = LeafCertificates(authority, self.serves, self.reactor)
        self.proxy = self.site.connector = ConnectProxy(
            serves=self.serves,
            leaves=self.leaves,
            site=self.site,
            policy=TunnelPolicy.of(self.tunnel),
            reactor=self.reactor,
            connect_timeout=CONNECT_TIMEOUT,
            idle=IDLE,
            access_log=access_log,
            connections=self.connections,
        )
        self.client = Peer(self.reactor)
        self.client.transport.start(self.site.buildProtocol(None))

    def serves(self, host: HostPort) -> bool:
        """Whether a host is one that is intercepted; one is so at a single port."""
        return host.name in SERVED or host == HostPort("port.test", 5000)

    def settle(self) -> None:
        """Lets everything happen that is due."""
        self.reactor.advance(0)

    def connect(self, target: str, behind: bytes = b"") -> None:
        """Sends a CONNECT, and something behind it in the same piece."""
        self.client.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode() + behind)
        self.settle()

    def accept(self, number: int = 0) -> Peer:
        """Answers an attempt to connect to a target."""
        address, port, factory, _, _ = self.reactor.tcpClients[number]
        target = Peer(self.reactor, IPv4Address("TCP", address, port))
        target.transport.start(factory.buildProtocol(target.transport.getPeer()))
        self.settle()
        return target

    def refused(self, status: int, code: str) -> str:
        """The message of the refusal that the client got."""
        head, _, body = bytes(self.client.received).partition(b"\r\n\r\n")
        self.assertEqual(head.split(b" ")[1], b"%d" % status, head)
        (error,) = json.loads(body)["errors"]
        self.assertEqual(error["code"], code)
        (entry,) = self.log
        self.assertEqual((entry.method, entry.way, entry.status), ("CONNECT", "connect", status))
        return str(error["message"])

    def assert_quiet(self) -> None:
        """Asserts that nobody is connected, and nothing left to run."""
        self.settle()
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class TlsClient:
    """The client's side of TLS, over a peer of the proxy."""

    def __init__(self, case: ConnectCase, name: str | None = "quay.test") -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        certificate: Any = authority().certificate
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(_x509(certificate))
        context.set_verify(SSL.VERIFY_PEER)
        self._case = case
        self._read = len(ESTABLISHED)
        self.connection = SSL.Connection(context)
        if name is not None:
            self.connection.set_tlsext_host_name(name.encode())
        self.connection.set_connect_state()
        self.hello = self.step(self.connection.do_handshake)

    def step(self, action: Any, *arguments: Any) -> bytes:
        """What the connection sends when this is done."""
        with contextlib.suppress(SSL.WantReadError):
            action(*arguments)
        try:
            return self.connection.bio_read(1_000_000)
        except SSL.WantReadError:
            return b""

    def take(self) -> None:
        """Reads what the proxy has sent."""
        received = self._case.client.received
        if len(received) > self._read:
            self.connection.bio_write(bytes(received[self._read :]))
        self._read = len(received)

    def handshake(self) -> None:
        """Goes on until the proxy is known."""
        for _ in range(3):
            self.take()
            self._case.client.send(self.step(self.connection.do_handshake))
            self._case.settle()

    def ask(self, path: str, host: str = "quay.test") -> bytes:
        """The answer to a request."""
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._case.client.send(self.step(self.connection.send, request))
        self._case.settle()
        self.take()
        return self.connection.recv(1_000_000)


class AnyChannel:
    """A client's connection, as far as anybody asks."""

    def getPeer(self) -> IPv4Address:
        """The client."""
        return IPv4Address("TCP", "8.8.4.4", 40000)


@cache
def authority() -> CertificateAuthority:
    """Signs the proxy's certificates; one for all tests."""
    return open_authority(Path("connect-authority").absolute())


def _x509(certificate: Any) -> Any:
    return crypto.X509.from_cryptography(certificate)
