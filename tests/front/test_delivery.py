"""Delivery: ranges, the byte that is held back, and the pace of the client."""

from __future__ import annotations

import os

from regproxy.model.digest import Digest
from regproxy.testing import Fault, Framing, HeldWorker, MemoryAnswer
from tests.front.proxy import ALPINE, DATA, HUB, ProxyCase

SIZE = len(DATA)
MIB = 1024 * 1024


class RangeTests(ProxyCase):
    """Parts of a blob (RFC 9110 section 14)."""

    def assert_part(self, answer: MemoryAnswer, start: int, stop: int) -> None:
        """Asserts that exactly these bytes came, and that the headers say so."""
        self.assert_whole(answer, DATA[start:stop], 206)
        self.assertEqual(answer.header("Content-Range"), f"bytes {start}-{stop - 1}/{SIZE}")
        self.assertEqual(answer.header("Content-Length"), str(stop - start))

    def test_stored(self) -> None:
        """Single, suffix and open-ended ranges of a stored blob."""
        self.fill()
        for header, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=100-70099", 100, 70_100),
            ("bytes=-10", SIZE - 10, SIZE),
            ("bytes=5-", 5, SIZE),
            (f"bytes=7-{SIZE * 9}", 7, SIZE),
        ):
            answer = self.proxy.ask(self.blob, {"Range": header})
            self.assert_part(answer, start, stop)
            self.assertEqual(answer.header("Cache-Status"), "regproxy; hit")
        self.assertEqual(self.proxy.lines[1]["status"], "206")

    def test_cold(self) -> None:
        """A range of a cold blob fills the whole, once."""
        self.assert_part(self.proxy.ask(self.blob, {"Range": "bytes=1000-1999"}), 1000, 2000)
        (asked,) = self.upstream.requests
        self.assertIsNone(asked.header("Range"))
        self.assertEqual(self.proxy.head(self.blob).header("Cache-Status"), "regproxy; hit")

    def test_running(self) -> None:
        """Ranges of a running fill come as far as they are there, and in the end whole."""
        self.upstream.hold(self.path, at=100_000)
        there = self.proxy.ask(self.blob, {"Range": "bytes=10-99"})
        self.assert_part(there, 10, 100)
        half = self.proxy.ask(self.blob, {"Range": "bytes=90000-109999"})
        suffix = self.proxy.ask(self.blob, {"Range": "bytes=-20"})
        self.assertEqual(half.body, DATA[90_000:100_000])
        self.assertEqual((suffix.status, suffix.body), (206, b""))
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_part(half, 90_000, 110_000)
        self.assert_part(suffix, SIZE - 20, SIZE)
        self.assertEqual(self.upstream.count("GET"), 1)

    def test_not_satisfiable(self) -> None:
        """A range behind the end is 416 with the size, stored or running."""
        self.upstream.hold(self.path, at=10)
        running = self.proxy.ask(self.blob, {"Range": f"bytes={SIZE}-"})
        self.upstream.release(self.path)
        self.proxy.settle()
        for answer in (running, self.proxy.ask(self.blob, {"Range": f"bytes={SIZE}-"})):
            self.assert_error(answer, 416, "RANGE_INVALID")
            self.assertEqual(answer.header("Content-Range"), f"bytes */{SIZE}")

    def test_several_ranges(self) -> None:
        """Several ranges get the whole, which every client must accept."""
        self.fill()
        self.assert_whole(self.proxy.ask(self.blob, {"Range": "bytes=0-1,5-6"}))

    def test_if_range(self) -> None:
        """A range holds only for the blob that the client began with."""
        self.fill()
        same = {"Range": "bytes=0-9", "If-Range": f'"{self.digest}"'}
        self.assert_part(self.proxy.ask(self.blob, same), 0, 10)
        for other in ('"other"', f'W/"{self.digest}"', "Sat, 29 Oct 1994 19:43:31 GMT"):
            answer = self.proxy.ask(self.blob, {"Range": "bytes=0-9", "If-Range": other})
            self.assert_whole(answer)

    def test_head(self) -> None:
        """Ranges are for GET alone."""
        self.fill()
        answer = self.proxy.head(self.blob, {"Range": "bytes=0-9"})
        self.assertEqual((answer.status, answer.header("Content-Length")), (200, str(SIZE)))

    def test_far_ahead(self) -> None:
        """A range that a fill will not reach soon is fetched by itself."""
        data = b"a" * (65 * MIB) + b"z" * 100
        digest = self.upstream.add_blob(HUB, ALPINE, data)
        target, path = f"/v2/{ALPINE}/blobs/{digest}", f"/blobs/{digest}"
        self.upstream.hold(path, at=1000)
        self.proxy.ask(target)
        ahead = self.proxy.client().request("GET", target, {"Range": f"bytes={65 * MIB}-"})
        self.upstream.release(path)
        self.clock.advance(0)
        self.assert_whole(ahead, b"z" * 100, 206)
        self.assertEqual(
            ahead.header("Content-Range"), f"bytes {65 * MIB}-{len(data) - 1}/{len(data)}"
        )
        asked = self.upstream.find("GET", path)
        self.assertEqual(
            [r.header("Range") for r in asked], [None, f"bytes={65 * MIB}-{len(data) - 2}"]
        )
        self.assertEqual(self.proxy.lines[0]["cache"], "RELAY")


class HeldBackTests(ProxyCase):
    """No answer is complete before the digest is right (the last byte waits for the hash)."""

    def setUp(self) -> None:
        """Takes the hash into the test's hands."""
        super().setUp()
        self.hashing = HeldWorker()
        self.proxy = self.make_proxy(hashing=self.hashing)
        self.upstream, self.clock = self.proxy.upstream, self.proxy.clock
        self.upstream.add_blob(HUB, ALPINE, DATA)

    def ask_all(self) -> list[tuple[MemoryAnswer, int]]:
        """Answers that have the last byte in them, and where they start."""
        return [
            (self.proxy.ask(self.blob), 0),
            (self.proxy.ask(self.blob), 0),
            (self.proxy.ask(self.blob, {"Range": "bytes=-5"}), SIZE - 5),
            (self.proxy.ask(self.blob, {"Range": f"bytes={SIZE - 1}-"}), SIZE - 1),
        ]

    def test_last_byte_waits(self) -> None:
        """Everything but the last byte is sent before the verification, and it after."""
        answers = self.ask_all()
        inner = self.proxy.ask(self.blob, {"Range": f"bytes=0-{SIZE - 2}"})
        self.assert_whole(inner, DATA[:-1], 206)
        for answer, start in answers:
            self.assertEqual(len(answer.body), SIZE - 1 - start)
        self.hashing.run_all()
        self.proxy.settle()
        for answer, start in answers:
            self.assert_whole(answer, DATA[start:], 206 if start else 200)

    def test_wrong_bytes(self) -> None:
        """Wrong bytes never become a whole answer, and nothing of them is kept."""
        self.upstream.script(Fault(flip=SIZE // 2))
        answers = self.ask_all()
        self.hashing.run_all()
        self.proxy.settle()
        for answer, _ in answers:
            self.assert_cut(answer)
        self.assertEqual(self.proxy.lines[0]["status"], "200")
        self.assertIn("docker.io/library/alpine: sent", self.proxy.lines[0]["note"])
        self.assertFalse(self.proxy.store.holds(self.digest))
        again = self.proxy.ask(self.blob)
        self.hashing.run_all()
        self.proxy.settle()
        self.assert_whole(again)

    def test_wrong_bytes_twice(self) -> None:
        """After the second time the source is left alone for a minute."""
        self.upstream.script(Fault(flip=0), times=2)
        for _ in range(2):
            self.proxy.ask(self.blob)
            self.hashing.run_all()
            self.proxy.settle()
        self.assert_error(self.proxy.ask(self.blob), 502, "UNKNOWN")
        self.clock.advance(61)
        answer = self.proxy.ask(self.blob)
        self.hashing.run_all()
        self.proxy.settle()
        self.assert_whole(answer)

    def test_unknown_size(self) -> None:
        """Without a known length it is the end of the chunks that waits."""
        for fault in (Fault(framing=Framing.CHUNKED), Fault(framing=Framing.CHUNKED, flip=7)):
            self.upstream.script(fault)
            answer = self.proxy.ask(self.blob)
            self.assertEqual((len(answer.body), answer.complete), (SIZE, False))
            self.hashing.run_all()
            self.proxy.settle()
            if fault.flip is None:
                self.assert_whole(answer)
                os.unlink(self.proxy.store.path(self.digest))
            else:
                self.assert_cut(answer)

    def test_unknown_size_http_1_0(self) -> None:
        """A client that knows the end by the close alone is cut by a reset."""
        self.upstream.script(Fault(framing=Framing.CHUNKED, flip=7))
        client = self.proxy.client()
        answer = client.expect("GET")
        client.send(f"GET {self.blob} HTTP/1.0\r\n\r\n".encode())
        self.proxy.settle()
        self.hashing.run_all()
        self.proxy.settle()
        self.assert_cut(answer)

    def test_more_than_announced(self) -> None:
        """One byte too many is as wrong as any other, and is itself never sent."""
        data = DATA + b"!"
        self.upstream.script(Fault(body=data))
        answer = self.proxy.ask(self.blob)
        self.hashing.run_all()
        self.proxy.settle()
        self.assert_cut(answer)
        self.assertEqual(answer.body, DATA)
        self.assertNotEqual(Digest.of(data), self.digest)


class PaceTests(ProxyCase):
    """A client reads as slowly as it likes, at nobody else's cost."""

    def setUp(self) -> None:
        """Puts a blob upstream that is larger than all buffers."""
        super().setUp()
        self.data = os.urandom(8 * MIB)
        self.digest = self.upstream.add_blob(HUB, ALPINE, self.data)
        self.blob = f"/v2/{ALPINE}/blobs/{self.digest}"

    def test_pauses(self) -> None:
        """What is buffered for a client that does not read stays below a few pieces."""
        for word in ("MISS", "HIT"):
            client = self.proxy.client(reading=False)
            answer = client.request("GET", self.blob)
            self.clock.pump([0.005] * 200)
            self.assertEqual(len(self.proxy.fills), 0)
            self.assertLess(_buffered(client.transport), MIB)
            client.read(3 * MIB)
            self.proxy.settle()
            self.assertLess(_buffered(client.transport), MIB)
            client.reading = True
            self.proxy.settle()
            self.assert_whole(answer, self.data)
            self.assertEqual(self.proxy.lines[-1]["cache"], word)

    def test_nobody_else_is_slowed(self) -> None:
        """A joiner that reads has everything while the first client has nothing."""
        slow = self.proxy.client(reading=False)
        slow.request("GET", self.blob)
        answer = self.proxy.ask(self.blob)
        self.clock.pump([0.005] * 50)
        self.assert_whole(answer, self.data)
        self.assertEqual(slow.received, 0)
        slow.drop()

    def test_stalled_client(self) -> None:
        """A client that takes nothing for the write-stall deadline is hung up on."""
        client = self.proxy.client(reading=False)
        answer = client.request("GET", self.blob)
        self.clock.pump([1.0] * 59)
        self.assertFalse(client.disconnected)
        self.clock.pump([1.0] * 3)
        self.assert_cut(answer)
        self.assertEqual(self.proxy.lines[0]["note"], "took nothing for 60 s")
        self.assertTrue(self.proxy.store.holds(self.digest))

    def test_slow_client(self) -> None:
        """A client that keeps taking is served for as long as it takes."""
        client = self.proxy.client(reading=False)
        answer = client.request("GET", self.blob)
        for _ in range(12):
            client.read(MIB)
            self.clock.pump([10.0] * 5)
        client.reading = True
        self.proxy.settle()
        self.assert_whole(answer, self.data)

    def test_file_that_lost_its_end(self) -> None:
        """A stored file that shrinks under a delivery cuts it."""
        self.proxy.ask(self.blob)
        self.clock.pump([0.005] * 50)
        client = self.proxy.client(reading=False)
        answer = client.request("GET", self.blob)
        os.truncate(self.proxy.store.path(self.digest), 4 * MIB)
        client.reading = True
        self.proxy.settle()
        self.assert_cut(answer)


def _buffered(transport: object) -> int:
    """Bytes that wait in a transport."""
    waiting = getattr(transport, "_tempDataLen", 0)
    return int(waiting) + len(getattr(transport, "dataBuffer", b""))
