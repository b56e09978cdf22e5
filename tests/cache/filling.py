"""What tests of fills have in common: readers, and a fill between scripted ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from regproxy.cache.content import Content
from regproxy.cache.fill import Fill
from regproxy.testing import HeldWorker
from tests.cache.case import DIGEST, FaultyWorker, ScriptedSource, StoreCase, bytes_of


class Reader:
    """Reads a content as a delivery does, as far as it goes at each moment.

    Attributes:
        start: Where it began.
        data: What it has read.
        ended: Whether it knows that this is all.
        failure: Why there will not be more.
    """

    def __init__(self, content: Content, start: int = 0) -> None:
        """Args:
        content: Owned from here on.
        start: The first byte wanted.
        """
        self.start = start
        self.data = b""
        self.ended = False
        self.failure: Failure | None = None
        self._content = content
        self._file = content.open()
        self._waiting: Deferred[Any] | None = None
        self._over = False
        self._go()

    @property
    def position(self) -> int:
        """Where it is."""
        return self.start + len(self.data)

    def leave(self) -> None:
        """Goes away, whatever has been read."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._close()

    def _go(self, _: object = None) -> None:
        self._waiting = None
        while ready := self._content.available(self.position):
            piece = bytes_of(self._file, self.position + ready, self.position)
            assert len(piece) == ready, "what is available cannot be read"
            self.data += piece
        size = self._content.size
        if size is not None and self.position >= size and self._content.available(size - 1) > 0:
            self.ended = True
            self._close()
            return
        waiting = self._content.wait(self.position)
        self._waiting = waiting
        waiting.addCallbacks(self._go, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._waiting = None
        if not failure.check(CancelledError):
            self.failure = failure
            self._close()

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._file.close()
            self._content.close()


class FillCase(StoreCase):
    """A fill whose upstream, disk and hash wait for the test.

    Attributes:
        source: Its first source.
        held_disk: Has the writes.
        held_hash: Has the hash jobs.
        disk: Breaks writes.
        hashing: Breaks hash jobs.
        fill: Runs; the test has attached to it.
        running: Fires when it is over.
    """

    def setUp(self) -> None:
        """Starts nothing yet."""
        super().setUp()
        self.source = ScriptedSource(self.clock)
        self.held_disk, self.held_hash = HeldWorker(), HeldWorker()
        self.disk, self.hashing = FaultyWorker(self.held_disk), FaultyWorker(self.held_hash)

    def start(self, digest: Any = DIGEST) -> Fill:
        """Starts the fill, up to its question to the source."""
        self.fill = Fill(
            digest,
            self.source,
            store=self.store,
            clock=self.clock,
            disk=self.disk,
            hashing=self.hashing,
            silence=60.0,
        ).attach()
        self.addCleanup(self.fill.close)
        self.running = Deferred.fromCoroutine(self.fill.run())
        self.held_disk.run_all()
        return self.fill

    def work(self) -> None:
        """Runs whatever waits for a thread."""
        while self.held_disk.run_all() + self.held_hash.run_all():
            pass

    def settle(self) -> None:
        """Runs whatever waits for a thread, or for a moment of the clock."""
        self.work()
        self.clock.advance(0.005)
        self.work()

    def reader(self, start: int = 0) -> Reader:
        """Somebody who reads the fill."""
        return Reader(self.fill.attach(), start)

    def nothing_kept(self) -> None:
        """Checks that a failed fill left nothing behind."""
        self.assertEqual(self.parts(), [])
        self.assertIsNone(self.stored(self.fill.digest))
        self.assertEqual(self.source.held, 0)
