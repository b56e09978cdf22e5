"""Tunnels over sockets on loopback: what a fake transport cannot show."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.certificates import LeafCertificates
from regproxy.front.connect import ConnectProxy, TunnelPolicy
from regproxy.front.connections import Connections
from regproxy.front.site import LimitedSite
from tests.front.connecting import authority
from tests.front.proxy import LIMITS
from tests.front.tunnelling import Entries

reactor: Any = global_reactor

T = TypeVar("T")

DATA = bytes(range(256)) * 4096 * 8
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class SocketsCase(TestCase):
    """A proxy on loopback that may tunnel to loopback, and a target that a thread serves.

    Attributes:
        family: Of the target's address.
        target_host: This address.
    """

    timeout = 30
    family = socket.AF_INET
    target_host = "127.0.0.1"

    def setUp(self) -> None:
        """Listens."""
        self.log = Entries()
        access_log = cast(AccessLog, self.log)
        self.connections = Connections(10)
        site = LimitedSite(Resource(), LIMITS, self.connections, access_log, reactor)
        site.connector = ConnectProxy(
            serves=lambda _: False,
            leaves=cast(Any, None),
            site=site,
            policy=TunnelPolicy.of(("127.0.0.0/8:*", "[::1]:*")),
            reactor=reactor,
            connect_timeout=10,
            idle=20,
            access_log=access_log,
            connections=self.connections,
        )
        port = reactor.listenTCP(0, self.factory(site), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.proxy: int = port.getHost().port
        self.server = socket.create_server((self.target_host, 0), family=self.family)
        self.server.settimeout(20)
        self.addCleanup(self.server.close)

    def factory(self, site: LimitedSite) -> IProtocolFactory:
        """What listens."""
        return site

    def connect_to_proxy(self) -> socket.socket:
        """A client's connection. Blocks."""
        return socket.create_connection(("127.0.0.1", self.proxy), timeout=20)

    def connect(self) -> socket.socket:
        """A client's connection through a tunnel to the target. Blocks."""
        client = self.connect_to_proxy()
        host = f"[{self.target_host}]" if ":" in self.target_host else self.target_host
        target = f"{host}:{self.server.getsockname()[1]}"
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while len(answer) < len(_ESTABLISHED):
            answer += client.recv(len(_ESTABLISHED) - len(answer)) or b"closed"
        assert answer == _ESTABLISHED, answer
        return client

    async def run_both(
        self, client: Callable[[socket.socket], T], target: Callable[[socket.socket], object]
    ) -> tuple[T, Entry]:
        """What the client's side returns, and the line of the log."""

        def serve() -> None:
            with self.server.accept()[0] as connection:
                connection.settimeout(20)
                target(connection)

        def ask() -> T:
            with self.connect() as connection:
                return client(connection)

        served: Deferred[None] = deferToThread(serve)
        result = await deferToThread(ask)
        await served
        while not self.log:
            await deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(len(self.connections), 0)
        (entry,) = self.log
        return result, entry


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end. Blocks."""
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


class SocketsTests(SocketsCase):
    """Over IPv4."""

    async def test_half_close(self) -> None:
        """The target sees the end of the question, and the client the whole answer after it."""

        def client(connection: socket.socket) -> bytes:
            connection.sendall(DATA)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

        def target(connection: socket.socket) -> None:
            connection.sendall(read_all(connection)[::-1])

        answer, entry = await self.run_both(client, target)
        self.assertTrue(answer == DATA[::-1], f"{len(answer)} bytes")
        self.assertEqual((entry.received, entry.sent), (len(DATA), len(DATA)))
        self.assertEqual(entry.note, "")

    async def test_slow_reader(self) -> None:
        """A client that does not read for a while stops the target, and loses nothing."""
        sent = 0

        def target(connection: socket.socket) -> None:
            nonlocal sent
            for _ in range(8):
                connection.sendall(DATA)
                sent += len(DATA)

        def client(connection: socket.socket) -> tuple[int, int]:
            time.sleep(0.5)
            while_asleep = sent
            return while_asleep, len(read_all(connection))

        (while_asleep, received), _ = await self.run_both(client, target)
        self.assertLess(while_asleep, 6 * len(DATA))
        self.assertEqual(received, 8 * len(DATA))

    async def test_target_ends_first(self) -> None:
        """The client sees the end, and what it still sends arrives."""
        late: list[bytes] = []

        def client(connection: socket.socket) -> bytes:
            answer = read_all(connection)
            connection.sendall(b"thanks")
            return answer

        def target(connection: socket.socket) -> None:
            connection.sendall(b"banner")
            connection.shutdown(socket.SHUT_WR)
            late.append(read_all(connection))

        answer, entry = await self.run_both(client, target)
        self.assertEqual((answer, late), (b"banner", [b"thanks"]))
        self.assertEqual(entry.note, "")

    async def test_reset(self) -> None:
        """A target that resets its connection ends the client's."""

        def client(connection: socket.socket) -> bytes:
            connection.sendall(b"x")
            return read_all(connection)

        def target(connection: socket.socket) -> None:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        answer, entry = await self.run_both(client, target)
        self.assertEqual((answer, entry.note), (b"", "target reset"))


class SocketsOverSixTests(SocketsCase):
    """Over IPv6."""

    family = socket.AF_INET6
    target_host = "::1"

    async def test_passes(self) -> None:
        """An address in brackets is a target as well."""
        answer, entry = await self.run_both(read_all, lambda target: target.sendall(b"six"))
        self.assertEqual(answer, b"six")
        self.assertTrue(entry.reference.startswith("[::1]:"))


class SocketsInTlsTests(SocketsCase):
    """A client that speaks TLS with the proxy, and has no half-close."""

    def factory(self, site: LimitedSite) -> IProtocolFactory:
        """See SocketsCase."""
        leaves = LeafCertificates(authority, lambda _: False, reactor)
        return TLSMemoryBIOFactory(leaves.creator("proxy.test"), False, site, reactor)

    def connect_to_proxy(self) -> socket.socket:
        """See SocketsCase."""
        context = ssl.create_default_context(cadata=authority().pem.decode())
        return context.wrap_socket(super().connect_to_proxy(), server_hostname="proxy.test")

    async def test_both_directions(self) -> None:
        """Everything arrives, and the end of the target is the end of all."""
        got: list[int] = []

        def client(connection: socket.socket) -> bytes:
            connection.sendall(DATA)
            return read_all(connection)

        def target(connection: socket.socket) -> None:
            count = 0
            while count < len(DATA):
                count += len(connection.recv(1 << 20))
            got.append(count)
            connection.sendall(DATA)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)

        answer, entry = await self.run_both(client, target)
        self.assertTrue(answer == DATA, f"{len(answer)} bytes")
        self.assertEqual((got, entry.sent, entry.note), ([len(DATA)], len(DATA), ""))

    async def test_slow_reader(self) -> None:
        """A client that wakes up late gets all that a target sent before it left."""

        def client(connection: socket.socket) -> int:
            time.sleep(0.3)
            return len(read_all(connection))

        received, entry = await self.run_both(client, lambda target: target.sendall(DATA * 3))
        self.assertEqual((received, entry.note), (3 * len(DATA), ""))

    async def test_target_gone_in_full_flow(self) -> None:
        """A client whose bytes nobody takes any more is hung up on, long before it counts as idle.

        It is not read while the target's buffers are full, and TLS ends by reading.
        """

        def client(connection: socket.socket) -> str:
            try:
                for _ in range(8):
                    connection.sendall(DATA)
            except OSError as error:
                return type(error).__name__
            return "sent"

        begun = time.monotonic()
        outcome, entry = await self.run_both(client, lambda _: time.sleep(0.5))
        self.assertLess(time.monotonic() - begun, 10)
        self.assertEqual(entry.note, "target reset", outcome)
