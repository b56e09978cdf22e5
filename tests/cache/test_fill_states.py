"""Fills in any order of events, against a simple model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.fill import Fill, StoreTrouble
from regproxy.cache.store import Store
from regproxy.model.digest import Digest
from regproxy.model.errors import upstream_failed
from regproxy.testing import HeldWorker
from tests.cache.case import Body, FaultyWorker, ScriptedSource, open_files, parts_of, stored_in
from tests.cache.filling import Reader

SILENCE = 60.0

# Small enough for a few hundred bytes to reach every limit.
LIMITS = {
    "regproxy.cache.writing._BATCH": 32,
    "regproxy.cache.writing._BACKLOG_HIGH": 96,
    "regproxy.cache.writing._BACKLOG_LOW": 32,
    "regproxy.cache.hashing._JOB_MINIMUM": 16,
    "regproxy.cache.hashing._JOB_LIMIT": 64,
    "regproxy.cache.hashing._KEPT_LIMIT": 48,
    "regproxy.cache.waiters._SLICE": 2,
}


class FillMachine(RuleBasedStateMachine):
    """A fill whose upstream, disk, hash and readers do something in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch(name, value) for name, value in LIMITS.items()]
        for each in self.patches:
            each.start()
        self.directory = Path(tempfile.mkdtemp()).absolute()
        self.clock = Clock()
        self.store = Store(self.directory)
        self.store.prepare()
        self.held_disk, self.held_hash = HeldWorker(), HeldWorker()
        self.disk, self.hashing = FaultyWorker(self.held_disk), FaultyWorker(self.held_hash)
        self.sources = [ScriptedSource(self.clock, name) for name in ("first", "second")]
        self.readers: list[Reader] = []
        self.body: Body | None = None
        self.taken = b""  # of what was sent: what belongs to the blob so far
        self.result: list[object] = []

    @initialize(
        size=st.integers(0, 400),
        known=st.sampled_from([True, True, False]),
        wrong=st.sampled_from([0, 0, 0, 1]),
        ending=st.sampled_from(["well", "well", "well", "badly"]),
        trouble=st.sampled_from(["", "", "", "write", "hash_pieces", "hash_into", "commit"]),
    )
    def start(self, size: int, known: bool, wrong: int, ending: str, trouble: str) -> None:
        """Starts a fill, of which a byte may be sent wrong."""
        self.data = bytes(n * 7 % 251 for n in range(size))
        middle = size // 2
        self.sent_data = self.data
        if size and wrong:
            self.sent_data = self.data[:middle] + b"!" + self.data[middle + 1 :]
        self.ending = ending
        self.trouble = trouble
        self.known = known
        self.fill = Fill(
            Digest.of(self.data),
            self.sources[0],
            store=self.store,
            clock=self.clock,
            disk=self.disk,
            hashing=self.hashing,
            silence=SILENCE,
        ).attach()
        Deferred.fromCoroutine(self.fill.run()).addBoth(self.result.append)
        self.held_disk.run_all()

    # Upstream

    @rule(good=st.sampled_from([True] * 6 + [False]), second=st.booleans())
    def answer(self, good: bool, second: bool) -> None:
        """A source answers or refuses."""
        source = self.sources[second]
        if source.waiting:
            start = source.asked[-1]
            if good:
                self.body = source.answer(len(self.data) - start if self.known else None)
            else:
                source.refuse(upstream_failed("no"))

    @rule(count=st.integers(1, 200))
    def send(self, count: int) -> None:
        """Upstream sends some bytes, unless it was told to wait."""
        if self.body is not None and not self.body.stopped and not self.body.paused:
            piece = self.sent_data[len(self.taken) : len(self.taken) + count]
            if piece:
                self.taken += piece
                self.body.send(piece)
                self.end_if_done()

    def end_if_done(self) -> None:
        """A body with a length ends with its last byte."""
        if self.known and self.body is not None and self.taken == self.sent_data:
            self.body.end()
            self.body = None

    @rule()
    def end(self) -> None:
        """Upstream ends the body; too early, it was cut, or is wrong."""
        if self.body is not None:
            self.body.end()
            self.body = None

    @rule()
    def cut(self) -> None:
        """The connection breaks."""
        if self.body is not None:
            self.body.cut()
            self.body = None

    @rule()
    def add_source(self) -> None:
        """A joiner brings a source."""
        self.fill.add_source(self.sources[1])

    # Threads and time

    @precondition(lambda self: self.held_disk.held)
    @rule()
    def disk_job(self) -> None:
        """The disk gets something done."""
        self.held_disk.run_next()

    @precondition(lambda self: self.held_hash.held)
    @rule()
    def hash_job(self) -> None:
        """The hash gets something done."""
        self.held_hash.run_next()

    @rule()
    def jobs(self) -> None:
        """The threads catch up."""
        while self.held_disk.run_all() + self.held_hash.run_all():
            pass

    @rule()
    def break_disk(self) -> None:
        """From now on something fails, if this disk is such a one."""
        self.disk.broken = self.hashing.broken = {self.trouble}

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.5, 1.0, SILENCE]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)
        if self.body is not None and self.body.stopped:
            self.body = None

    # Readers

    @rule(share=st.floats(0, 1))
    def join(self, share: float) -> None:
        """A reader comes, wherever it begins."""
        if self.sources[0].asked:
            start = int(share * len(self.data))
            self.readers.append(Reader(self.fill.attach(), start))

    @precondition(lambda self: self.readers)
    @rule(number=st.integers(0, 100))
    def leave(self, number: int) -> None:
        """A reader goes."""
        self.readers.pop(number % len(self.readers)).leave()

    # What holds at every moment

    @invariant()
    def held_back(self) -> None:
        """No byte that is not there, and not the last one before the hash is right."""
        if not hasattr(self, "fill"):
            return
        available = self.fill.available(0)
        assert available <= len(self.taken)
        if not self.fill.verified and self.fill.size is not None and self.data:
            assert available <= len(self.data) - 1
        if self.fill.verified:
            assert self.taken == self.data

    @invariant()
    def right_bytes(self) -> None:
        """Readers have what was sent, in its order, and an end only if it is the blob."""
        for reader in self.readers:
            assert reader.data == self.taken[reader.start : reader.position]
            if reader.ended:
                assert self.taken == self.data
                assert reader.data == self.data[reader.start :]
                assert self.fill.verified

    @invariant()
    def kept(self) -> None:
        """A blob in the store is right; a fill that is over left no part and holds no place."""
        if not hasattr(self, "fill"):
            return
        assert stored_in(self.store, self.fill.digest) in {None, self.data}
        if self.result:
            assert parts_of(self.directory) == []
            assert [source.held for source in self.sources] == [0, 0]

    def teardown(self) -> None:
        """Everything comes to its end: every reader knows it, and nothing is left open."""
        try:
            if hasattr(self, "fill"):
                self.finish()
        finally:
            for each in self.patches:
                each.stop()
            shutil.rmtree(self.directory)

    def finish(self) -> None:
        """Lets upstream send or refuse the rest, and all go on until the fill is over."""
        waiting = [self.fill.wait(offset) for offset in (0, len(self.data))]
        for _ in range(400):
            self.pass_time(0.25)
            self.jobs()
            if self.result:
                break
            for second, source in enumerate(self.sources):
                if source.waiting:
                    self.answer(self.ending == "well", bool(second))
            if self.ending == "badly":
                self.cut()
            self.send(len(self.data) + 1)
            if self.taken == self.sent_data:
                self.end()
            self.held_back()
            self.right_bytes()
        self.pass_time(0.0)
        self.kept()
        self.right_bytes()
        (result,) = self.result
        for wait in waiting:
            wait.addErrback(lambda _: None)
            assert wait.called
        for reader in self.readers:
            assert reader.ended or reader.failure is not None
            assert reader.ended or not self.fill.verified
        if isinstance(result, Failure):
            assert stored_in(self.store, self.fill.digest) is None
            if isinstance(result.value, StoreTrouble):
                front = result.value.front
                expected = Digest.of(self.taken[:front])
                assert result.value.hasher.hexdigest() == expected.hex
        else:
            assert self.fill.verified
        self.fill.close()
        assert open_files(self.directory) == []
        assert self.clock.getDelayedCalls() == []


class FillStatesTests(SynchronousTestCase):
    """Any order of events."""

    def test_any_order(self) -> None:
        """Whatever happens when, the invariants of a fill hold."""
        run_state_machine_as_test(
            FillMachine,
            settings=settings(
                max_examples=100,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
