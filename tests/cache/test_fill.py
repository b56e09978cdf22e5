"""Tests for regproxy.cache.fill: bytes that arrive, right ones and wrong ones."""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from regproxy.cache.fill import DigestMismatch
from regproxy.model.digest import Digest
from regproxy.model.errors import blob_unknown, upstream_failed
from tests.cache.case import DATA, DIGEST, ScriptedSource
from tests.cache.filling import FillCase

SIZE = len(DATA)
WRONG = DATA[:-1] + b"!"


class WholeTests(FillCase):
    """Transfers that come to their end."""

    def test_stored(self) -> None:
        """The bytes are in the store, the part is gone, the place at the registry is free."""
        fill = self.start()
        self.assertEqual(self.source.held, 1)
        body = self.source.answer(SIZE)
        body.send(DATA)
        body.end()
        self.assertEqual(self.source.held, 0)
        self.work()
        self.successResultOf(self.running)
        self.assertTrue(fill.verified)
        self.assertEqual(self.stored(DIGEST), DATA)
        self.assertEqual(self.parts(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_readers(self) -> None:
        """Whoever reads gets the bytes as they come, from wherever they begin."""
        self.start()
        body = self.source.answer(SIZE)
        readers = [self.reader(start) for start in (0, 100, SIZE - 1)]
        for start in range(0, SIZE, 1000):
            body.send(DATA[start : start + 1000])
            self.settle()
            self.assertEqual(readers[0].data, DATA[: min(start + 1000, SIZE - 1)])
        readers.append(self.reader(50))
        body.end()
        self.work()
        for reader in readers:
            self.assertEqual((reader.data, reader.ended), (DATA[reader.start :], True))

    def test_last_byte_waits_for_the_hash(self) -> None:
        """The last byte is held back until the hash is right, and not for the disk's sake."""
        self.start()
        body = self.source.answer(SIZE)
        reader, ranged = self.reader(), self.reader(SIZE - 1)
        body.send(DATA)
        body.end()
        self.held_disk.run_all()
        self.assertEqual((reader.data, ranged.data), (DATA[:-1], b""))
        self.assertEqual(self.fill.available(SIZE - 1), 0)
        self.held_hash.run_all()
        self.assertTrue(reader.ended)
        self.assertEqual(ranged.data, DATA[-1:])
        self.assertNoResult(self.running)
        self.assertIsNone(self.stored(DIGEST))
        self.held_disk.run_all()
        self.successResultOf(self.running)

    def test_unknown_size(self) -> None:
        """Without a length every byte is there at once, and the end when the hash is right."""
        self.start()
        body = self.source.answer(None)
        self.assertIsNone(self.fill.size)
        reader = self.reader()
        body.send(DATA)
        self.work()
        self.assertEqual((reader.data, reader.ended), (DATA, False))
        body.end()
        self.held_disk.run_all()
        self.assertFalse(reader.ended)
        self.work()
        self.assertTrue(reader.ended)
        self.assertEqual(self.fill.size, SIZE)
        self.assertEqual(self.stored(DIGEST), DATA)

    def test_tiny(self) -> None:
        """A blob of no byte and one of a single byte are blobs, of known size or not."""
        for data in (b"", b"x"):
            for length in (len(data), None):
                digest = Digest.of(data)
                self.start(digest)
                body = self.source.answer(length)
                reader = self.reader()
                self.assertFalse(reader.ended)
                if data:
                    body.send(data)
                body.end()
                self.work()
                self.successResultOf(self.running)
                self.assertEqual((reader.data, reader.ended), (data, True))
                self.assertEqual(self.stored(digest), data)
                self.store.set_aside(digest)

    def test_sha512(self) -> None:
        """The hash is that of the digest's algorithm."""
        digest = Digest.of(DATA, "sha512")
        self.start(digest)
        body = self.source.answer(SIZE)
        body.send(DATA)
        body.end()
        self.work()
        self.assertEqual(self.stored(digest), DATA)

    def test_everyone_leaves(self) -> None:
        """A fill goes on when all clients have left."""
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA[:100])
        self.settle()
        reader.leave()
        body.send(DATA[100:])
        body.end()
        self.work()
        self.assertEqual(self.stored(DIGEST), DATA)

    def test_leaving_concerns_nobody_else(self) -> None:
        """Waits end by themselves: for the start, for bytes."""
        fill = self.start()
        leaving, staying = fill.started(), fill.started()
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        body = self.source.answer(SIZE)
        self.successResultOf(staying)
        self.successResultOf(fill.started())
        left, stays = fill.wait(0), fill.wait(0)
        left.cancel()
        self.failureResultOf(left, CancelledError)
        body.send(DATA)
        self.work()
        self.successResultOf(stays)
        body.end()
        self.work()

    def test_not_started(self) -> None:
        """Nothing can be read before upstream has answered."""
        fill = self.start()
        waiting = fill.started()
        self.assertNoResult(waiting)
        self.assertIsNone(fill.size)
        self.assertEqual(fill.available(0), 0)
        self.source.refuse(blob_unknown("gone"))
        self.work()
        self.error(waiting, 404)
        self.error(self.running, 404)

    def test_slow_disk(self) -> None:
        """Upstream is paused for a disk that is behind, also the next transfer after a cut."""
        size = 20 * 1024 * 1024
        self.start(Digest.of(bytes(size)))
        body = self.source.answer(size)
        body.send(bytes(5 * 1024 * 1024))
        self.assertTrue(body.paused)
        body.cut()
        self.clock.advance(0.5)
        body = self.source.answer(size)
        body.send(b"\0")
        self.assertTrue(body.paused)
        self.work()
        self.assertFalse(body.paused)
        body.send(bytes(size - self.source.asked[-1] - 1))
        body.end()
        self.work()
        self.successResultOf(self.running)


class MismatchTests(FillCase):
    """Upstreams that send something else."""

    def test_wrong_bytes(self) -> None:
        """Wrong bytes never make a whole answer, and nothing of them is kept."""
        self.start()
        body = self.source.answer(SIZE)
        readers = [self.reader(), self.reader(SIZE - 1)]
        body.send(WRONG)
        body.end()
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        for reader in readers:
            self.assertEqual(reader.data, WRONG[reader.start : -1])
            assert reader.failure is not None
            self.assertTrue(reader.failure.check(DigestMismatch))
        self.nothing_kept()

    def test_wrong_bytes_of_unknown_length(self) -> None:
        """Without a length it is the end that is never told."""
        self.start()
        body = self.source.answer(None)
        reader = self.reader()
        body.send(WRONG)
        body.end()
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        self.assertFalse(reader.ended)
        self.assertIsNotNone(reader.failure)
        self.assertEqual(self.fill.available(SIZE - 1), 0)
        self.nothing_kept()

    def test_too_many(self) -> None:
        """More bytes than announced end the transfer at once."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA + b"!")
        self.assertTrue(body.stopped)
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        self.nothing_kept()

    def test_nothing_announced(self) -> None:
        """An empty answer for another digest than that of nothing is told before it starts."""
        for algorithm in ("sha256", "sha512"):
            waiting = self.start(Digest.of(DATA, algorithm)).started()
            body = self.source.answer(0)
            body.end()
            self.work()
            self.failureResultOf(waiting, DigestMismatch)
            self.failureResultOf(self.running, DigestMismatch)
            self.nothing_kept()

    def test_announced_too_few(self) -> None:
        """A length that is too small is what the blob is judged by."""
        self.start()
        body = self.source.answer(SIZE - 10)
        body.send(DATA[:-10])
        body.end()
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        self.nothing_kept()

    def test_resumed_with_other_bytes(self) -> None:
        """A second source's bytes are judged together with the first one's."""
        second = ScriptedSource(self.clock, "other.test/team/app")
        self.start().add_source(second)
        body = self.source.answer(SIZE)
        body.send(DATA[:100])
        body.cut()
        self.clock.advance(0.5)
        self.source.refuse(upstream_failed("down"))
        body = second.answer(SIZE - 100)
        body.send(WRONG[100:])
        body.end()
        self.work()
        error = self.failureResultOf(self.running, DigestMismatch).value
        for name in (self.source.name, second.name, str(Digest.of(WRONG))):
            self.assertIn(name, str(error))
        self.nothing_kept()

    def test_late_reader(self) -> None:
        """Who asks after the failure gets what is there and then the reason."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(WRONG)
        body.end()
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        reader = self.reader()
        self.assertEqual(reader.data, WRONG[:-1])
        assert reader.failure is not None
        self.assertTrue(reader.failure.check(DigestMismatch))
