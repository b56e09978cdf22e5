"""Tests for regproxy.upstream.transfer."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import StringTransport

from regproxy.testing import Fault, Framing
from regproxy.upstream.transfer import Transfer, TransferCut
from tests.upstream.case import DATA, REPOSITORY, UpstreamCase

PIECE = 1024


class TransferTests(UpstreamCase):
    """A blob on its way."""

    def setUp(self) -> None:
        """Collects."""
        super().setUp()
        self.pieces: list[bytes] = []
        self.transfer = Transfer(self.pieces.append, self.clock, 60)

    def begin(self, fault: Fault | None = None) -> None:
        """Delivers the blob to the transfer."""
        self.scripted.script(fault or Fault(piece=PIECE))
        answer = self.get_blob()
        answer.deliver(self.transfer)
        self.clock.advance(0)

    @property
    def received(self) -> bytes:
        """What the sink has got."""
        return b"".join(self.pieces)

    def cut(self) -> str:
        """How the transfer was cut."""
        cut = self.failureResultOf(self.transfer.done, TransferCut).value
        return str(cut)

    def test_whole(self) -> None:
        """Every byte is handed on, however the end is told."""
        for framing in Framing:
            self.begin(Fault(piece=PIECE, framing=framing))
            self.successResultOf(self.transfer.done)
            self.assertEqual(self.received, DATA)
            self.assert_nothing_left()
            self.setUp()

    def test_cut(self) -> None:
        """A connection that breaks is told apart from an end; what came before it is kept."""
        for framing in (Framing.LENGTH, Framing.CHUNKED):
            self.begin(Fault(piece=PIECE, framing=framing, cut_at=5000))
            self.assertIn("connection cut (ConnectionLost)", self.cut())
            self.assertEqual(self.received, DATA[:5000])
            self.assert_nothing_left()
            self.setUp()

    def test_cut_cleanly(self) -> None:
        """So is an orderly close before the announced length or the last chunk."""
        for framing in (Framing.LENGTH, Framing.CHUNKED):
            self.begin(Fault(framing=framing, cut_at=5000, cut_cleanly=True))
            self.assertIn("connection cut", self.cut())
            self.assert_nothing_left()
            self.setUp()

    def test_silence(self) -> None:
        """An upstream that falls silent is given up."""
        self.scripted.hold(self.blob, 2 * PIECE)
        self.begin()
        self.clock.advance(59.9)
        self.assertNoResult(self.transfer.done)
        self.clock.advance(0.1)
        self.assertEqual(self.cut(), "upstream sent nothing for 60 s")
        self.assertEqual(self.received, DATA[: 2 * PIECE])
        self.assertTrue(self.last.aborted)
        self.assert_nothing_left()

    def test_most(self) -> None:
        """A body that may have so many bytes has no more; the one that goes beyond is dropped."""
        for size, is_cut in ((1000, False), (1001, True)):
            pieces: list[bytes] = []
            transfer = Transfer(pieces.append, self.clock, 60, most=1500)
            transport: Any = StringTransport()
            transfer.makeConnection(transport)
            transfer.dataReceived(b"x" * 500)
            transfer.dataReceived(b"x" * size)
            self.assertEqual(sum(map(len, pieces)), 500 if is_cut else 1500)
            transfer.abort()
            error = self.failureResultOf(transfer.done, TransferCut).value
            expected = "upstream sent more than 1500 bytes" if is_cut else "given up"
            self.assertEqual(str(error), expected)
            self.assertEqual(transport.producerState, "stopped")

    def test_least(self) -> None:
        """Where so much is wanted, a few bytes now and then do not break the silence."""
        for size, cut in ((999, "upstream sent only 1998 bytes for 60 s"), (2000, "")):
            transfer = Transfer(lambda _: None, self.clock, 60, least=2000)
            transport: Any = StringTransport()
            transfer.makeConnection(transport)
            for _ in range(2):
                self.clock.advance(29)
                transfer.dataReceived(b"x" * size)
            self.clock.advance(3)
            if cut:
                error = self.failureResultOf(transfer.done, TransferCut).value
                self.assertEqual(str(error), cut)
            else:
                self.assertNoResult(transfer.done)
                transfer.abort()
                self.failureResultOf(transfer.done, TransferCut)

    def test_silence_from_the_start(self) -> None:
        """So is one that sends headers and nothing else."""
        self.scripted.hold(self.blob, 0)
        self.begin()
        self.clock.advance(60)
        self.assertEqual(self.cut(), "upstream sent nothing for 60 s")
        self.assert_nothing_left()

    def test_drip(self) -> None:
        """Slow is not silent."""
        self.begin(Fault(piece=PIECE, rate=PIECE / 50))
        for _ in range(20):
            self.clock.advance(50)
        self.assertNoResult(self.transfer.done)
        self.assertEqual(len(self.pieces), 21)
        self.transfer.abort()
        self.cut()
        self.assert_nothing_left()

    def test_pause(self) -> None:
        """Nothing is handed on while it is paused, everything after that."""
        self.scripted.hold(self.blob, 2 * PIECE)
        self.begin()
        self.transfer.pause()
        self.scripted.release(self.blob)
        self.clock.advance(0)
        self.assertEqual(len(self.pieces), 2)
        self.transfer.resume()
        self.clock.advance(0)
        self.successResultOf(self.transfer.done)
        self.assertEqual(self.received, DATA)
        self.assert_nothing_left()

    def test_pause_is_no_silence(self) -> None:
        """The time of a pause does not count, and silence is counted afresh behind it."""
        self.scripted.hold(self.blob, PIECE)
        self.begin()
        self.clock.advance(50)
        self.transfer.pause()
        self.clock.pump([30] * 20)
        self.assertNoResult(self.transfer.done)
        self.transfer.resume()
        self.clock.advance(59.9)
        self.assertNoResult(self.transfer.done)
        self.clock.advance(0.1)
        self.assertEqual(self.cut(), "upstream sent nothing for 60 s")
        self.assert_nothing_left()

    def test_pause_before_connection(self) -> None:
        """A pause before the body is asked for holds; one piece may have been on its way."""
        self.transfer.pause()
        self.begin()
        self.assertLessEqual(len(self.pieces), 1)
        self.clock.pump([30] * 10)
        self.assertNoResult(self.transfer.done)
        self.transfer.resume()
        self.clock.advance(0)
        self.successResultOf(self.transfer.done)
        self.assertEqual(self.received, DATA)
        self.assert_nothing_left()

    def test_resume_before_connection(self) -> None:
        """A pause that ended before the body is asked for does nothing."""
        self.transfer.pause()
        self.transfer.resume()
        self.begin()
        self.successResultOf(self.transfer.done)

    def test_pause_by_sink(self) -> None:
        """A sink may pause at each piece, the first included, and gets no more than that."""

        def sink(data: bytes) -> None:
            self.pieces.append(data)
            self.transfer.pause()

        self.transfer = Transfer(sink, self.clock, 60)
        self.begin()
        for count in range(1, len(DATA) // PIECE):
            self.assertEqual(len(self.pieces), count)
            self.transfer.resume()
            self.clock.advance(0)
        self.successResultOf(self.transfer.done)
        self.assertEqual(self.received, DATA)

    def test_abort(self) -> None:
        """Giving up drops the connection, paused or not, and nothing is handed on any more."""
        for paused in (False, True):
            self.scripted.hold(self.blob, PIECE)
            self.begin()
            if paused:
                self.transfer.pause()
            self.transfer.abort()
            self.assertEqual(self.cut(), "given up")
            self.assert_nothing_left()
            self.assertTrue(self.last.aborted)
            self.assertEqual(len(self.pieces), 1)
            self.setUp()

    def test_abort_before_connection(self) -> None:
        """Giving up comes to the same before the body is asked for."""
        self.transfer.abort()
        self.assertEqual(self.cut(), "given up")
        self.begin()
        self.assertEqual(self.received, b"")
        self.assert_nothing_left()

    def test_abort_after_the_end(self) -> None:
        """Giving up what is over does nothing, as do a pause and a resume."""
        self.begin()
        self.successResultOf(self.transfer.done)
        self.transfer.abort()
        self.transfer.pause()
        self.transfer.resume()
        self.assert_nothing_left()

    def test_cancel(self) -> None:
        """Cancelling ``done`` gives up."""
        self.scripted.hold(self.blob, PIECE)
        self.begin()
        self.transfer.done.cancel()
        self.assertEqual(self.cut(), "given up")
        self.assert_nothing_left()

    def test_sink_fails(self) -> None:
        """What the sink raises ends the transfer and is told as it is."""

        def sink(data: bytes) -> None:
            self.pieces.append(data)
            if len(self.pieces) == 3:
                raise OSError(28, "No space left on device")

        self.transfer = Transfer(sink, self.clock, 60)
        self.begin()
        error: Any = self.failureResultOf(self.transfer.done, OSError).value
        self.assertEqual(error.errno, 28)
        self.assertEqual(len(self.pieces), 3)
        self.assertTrue(self.last.aborted)
        self.assert_nothing_left()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_skip_is_no_silence(self) -> None:
        """Bytes that are left out are a sign of life."""
        self.scripted.script(Fault(ignore_range=True, rate=100, piece=100))
        answer = self.result(
            self.upstream.get_blob(REPOSITORY, self.digest, 9000, self.deadline(), skip=True)
        )
        transfer = Transfer(lambda _: None, self.clock, 20)
        answer.deliver(transfer)
        self.clock.pump([1.0] * 80)
        self.assertNoResult(transfer.done)
        transfer.abort()
        self.failureResultOf(transfer.done)
