"""Tests for regproxy.cache.fill: transfers that are cut, and where else to ask."""

from __future__ import annotations

from regproxy.cache import fill
from regproxy.cache.content import ContentFailed
from regproxy.cache.fill import DigestMismatch
from regproxy.model.errors import blob_unknown, denied, upstream_failed
from tests.cache.case import DATA, ScriptedSource
from tests.cache.filling import FillCase

SIZE = len(DATA)


class ResumeTests(FillCase):
    """Transfers that are cut."""

    def test_resume(self) -> None:
        """A cut transfer goes on from where it was; readers notice nothing."""
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        for stop, seconds in ((1000, 0.5), (3000, 1)):
            body.send(DATA[self.source.asked[-1] : stop])
            body.cut()
            self.assertEqual(self.source.held, 0)
            self.clock.advance(seconds)
            self.work()
            self.assertEqual(self.source.asked[-1], stop)
            body = self.source.answer(SIZE - stop)
        body.send(DATA[3000:])
        body.end()
        self.work()
        self.successResultOf(self.running)
        self.assertTrue(reader.ended)
        self.assertEqual(reader.data, DATA)

    def test_cut_before_the_first_byte(self) -> None:
        """With nothing there the whole is asked for again."""
        self.start()
        self.source.answer(SIZE).cut()
        self.clock.advance(0.5)
        self.assertEqual(self.source.asked, [0, 0])
        body = self.source.answer(SIZE)
        body.send(DATA)
        body.end()
        self.work()
        self.successResultOf(self.running)

    def test_short_body(self) -> None:
        """A body that ends early, however politely, was cut."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:-1])
        body.end()
        self.clock.advance(0.5)
        self.assertEqual(self.source.asked, [0, SIZE - 1])
        body = self.source.answer(1)
        body.send(DATA[-1:])
        body.end()
        self.work()
        self.successResultOf(self.running)

    def test_silence(self) -> None:
        """An upstream that says nothing for too long was cut."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:10])
        self.work()
        self.clock.advance(59)
        self.assertFalse(body.stopped)
        self.clock.advance(1)
        self.assertTrue(body.stopped)
        self.clock.advance(0.5)
        self.assertEqual(self.source.asked, [0, 10])
        self.give_up(ContentFailed)

    def test_too_many_behind_a_resume(self) -> None:
        """A rest that is longer than the rest is no rest."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:100])
        body.cut()
        self.clock.advance(0.5)
        self.source.answer(SIZE).send(DATA)
        self.work()
        self.failureResultOf(self.running, DigestMismatch)
        self.nothing_kept()

    def test_back_off(self) -> None:
        """Without progress each attempt comes later than the one before, and then none."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:10])
        body.cut()
        asked = []
        for step in range(400):
            self.clock.advance(0.25)
            while self.source.waiting:
                asked.append((step + 1) / 4)
                self.source.answer(SIZE - 10).cut()
        self.work()
        self.failureResultOf(self.running, ContentFailed)
        self.assertEqual(asked, [0.5, 1.5, 3.5, 7.5, 15.5])
        self.nothing_kept()

    def test_progress(self) -> None:
        """As long as the attempts bring enough bytes, together or each, there is no end to them."""
        self.patch(fill, "_PROGRESS", 20)
        self.start()
        self.source.answer(SIZE).cut()
        for at in range(0, 300, 10):
            self.clock.advance(1)
            body = self.source.answer(SIZE - at)
            body.send(DATA[at : at + 10])
            body.cut()
        self.clock.advance(1)
        body = self.source.answer(SIZE - 300)
        body.send(DATA[300:])
        body.end()
        self.work()
        self.successResultOf(self.running)

    def test_too_little_progress(self) -> None:
        """A source that sends a byte at a time does not hold a fill forever."""
        self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:1])
        body.cut()
        for _ in range(400):
            self.clock.advance(0.25)
            while self.source.waiting:
                at = self.source.asked[-1]
                body = self.source.answer(SIZE - at)
                body.send(DATA[at : at + 1])
                body.cut()
            self.work()
        self.failureResultOf(self.running, ContentFailed)
        self.assertEqual(self.source.asked, [0, 1, 2, 3, 4, 5])
        self.nothing_kept()

    def test_refused_resume(self) -> None:
        """A source that refuses the rest is asked again a few times."""
        self.start()
        body = self.source.answer(SIZE)
        reader = self.reader()
        body.send(DATA[:10])
        body.cut()
        self.give_up(ContentFailed)
        self.assertEqual(reader.data, DATA[:10])
        assert reader.failure is not None
        self.assertTrue(reader.failure.check(ContentFailed))

    def test_unknown_size(self) -> None:
        """Without a length a cut cannot be mended."""
        self.start()
        body = self.source.answer(None)
        body.send(DATA)
        body.cut()
        self.work()
        self.failureResultOf(self.running, ContentFailed)
        self.nothing_kept()

    def give_up(self, error: type[Exception]) -> None:
        """Refuses until the fill gives up."""
        for _ in range(400):
            while self.source.waiting:
                self.source.refuse(upstream_failed("down"))
            self.clock.advance(0.25)
            self.work()
        self.failureResultOf(self.running, error)
        self.nothing_kept()


class SourcesTests(FillCase):
    """Where a fill can read from."""

    def setUp(self) -> None:
        """A second source."""
        super().setUp()
        self.second = ScriptedSource(self.clock, "other.test/team/app")

    def test_refused(self) -> None:
        """Who waits for the start is told what the registry said."""
        fill = self.start()
        waiting = fill.started()
        self.source.refuse(denied("not you"))
        self.work()
        self.error(waiting, 403)
        self.error(fill.started(), 403)
        self.error(self.running, 403)
        self.nothing_kept()

    def test_next_source(self) -> None:
        """A source that joined while the first was asked is asked next."""
        fill = self.start()
        waiting = fill.started()
        fill.add_source(self.second)
        fill.add_source(self.second)
        self.source.refuse(blob_unknown("not here"))
        self.assertEqual((self.source.held, self.second.held), (0, 1))
        body = self.second.answer(SIZE)
        self.successResultOf(waiting)
        body.send(DATA)
        body.end()
        self.work()
        self.successResultOf(self.running)
        self.assertEqual((self.source.asked, self.second.asked), ([0], [0]))

    def test_all_refuse(self) -> None:
        """Each source is asked once."""
        fill = self.start()
        fill.add_source(self.second)
        self.source.refuse(blob_unknown("not here"))
        self.second.refuse(denied("not you"))
        self.work()
        self.error(self.running, 403)
        self.assertEqual(self.second.held, 0)
        self.nothing_kept()

    def test_resume_elsewhere(self) -> None:
        """A joiner's source helps out when the first one has gone."""
        fill = self.start()
        body = self.source.answer(SIZE)
        body.send(DATA[:100])
        fill.add_source(self.second)
        body.cut()
        self.clock.advance(0.5)
        self.source.refuse(upstream_failed("down"))
        body = self.second.answer(SIZE - 100)
        body.send(DATA[100:])
        body.end()
        self.work()
        self.successResultOf(self.running)
        self.assertEqual(self.second.asked, [100])

    def test_unexpected(self) -> None:
        """Whatever a source raises, the fill ends, and its place is free."""
        fill = self.start()
        waiting = fill.started()
        self.source.refuse(ZeroDivisionError())
        self.work()
        self.failureResultOf(waiting, ZeroDivisionError)
        self.failureResultOf(self.running, ZeroDivisionError)
        self.nothing_kept()
