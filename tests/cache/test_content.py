"""One suite for everything that provides `Content`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from regproxy.cache.content import Content
from regproxy.cache.fill import Fill
from tests.cache.case import DATA, DIGEST, Body, StoreCase, bytes_of, open_files
from tests.cache.filling import FillCase, Reader

SIZE = len(DATA)


class _Conformance:
    """What a delivery relies on; the cases below say how the content comes about."""

    content: Content
    case: StoreCase

    def more(self) -> None:
        """Lets a few more bytes become available, if some are missing."""

    def complete(self) -> None:
        """Lets the content become whole."""

    def another(self) -> Content:
        """The content for one more reader."""
        raise NotImplementedError

    def _close(self) -> None:
        # A test may have closed the one and left another.
        self.content.close()

    def test_digest(self) -> None:
        """It says what it is, and how large if it knows."""
        self.case.assertEqual(self.content.digest, DIGEST)
        self.case.assertIn(self.content.size, {SIZE, None})
        self.complete()
        self.case.assertEqual(self.content.size, SIZE)

    def test_available_can_be_read(self) -> None:
        """What is available is in the file, at every moment."""
        file = self.content.open()
        self.case.addCleanup(file.close)
        for step in (self.more, self.more, self.complete):
            for offset in (0, 1, 150, SIZE - 1):
                ready = self.content.available(offset)
                self.case.assertEqual(
                    bytes_of(file, offset + ready, offset), DATA[offset : offset + ready]
                )
            step()
        self.case.assertEqual(bytes_of(file, SIZE + 1), DATA)

    def test_available_is_consistent(self) -> None:
        """The front is the same from wherever one looks, and never goes back."""
        fronts = []
        for step in (self.more, self.more, self.complete, self.more):
            front = self.content.available(0)
            for offset in (1, 100, SIZE - 1, SIZE, SIZE + 100):
                self.case.assertEqual(self.content.available(offset), max(0, front - offset))
            fronts.append(front)
            step()
        self.case.assertEqual(fronts, sorted(fronts))
        self.case.assertEqual(fronts[-1], SIZE)

    def test_wait(self) -> None:
        """Whoever waits is called when there is more, at once if there is already."""
        for offset in (0, 150, SIZE - 1):
            waiting = self.content.wait(offset)
            if self.content.available(offset):
                self.case.successResultOf(waiting)
            else:
                self.case.assertNoResult(waiting)
                self.complete()
                self.case.successResultOf(waiting)

    def test_wait_behind_the_end(self) -> None:
        """Nobody waits for ever behind the end."""
        self.complete()
        for offset in (SIZE, SIZE + 10):
            self.case.assertEqual(self.content.available(offset), 0)
            self.case.successResultOf(self.content.wait(offset))

    def test_cancel(self) -> None:
        """A wait may be given up; others go on."""
        waits = [self.content.wait(SIZE - 1) for _ in range(3)]
        waits[1].cancel()
        self.complete()
        self.case.successResultOf(waits[0])
        self.case.successResultOf(waits[2])
        waits[1].addErrback(lambda failure: failure.trap(CancelledError))
        self.case.successResultOf(waits[1])

    def test_readers(self) -> None:
        """Readers who begin anywhere and at any time get the rest from there."""
        readers = [Reader(self.another(), start) for start in (0, 150, SIZE - 1)]
        self.more()
        readers += [Reader(self.another(), start) for start in (0, 200)]
        gone = Reader(self.another())
        gone.leave()
        self.complete()
        for reader in readers:
            self.case.assertEqual((reader.data, reader.ended), (DATA[reader.start :], True))

    def test_share_outlives_the_content(self) -> None:
        """A share of the file is good until it is closed, and then nothing is open."""
        file = self.content.open()
        self.complete()
        self.content.close()
        self.case.assertEqual(bytes_of(file, SIZE), DATA)
        file.close()
        self.case.assertEqual(open_files(self.case.directory), [])
        self.content = self.another_later()

    def another_later(self) -> Content:
        """The content anew, for the clean-up to close."""
        content = self.case.store.open(DIGEST)
        assert content is not None
        return content


class StoredBlobContentTests(_Conformance, StoreCase):
    """A blob in the store."""

    def setUp(self) -> None:
        """Stores `DATA`."""
        super().setUp()
        self.case = self
        self.store.put(DIGEST, DATA)
        self.content = self.another()
        self.addCleanup(self._close)

    def another(self) -> Content:
        """Opens the blob once more."""
        return self.another_later()


class _FillContent(_Conformance, FillCase):
    """A fill, with a part of the bytes there."""

    length: int | None = SIZE
    body: Body

    def setUp(self) -> None:
        """Starts a fill and sends the first bytes."""
        super().setUp()
        self.case = self
        self.sent = 0
        fill = Fill(
            DIGEST,
            self.source,
            store=self.store,
            clock=self.clock,
            disk=self.disk,
            hashing=self.hashing,
            silence=60.0,
        )
        self.content = self.running_fill = fill.attach()
        self.addCleanup(self._close)
        self.running = Deferred.fromCoroutine(fill.run())
        self.settle()
        self.body = self.source.answer(self.length)
        self.more()

    def another(self) -> Content:
        """Joins the fill."""
        return self.running_fill.attach()

    def more(self) -> None:
        """Sends and writes a hundred bytes."""
        if self.sent < SIZE:
            self.body.send(DATA[self.sent : self.sent + 100])
            self.sent += 100
            self.settle()

    def complete(self) -> None:
        """Sends all the rest, and lets it be hashed and stored."""
        if self.sent < SIZE:
            self.body.send(DATA[self.sent :])
            self.sent = SIZE
            self.body.end()
            self.settle()
            self.successResultOf(self.running)


class RunningFillContentTests(_FillContent):
    """A fill that runs."""


class SizelessFillContentTests(_FillContent):
    """A fill whose size upstream does not tell."""

    length = None


class FinishedFillContentTests(_FillContent):
    """A fill that has come to its end under its readers."""

    def setUp(self) -> None:
        """Lets it come to its end."""
        super().setUp()
        self.complete()


del _FillContent
