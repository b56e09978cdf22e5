"""Tests for regproxy.cache.fill: disks that fail."""

from __future__ import annotations

from regproxy.cache.fill import StoreTrouble
from regproxy.model.digest import Digest
from tests.cache.case import DATA
from tests.cache.filling import FillCase, Reader

SIZE = len(DATA)


class TroubleTests(FillCase):
    """A pull does not break with the cache."""

    def trouble(self) -> StoreTrouble:
        """What the fill ended with."""
        error = self.failureResultOf(self.running, StoreTrouble).value
        assert isinstance(error, StoreTrouble)
        self.nothing_kept()
        return error

    def check(self, error: StoreTrouble, front: int) -> None:
        """Checks that a relay can go on at *front*."""
        self.assertEqual(error.front, front)
        self.assertEqual(error.hasher.hexdigest(), Digest.of(DATA[:front]).hex)

    def fails(self, reader: Reader, data: bytes) -> None:
        """Checks that a reader got *data* and was then told to go elsewhere."""
        self.assertEqual(reader.data, data)
        assert reader.failure is not None
        self.assertTrue(reader.failure.check(StoreTrouble))

    def test_no_part(self) -> None:
        """Where no part can be made nothing is asked of upstream, and a relay begins at 0."""
        self.disk.broken.add("create_part")
        fill = self.start()
        self.failureResultOf(fill.started(), StoreTrouble)
        error = self.trouble()
        self.check(error, 0)
        self.assertIsNone(error.size)
        self.assertEqual(self.source.asked, [])

    def test_first_write(self) -> None:
        """A disk that is full from the start stops the transfer at its next byte."""
        self.disk.broken.add("write")
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA[:100])
        self.work()
        body.send(DATA[100:200])
        self.assertTrue(body.stopped)
        self.work()
        error = self.trouble()
        self.check(error, 0)
        self.assertEqual(error.size, SIZE)
        self.fails(reader, b"")

    def test_later_write(self) -> None:
        """Readers drain what was written and go on from there, with its hash."""
        self.start()
        body = self.source.answer(SIZE)
        reader, behind = self.reader(), self.reader(500)
        body.send(DATA[:100])
        self.settle()
        self.disk.broken.add("write")
        body.send(DATA[100:200])
        self.settle()
        body.send(DATA[200:])
        self.work()
        self.check(self.trouble(), 100)
        self.fails(reader, DATA[:100])
        self.fails(behind, b"")
        self.fails(self.reader(40), DATA[40:100])

    def test_last_write(self) -> None:
        """A disk that is full at the last bytes is found out when they are flushed."""
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA[:-10])
        self.settle()
        self.disk.broken.add("write")
        body.send(DATA[-10:])
        body.end()
        self.work()
        self.check(self.trouble(), SIZE - 10)
        self.fails(reader, DATA[:-10])

    def test_write_of_unknown_size(self) -> None:
        """Without a length the relay does not know it either."""
        self.start()
        body = self.source.answer(None)
        body.send(DATA[:100])
        self.settle()
        self.disk.broken.add("write")
        body.send(DATA[100:])
        body.end()
        self.work()
        error = self.trouble()
        self.check(error, 100)
        self.assertIsNone(error.size)

    def test_write_fails_while_the_hash_runs(self) -> None:
        """The hash that is handed on is complete, whichever thread is behind."""
        size = 5 * 1024 * 1024
        data = bytes(size)
        self.start(Digest.of(data))
        body = self.source.answer(size)
        body.send(data[: 3 * 1024 * 1024])
        self.held_disk.run_all()
        self.assertEqual(self.held_hash.held, 1)
        self.disk.broken.add("write")
        body.send(data[3 * 1024 * 1024 :])
        body.end()
        self.held_disk.run_all()
        self.assertNoResult(self.running)
        self.work()
        error = self.trouble()
        self.assertEqual(error.front, 3 * 1024 * 1024)
        self.assertEqual(error.hasher.hexdigest(), Digest.of(data[: error.front]).hex)

    def test_write_fails_between_transfers(self) -> None:
        """A disk that fails while nothing is transferred ends the next transfer."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:100])
        self.work()
        body.send(DATA[100:200])
        self.disk.broken.add("write")
        body.cut()
        self.settle()
        self.clock.advance(0.5)
        self.assertEqual(self.source.asked, [0, 200])
        body = self.source.answer(SIZE - 200)
        body.send(DATA[200:])
        self.assertTrue(body.stopped)
        self.work()
        self.check(self.trouble(), 100)

    def test_unreadable(self) -> None:
        """What cannot be hashed is worth nothing: a relay begins at 0, whatever was delivered."""
        self.hashing.broken.add("hash_pieces")
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA)
        body.end()
        self.work()
        error = self.trouble()
        self.check(error, 0)
        self.assertEqual(error.size, SIZE)
        self.fails(reader, DATA[:-1])

    def test_commit(self) -> None:
        """A blob that cannot be kept is delivered all the same."""
        self.disk.broken.add("commit")
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA)
        body.end()
        self.work()
        self.successResultOf(self.running)
        self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.nothing_kept()


class DripTests(FillCase):
    """An upstream that sends a byte now and then."""

    def test_drip(self) -> None:
        """A few bytes now and then are silence: the transfer is taken up anew."""
        self.start()
        body = self.source.answer(SIZE)
        for second in range(3):
            body.send(DATA[second : second + 1])
            self.work()
            self.clock.advance(25)
        self.assertTrue(body.stopped)
        self.clock.advance(0.5)
        body = self.source.answer(SIZE - 3)
        body.send(DATA[3:])
        body.end()
        self.settle()
        self.successResultOf(self.running)
