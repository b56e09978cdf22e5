"""Tests for fills of one digest in several processes: regproxy.cache.part_map and following."""

from __future__ import annotations

import fcntl
import os
from hashlib import sha256

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from regproxy.cache.fill import Fill, StoreTrouble
from regproxy.cache.part_map import PartMap, PartMapView, PartState, PartTaken
from regproxy.cache.store import Store
from regproxy.testing import ImmediateWorker
from tests.cache.case import DATA, DIGEST, ScriptedSource, StoreCase
from tests.cache.filling import Reader

SIZE = len(DATA)


class PartMapTests(StoreCase):
    """One owner at a time, and what the others see."""

    def setUp(self) -> None:
        """No map yet."""
        super().setUp()
        self.path = self.directory / "parts" / "some.map"

    def acquired(self, token: str = "0123456789abcdef") -> PartMap:
        """The map, owned."""
        owned = PartMap.acquire(self.path, token)
        self.addCleanup(owned.release, 0, None, PartState.GIVEN_UP)
        return owned

    def viewed(self) -> PartMapView:
        """The map, seen by somebody else."""
        view = PartMapView(self.path)
        self.addCleanup(view.close)
        return view

    def test_one_owner(self) -> None:
        """While one process has it no other gets it; afterwards the next one does."""
        first = self.acquired()
        self.assertRaises(PartTaken, PartMap.acquire, self.path, "x" * 16)
        first.release(0, None, PartState.GIVEN_UP)
        self.assertFalse(self.path.exists())
        self.acquired()

    def test_told(self) -> None:
        """A follower sees what the owner says, to the last word."""
        owner, view = self.acquired(), self.viewed()
        for front, size, state in (
            (0, None, PartState.RUNNING),
            (10, None, PartState.RUNNING),
            (20, 30, PartState.RUNNING),
        ):
            owner.write(front, size, state)
            told = view.progress()
            assert told is not None
            self.assertEqual(
                (told.token, told.front, told.size, told.state),
                ("0123456789abcdef", front, size, state),
            )
        owner.release(30, 30, PartState.VERIFIED)
        told = view.progress()
        assert told is not None
        self.assertEqual((told.front, told.state), (30, PartState.VERIFIED))

    def test_dead_owner(self) -> None:
        """An owner that ends without a word leaves nothing that counts, and no obstacle."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        PartMap(self.path, descriptor, "e" * 16).write(10, 20, PartState.RUNNING)
        view = self.viewed()
        self.assertIsNotNone(view.progress())
        # What the kernel does when a process dies.
        os.close(descriptor)
        self.assertIsNone(view.progress())
        self.acquired("f" * 16)

    def test_empty(self) -> None:
        """A map that has just been made says nothing yet."""
        self.path.write_bytes(b"")
        self.assertIsNone(self.viewed().progress())


class FollowingTests(StoreCase):
    """Two processes, each with a store of its own on one directory."""

    def setUp(self) -> None:
        """The first one fills."""
        super().setUp()
        self.first, self.running = self.started(self.store)
        self.source = self.sources[0]

    sources: list[ScriptedSource]

    def started(self, store: Store) -> tuple[Fill, Deferred[None]]:
        """A fill in the process of this store."""
        self.sources = getattr(self, "sources", [])
        source = ScriptedSource(self.clock, f"registry.test/{len(self.sources)}")
        self.sources.append(source)
        fill = Fill(
            DIGEST,
            source,
            store=store,
            clock=self.clock,
            disk=ImmediateWorker(),
            hashing=ImmediateWorker(),
            silence=60.0,
        ).attach()
        self.addCleanup(fill.close)
        return fill, Deferred.fromCoroutine(fill.run())

    def followed(self) -> tuple[Fill, Deferred[None]]:
        """The same fill in the other process."""
        return self.started(Store(self.directory))

    def look(self) -> None:
        """Time for a look, and for small batches."""
        assert isinstance(self.clock, Clock)
        self.clock.pump([0.01] * 6)

    def test_one_transfer(self) -> None:
        """The second process asks nobody, and its readers get every byte as it comes."""
        second, following = self.followed()
        body = self.source.answer(SIZE)
        body.send(DATA[:1000])
        self.look()
        self.assertEqual((second.size, second.available(0)), (SIZE, 1000))
        reader = Reader(second.attach())
        body.send(DATA[1000:])
        self.look()
        self.assertEqual(reader.data, DATA[:-1])
        body.end()
        self.look()
        self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.successResultOf(self.running)
        self.successResultOf(following)
        self.assertEqual([source.asked for source in self.sources], [[0], []])
        self.assertEqual(self.parts(), [])

    def test_late(self) -> None:
        """Whoever comes when all but the last step is done gets all of it."""
        self.source.answer(SIZE).send(DATA)
        self.look()
        second, following = self.followed()
        reader = Reader(second.attach())
        self.assertEqual(reader.data, DATA[:-1])
        reader.leave()
        self.assertNoResult(following)
        following.addErrback(lambda _: None)
        self.first_gives_up()

    def first_gives_up(self) -> None:
        """The first process finds that the bytes are wrong, or so it says."""
        body = self.source
        self.assertFalse(body.waiting)
        self.running.addErrback(lambda _: None)
        self.clock.advance(60)
        for _ in range(8):
            if self.source.waiting:
                self.source.refuse(ZeroDivisionError())
            self.clock.pump([1.0] * 20)

    def test_given_up_before_the_first_byte(self) -> None:
        """A fill that comes to nothing elsewhere before it has begun is tried here."""
        second, following = self.followed()
        self.source.refuse(ZeroDivisionError())
        self.failureResultOf(self.running, ZeroDivisionError)
        self.look()
        self.assertEqual(self.sources[1].asked, [0])
        body = self.sources[1].answer(SIZE)
        body.send(DATA)
        body.end()
        self.look()
        self.successResultOf(following)
        self.assertEqual(second.available(0), SIZE)

    def test_given_up_later(self) -> None:
        """One that comes to nothing later sends the readers here past the cache, from there on."""
        second, following = self.followed()
        self.source.answer(SIZE).send(DATA[:1000])
        self.look()
        reader = Reader(second.attach())
        self.first_gives_up()
        error = self.failureResultOf(following, StoreTrouble).value
        self.assertEqual((error.front, error.size), (1000, SIZE))
        self.assertEqual(error.hasher.hexdigest(), sha256(DATA[:1000]).hexdigest())
        assert reader.failure is not None
        reader.failure.trap(StoreTrouble)
        self.assertEqual(reader.data, DATA[:1000])
