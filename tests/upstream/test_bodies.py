"""Tests for regproxy.upstream.bodies, through answers as they come."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from regproxy.testing import Fault, Framing
from regproxy.upstream.exchange import Answer
from tests.upstream.case import DATA, REGISTRY, UpstreamCase

PAGE = f"{REGISTRY}/page"


class ReadTests(UpstreamCase):
    """A body that is read whole."""

    def answer(self, fault: Fault | None = None, body: bytes = DATA) -> Answer:
        """An answer with *body*, which waits to be read."""
        self.scripted.add_page(PAGE, body)
        if fault is not None:
            self.scripted.script(fault)
        return self.send(PAGE)

    def reading(
        self, fault: Fault | None = None, body: bytes = DATA, limit: int = 1 << 20
    ) -> Deferred[bytes]:
        """The reading of such an answer, with ten seconds for it."""
        return self.start(self.answer(fault, body).read(limit, self.deadline(10)))

    def test_whole(self) -> None:
        """The body is what was sent, however its end is told."""
        for framing in Framing:
            body = self.successResultOf(self.reading(Fault(framing=framing, piece=1000)))
            self.assertEqual(body, DATA, framing)
        self.assert_nothing_left()

    def test_empty(self) -> None:
        """No bytes are a body."""
        for framing in Framing:
            self.assertEqual(self.successResultOf(self.reading(Fault(framing=framing), b"")), b"")
        self.assert_nothing_left()

    def test_limit(self) -> None:
        """As many bytes as the limit are accepted; one more is 502, announced or not."""
        size = len(DATA)
        for framing in Framing:
            fault = Fault(framing=framing)
            self.assertEqual(self.successResultOf(self.reading(fault, limit=size)), DATA)
            error = self.error(self.reading(fault, limit=size - 1))
            self.assertEqual(error.status, 502)
            self.assertIn(f"registry.test: answer of more than {size - 1} bytes", error.message)
        self.assert_nothing_left()

    def test_endless(self) -> None:
        """A body without an end is left at the limit."""
        self.scripted.script(Fault(framing=Framing.CHUNKED, body=b"x" * 10_000_000))
        answer = self.send(self.blob_url)
        self.assertEqual(self.refused(answer.read(100_000, self.deadline())).status, 502)
        self.assertTrue(self.last.aborted)
        self.assertLess(self.last.sent, 300_000)
        self.assert_nothing_left()

    @property
    def blob_url(self) -> str:
        """Where the blob is."""
        return REGISTRY + self.blob

    def test_cut(self) -> None:
        """A connection that is lost, or closed in good order, before the end is 502."""
        for framing in (Framing.LENGTH, Framing.CHUNKED):
            for cleanly in (False, True):
                for place in (0, 1, len(DATA) - 1):
                    fault = Fault(framing=framing, cut_at=place, cut_cleanly=cleanly)
                    error = self.error(self.reading(fault))
                    self.assertEqual(error.status, 502)
                    self.assertIn("registry.test: connection cut", error.message)
        self.assert_nothing_left()

    def test_cut_without_framing(self) -> None:
        """A body that only the close ends cannot be told from one that was cut: its digest can."""
        body = self.successResultOf(self.reading(Fault(framing=Framing.CLOSE, cut_at=10)))
        self.assertEqual(body, DATA[:10])
        self.assert_nothing_left()

    def test_wrong_length(self) -> None:
        """Fewer bytes than announced are 502; of more, those that were announced are the body."""
        error = self.error(self.reading(Fault(content_length=len(DATA) + 1)))
        self.assertEqual(error.status, 502)
        body = self.successResultOf(self.reading(Fault(content_length=100)))
        self.assertEqual(body, DATA[:100])
        self.assert_nothing_left()

    def test_drip(self) -> None:
        """Bytes that go on coming do not move the deadline: 504."""
        reading = self.reading(Fault(rate=1.0, piece=1))
        self.clock.pump([1] * 9)
        self.assertNoResult(reading)
        self.clock.advance(1)
        error = self.error(reading)
        self.assertEqual(error.status, 504)
        self.assertIn("registry.test: body", error.message)
        self.assertTrue(self.last.aborted)
        self.assert_nothing_left()

    def test_silence(self) -> None:
        """So it is when nothing comes at all, chunked or not."""
        self.scripted.hold("/page", 10)
        for framing in Framing:
            reading = self.reading(Fault(framing=framing))
            self.clock.advance(10)
            self.assertEqual(self.error(reading).status, 504)
        self.assert_nothing_left()

    def test_deadline_over(self) -> None:
        """A deadline that is over before reading leaves no time at all."""
        answer = self.answer(Fault(rate=1.0, piece=1))
        deadline = self.deadline(1)
        self.clock.advance(5)
        self.assertEqual(self.refused(answer.read(1 << 20, deadline)).status, 504)
        self.assert_nothing_left()

    def test_cancel(self) -> None:
        """Whoever stops waiting lets the connection go."""
        self.scripted.hold("/page", 10)
        reading = self.reading()
        reading.cancel()
        self.failureResultOf(reading)
        self.assert_nothing_left()

    def test_head(self) -> None:
        """The answer to HEAD has an empty body, whatever length it announces."""
        self.scripted.add_page(PAGE, DATA)
        self.assertEqual(self.read(self.send(PAGE, method="HEAD")), b"")
        self.assert_nothing_left()


class DiscardTests(UpstreamCase):
    """A body that nobody wants."""

    def discard(self, fault: Fault, body: bytes = DATA) -> None:
        """Lets the body of an answer go."""
        self.scripted.add_page(PAGE, body)
        self.scripted.script(fault)
        self.send(PAGE).discard()
        self.clock.advance(0)

    def test_short(self) -> None:
        """A short body is read to its end, so that its connection can be used again."""
        self.discard(Fault(framing=Framing.CHUNKED), b"x" * 60_000)
        self.assertEqual((self.last.sent, self.last.aborted), (60_000, False))
        self.assert_nothing_left()

    def test_long(self) -> None:
        """A long body is not."""
        self.discard(Fault(), b"x" * 10_000_000)
        self.assertTrue(self.last.aborted)
        self.assertLess(self.last.sent, 300_000)
        self.assert_nothing_left()

    def test_slow(self) -> None:
        """A body that drips is dropped after five seconds."""
        self.discard(Fault(rate=1.0, piece=1))
        self.clock.pump([1] * 4)
        self.assertEqual(self.scripted.connections, 1)
        self.clock.advance(1)
        self.assertTrue(self.last.aborted)
        self.assert_nothing_left()

    def test_cut(self) -> None:
        """A body that breaks off is no loss."""
        self.discard(Fault(cut_at=10))
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assert_nothing_left()
