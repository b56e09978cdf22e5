"""Tests for regproxy.cache.writing."""

from __future__ import annotations

from collections.abc import Sequence

from regproxy.cache.writing import PartWriter
from regproxy.testing import HeldWorker
from tests.cache.case import DATA, FaultyWorker, StoreCase, bytes_of

MIB = 1024 * 1024


class PartWriterTests(StoreCase):
    """Bytes on their way to the disk."""

    def setUp(self) -> None:
        """A part and a disk that writes when it is told to."""
        super().setUp()
        self.target = self.part()
        self.held = HeldWorker()
        self.worker = FaultyWorker(self.held)
        self.events: list[str] = []
        self.fronts: list[int] = []
        self.batches: list[Sequence[bytes]] = []
        self.writer = PartWriter(
            self.target,
            self.clock,
            self.worker,
            written=self.batches.append,
            grown=lambda: self.fronts.append(self.writer.front),
            pause=lambda: self.events.append("pause"),
            resume=lambda: self.events.append("resume"),
        )

    def test_first_bytes(self) -> None:
        """The first bytes are written at once: a client is waiting for them."""
        self.writer.write(DATA[:10])
        self.assertEqual((self.writer.accepted, self.writer.front), (10, 0))
        self.held.run_next()
        self.assertEqual((self.writer.accepted, self.writer.front), (10, 10))
        self.assertEqual(self.fronts, [10])
        self.assertEqual(self.batches, [[DATA[:10]]])
        self.assertEqual(bytes_of(self.target.file, 20), DATA[:10])

    def test_small_batches_wait_for_company(self) -> None:
        """Later bytes wait a few milliseconds, and no longer."""
        self.writer.write(b"a")
        self.held.run_next()
        self.writer.write(b"b")
        self.writer.write(b"c")
        self.assertEqual(self.held.held, 0)
        self.clock.advance(0.005)
        self.assertEqual(self.held.run_all(), 1)
        self.assertEqual(self.writer.front, 3)
        self.assertEqual(bytes_of(self.target.file, 9), b"abc")

    def test_company_while_a_write_runs(self) -> None:
        """What comes while a write runs waits after it, in its turn."""
        self.writer.write(b"a")
        self.writer.write(b"b")
        self.held.run_next()
        self.assertEqual(self.held.held, 0)
        self.clock.advance(0.005)
        self.held.run_all()
        self.assertEqual(bytes_of(self.target.file, 9), b"ab")

    def test_large_batches(self) -> None:
        """A mebibyte is worth a write at once."""
        self.writer.write(b"a")
        self.held.run_next()
        self.writer.write(b"b")
        self.writer.write(bytes(MIB))
        self.held.run_all()
        self.assertEqual(self.writer.front, MIB + 2)
        self.clock.advance(1)
        self.assertEqual(self.held.held, 0)

    def test_back_pressure(self) -> None:
        """A disk that is behind pauses upstream once, and lets it go on when it has caught up."""
        for _ in range(6):
            self.writer.write(bytes(MIB))
        self.assertEqual(self.events, ["pause"])
        self.held.run_next()
        self.assertEqual(self.events, ["pause"])
        self.held.run_all()
        self.assertEqual(self.events, ["pause", "resume"])
        self.assertEqual(self.writer.front, 6 * MIB)

    def test_flush(self) -> None:
        """A flush waits for the running write and for what is left, without delay."""
        self.writer.write(b"a")
        self.writer.write(b"b")
        done = self.writer.flush()
        self.held.run_next()
        self.assertNoResult(done)
        self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(self.writer.front, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush_of_what_waits(self) -> None:
        """A flush does not wait for company."""
        self.writer.write(b"a")
        self.held.run_all()
        self.writer.write(b"b")
        done = self.writer.flush()
        self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush_of_nothing(self) -> None:
        """With nothing taken there is nothing to wait for, any number of times."""
        self.successResultOf(self.writer.flush())
        self.successResultOf(self.writer.flush())

    def test_grown_before_flushed(self) -> None:
        """Whoever waits for the flush finds everybody told of the last bytes."""
        fronts: list[int] = []
        self.writer.write(b"a")
        self.writer.flush().addCallback(lambda _: fronts.extend(self.fronts))
        self.held.run_all()
        self.assertEqual(fronts, [1])

    def test_failure(self) -> None:
        """A disk that fails moves no front, takes nothing more, and says why."""
        self.writer.write(b"a")
        self.held.run_next()
        self.worker.broken.add("write")
        self.writer.write(b"b")
        self.clock.advance(0.005)
        self.held.run_all()
        self.assertEqual(self.writer.front, 1)
        self.assertRaises(OSError, self.writer.write, b"c")
        self.failureResultOf(self.writer.flush(), OSError)
        self.failureResultOf(self.writer.flush(), OSError)
        self.assertEqual(self.fronts, [1])

    def test_failure_under_a_flush(self) -> None:
        """A flush that is waited for fails with its write."""
        self.worker.broken.add("write")
        self.writer.write(b"a")
        done = self.writer.flush()
        self.held.run_all()
        self.failureResultOf(done, OSError)

    def test_failure_while_paused(self) -> None:
        """An upstream that was paused is resumed, so that its next byte meets the failure."""
        self.worker.broken.add("write")
        self.writer.write(bytes(5 * MIB))
        self.assertEqual(self.events, ["pause"])
        self.held.run_all()
        self.assertEqual(self.events, ["pause", "resume"])
