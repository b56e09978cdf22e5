"""Blobs sent from the file to the socket: what holds for every delivery holds for these."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regproxy.front.direct import DirectSocket
from regproxy.testing import Fault, HeldWorker
from tests.front.proxy import ALPINE, HUB, ProxyCase

MIB = 1024 * 1024
DATA = os.urandom(8 * MIB + 17)


class DirectTests(TestCase, ProxyCase):
    """Clients on real sockets of a proxy whose upstream is a fake."""

    def setUp(self) -> None:
        """Listens."""
        ProxyCase.setUp(self)
        self.hashing = HeldWorker()
        self.proxy = self.make_proxy(hashing=self.hashing, descriptors=reactor)
        self.upstream, self.clock = self.proxy.upstream, self.proxy.clock
        self.digest = self.upstream.add_blob(HUB, ALPINE, DATA)
        self.blob = f"/v2/{ALPINE}/blobs/{self.digest}"
        site: Any = self.proxy.site
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.number = port.getHost().port
        self.addCleanup(self.leave)
        self.addCleanup(port.stopListening)
        self.direct = 0
        send = DirectSocket.send

        def counting(*arguments: Any) -> int | None:
            self.direct += 1
            return send(*arguments)

        self.patch(DirectSocket, "send", counting)

    async def leave(self) -> None:
        """Lets the connections end."""
        self.proxy.site.connections.abort_all()
        await deferLater(reactor, 0)

    def get(self, head: str = "", then: str = "") -> Deferred[bytes]:
        """All that is answered to a request, or to two."""
        lines = f"GET {self.blob} HTTP/1.1\r\nHost: p\r\n{head}\r\n"
        if then:
            lines += f"GET {then} HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n"

        def blocking() -> bytes:
            with socket.create_connection(("127.0.0.1", self.number), timeout=30) as connection:
                connection.sendall(lines.encode())
                answer = b""
                try:
                    while piece := connection.recv(MIB):
                        answer += piece
                except ConnectionResetError:
                    answer += b"RESET"
                return answer

        return deferToThread(blocking)

    async def settle(self, *waiting: Deferred[bytes]) -> list[bytes]:
        """Turns the fake clock while the real one runs, until these are there."""
        results = DeferredList(list(waiting), consumeErrors=True)
        while not results.called:
            self.clock.advance(0.005)
            self.hashing.run_all()
            await deferLater(reactor, 0.002)
        return [result for _, result in await results]

    def assert_body(self, answer: bytes, body: bytes) -> None:
        """Asserts the body."""
        self.assertTrue(answer.partition(b"\r\n\r\n")[2] == body, answer[:300])

    async def fill(self) -> None:  # type: ignore[override]
        """Has the blob stored."""
        (answer,) = await self.settle(self.get("Connection: close\r\n"))
        self.assert_body(answer, DATA)

    async def test_cold_and_warm(self) -> None:
        """A miss, its joiner and a hit get every byte, most of them straight from the file."""
        answers = await self.settle(*[self.get("Connection: close\r\n") for _ in range(3)])
        for answer in answers:
            self.assert_body(answer, DATA)
        self.direct = 0
        await self.fill()
        self.assertGreater(self.direct, 0)
        self.assertEqual(self.upstream.count("GET"), 1)

    async def test_range(self) -> None:
        """Ranges end where they should."""
        await self.fill()
        (answer,) = await self.settle(
            self.get(f"Connection: close\r\nRange: bytes=1000-{6 * MIB}\r\n")
        )
        self.assert_body(answer, DATA[1000 : 6 * MIB + 1])

    async def test_next_request(self) -> None:
        """The transport goes on where the file ended: answers never mix."""
        await self.fill()
        (answer,) = await self.settle(self.get(then="/v2/"))
        body = answer.partition(b"\r\n\r\n")[2]
        self.assertTrue(body[: len(DATA)] == DATA)
        self.assertTrue(body[len(DATA) :].startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(body.endswith(b"\r\n\r\n{}"))

    async def test_wrong_bytes(self) -> None:
        """The last byte is held back here too, and the connection is reset."""
        self.upstream.script(Fault(flip=4 * MIB))
        (answer,) = await self.settle(self.get("Connection: close\r\n"))
        self.assertLess(len(answer.partition(b"\r\n\r\n")[2]), len(DATA) + len(b"RESET"))
        self.assertTrue(answer.endswith(b"RESET"))
        self.assertFalse(self.proxy.store.holds(self.digest))

    async def test_client_leaves(self) -> None:
        """A client that leaves in the middle leaves no descriptor behind."""
        await self.fill()
        self.proxy.site.connections.abort_all()
        await deferLater(reactor, 0.01)
        before = len(os.listdir("/proc/self/fd"))

        def blocking() -> bytes:
            with socket.create_connection(("127.0.0.1", self.number), timeout=30) as connection:
                connection.sendall(f"GET {self.blob} HTTP/1.1\r\nHost: p\r\n\r\n".encode())
                return connection.recv(1000)

        await self.settle(deferToThread(blocking))
        while len(self.proxy.site.connections):
            await deferLater(reactor, 0.005)
        await deferLater(reactor, 0.01)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.proxy.lines[-1]["note"], "client left")

    async def test_stalled_client(self) -> None:
        """The write-stall deadline holds, by what the client's host has acknowledged."""
        await self.fill()
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        connection.connect(("127.0.0.1", self.number))
        connection.sendall(f"GET {self.blob} HTTP/1.1\r\nHost: p\r\n\r\n".encode())
        await deferLater(reactor, 0.1)
        for _ in range(3):
            self.clock.advance(59)
            connection.recv(64 * 1024)
            await deferLater(reactor, 0.05)
        self.assertEqual(self.proxy.site.connections.active, 1)
        for _ in range(4):
            self.clock.advance(60)
            await deferLater(reactor, 0.05)
        self.assertEqual(self.proxy.site.connections.active, 0)
        self.assertEqual(self.proxy.lines[-1]["note"], "took nothing for 60 s")
