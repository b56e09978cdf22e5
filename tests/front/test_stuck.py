"""Tests for what regproxy.front does with clients that send, and do not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.front.delivery import Deliveries, Delivery
from regproxy.front.stall import ClientGone
from regproxy.model.digest import Digest
from regproxy.testing import ImmediateWorker
from tests.front.proxy import LIMITS, ProxyCase


class StuckTests(ProxyCase):
    """Clients that send, and do not read."""

    REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n"
    COUNT = 1500

    def setUp(self) -> None:
        """A client that has asked for more than its buffers hold."""
        super().setUp()
        self.stuck = self.proxy.client(reading=False)
        self.answers = [self.stuck.expect("GET") for _ in range(self.COUNT)]
        self.stuck.send(self.REQUEST * self.COUNT)
        self.proxy.settle()

    def test_answers_wait(self) -> None:
        """Answers are made as they can be sent, and all of them come in the end."""
        self.assertLess(len(self.proxy.lines), self.COUNT)
        self.stuck.reading = True
        for _ in range(20):
            self.stuck.pump()
            self.proxy.settle()
        self.assertEqual({(a.status, a.complete) for a in self.answers}, {(200, True)})
        self.assertEqual(len(self.proxy.lines), self.COUNT)

    def test_blob_behind(self) -> None:
        """A blob behind them begins when there is room, and stops when there is none."""
        self.stuck.drop()
        self.fill()
        client = self.proxy.client(reading=False)
        answers = [client.expect("GET") for _ in range(self.COUNT)]
        blob = client.expect("GET")
        client.send(
            self.REQUEST * self.COUNT + f"GET {self.blob} HTTP/1.1\r\nHost: p\r\n\r\n".encode()
        )
        self.proxy.settle()
        client.reading = True
        for _ in range(20):
            client.pump()
            self.proxy.settle()
        self.assertTrue(all(answer.complete for answer in answers))
        self.assert_whole(blob)

    def test_flood(self) -> None:
        """What is sent behind a request that has no answer yet is bounded."""
        for _ in range(10):
            self.stuck.send(b"x" * 64 * 1024)
        self.assertTrue(self.stuck.aborted)

    def test_stall(self) -> None:
        """A client that takes nothing for the write-stall deadline is hung up on."""
        self.clock.advance(LIMITS.write_stall - 1)
        self.assertFalse(self.stuck.disconnected)
        self.clock.advance(2)
        self.assertTrue(self.stuck.aborted)

    def test_last_answer(self) -> None:
        """So is one that does not read the last answer of its connection."""
        client = self.proxy.client(reading=False)
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")
        self.proxy.settle()
        self.assertFalse(client.disconnected)
        self.clock.advance(LIMITS.write_stall + 1)
        self.assertTrue(client.aborted)


class StarTests(ProxyCase):
    """A request for the server as a whole."""

    def test_options(self) -> None:
        """It is refused like every other method, with a line in the log."""
        answer = self.proxy.client().request("OPTIONS", "*")
        self.assert_error(answer, 405, "UNSUPPORTED")
        (line,) = self.proxy.lines
        self.assertEqual(line["reference"], "*")


class Sink:
    """A request on a transport that takes everything and never asks for a pause.

    Attributes:
        disconnecting: See ITransport's implementations.
        taken: Bytes that were written.
    """

    def __init__(self) -> None:
        self.disconnecting = False
        self.taken = 0

    @property
    def transport(self) -> Any:
        """Itself."""
        return self

    def write(self, data: bytes) -> None:
        """Takes it."""
        self.taken += len(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Takes a producer."""

    def unregisterProducer(self) -> None:
        """Loses it."""


class BottomlessTests(SynchronousTestCase):
    """A transport that never pauses its producer."""

    SIZE = 32 * 1024 * 1024

    def setUp(self) -> None:
        """A large blob and somebody who wants it."""
        store = Store(Path(self.mktemp()))
        store.prepare()
        data = bytes(self.SIZE)
        digest = Digest.of(data)
        store.put(digest, data)
        blob = store.open(digest)
        assert blob is not None
        self.addCleanup(blob.close)
        self.clock, self.sink = Clock(), Sink()
        deliveries = Deliveries(FileReader(ImmediateWorker()), self.clock, 60.0)
        self.delivery = Delivery(blob, 0, self.SIZE, self.sink, deliveries)

    def test_slices(self) -> None:
        """It is fed in slices, between which the reactor looks around."""
        done = self.delivery.deliver()
        self.assertNoResult(done)
        self.assertLess(self.sink.taken, self.SIZE / 4)
        self.clock.pump([0.0] * 50)
        self.successResultOf(done)
        self.assertEqual(self.sink.taken, self.SIZE)

    def test_closing(self) -> None:
        """One that throws everything away because it is closing ends the delivery."""
        done = self.delivery.deliver()
        self.sink.disconnecting = True
        self.clock.advance(0)
        self.failureResultOf(done, ClientGone)
        self.assertLess(self.sink.taken, self.SIZE / 2)
