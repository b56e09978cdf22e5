"""Past the cache: ranges far ahead of a fill, and what a failing disk left to send."""

from __future__ import annotations

import errno

from twisted.internet.defer import Deferred

from regproxy.cache.hashing import Follower
from regproxy.cache.store import Part
from regproxy.front import blobs
from regproxy.model.digest import Digest
from regproxy.testing import Fault, MemoryAnswer
from regproxy.upstream.limiter import Limiter
from tests.front.proxy import ALPINE, DATA, ProxyCase

SIZE = len(DATA)


class DetourCase(ProxyCase):
    """Requests past a fill.

    Attributes:
        places: Where those that transfer from docker.io are counted.
    """

    def setUp(self) -> None:
        """Finds the places."""
        super().setUp()
        self.places: Limiter = self.proxy.rooms.upstreams["docker.io"].transfers

    def ranges(self) -> list[str | None]:
        """What upstream was asked for."""
        return [asked.header("Range") for asked in self.upstream.find("GET", self.path)]


class FarAheadTests(DetourCase):
    """Ranges that a fill will not reach soon."""

    def setUp(self) -> None:
        """Holds a fill up at its start, and what is asked for besides it."""
        super().setUp()
        self.patch(blobs, "_AHEAD", 1000)
        self.upstream.hold(self.path, at=10)
        self.proxy.ask(self.blob)

    def ask(self, headers: dict[str, str] | None = None) -> MemoryAnswer:
        """Asks for ten bytes far ahead."""
        return self.proxy.ask(self.blob, {"Range": "bytes=50000-50009", **(headers or {})})

    def assert_ten(self, answer: MemoryAnswer, word: str) -> None:
        """Asserts that they came, and how."""
        self.assert_whole(answer, DATA[50_000:50_010], 206)
        self.assertIn(word, [line["cache"] for line in self.proxy.lines])

    def test_place(self) -> None:
        """Such a range is asked for exactly, and has a place until it is there."""
        self.upstream.hold(self.path, at=5)
        answer = self.ask()
        self.assertEqual((answer.status, self.places.held), (206, 2))
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_ten(answer, "RELAY")
        self.assertEqual(self.ranges(), [None, "bytes=50000-50009"])
        self.assertEqual(self.places.held, 0)

    def test_client_leaves(self) -> None:
        """A client that leaves gives the place up, before its answer and in it."""
        for at in (None, 5):
            self.upstream.hold(self.path, **({} if at is None else {"at": at}))
            client = self.proxy.client()
            client.request("GET", self.blob, {"Range": "bytes=50000-50009"})
            self.proxy.settle()
            self.assertEqual(self.places.held, 2)
            client.drop()
            self.upstream.release(self.path)
            self.proxy.settle()
            self.assertEqual(self.places.held, 0)
            self.setUp()

    def test_no_place(self) -> None:
        """While there is none the fill may get there first, and delivers it."""
        for _ in range(3):
            self.successResultOf(self.places.acquire(9))
        next_one = self.places.acquire(9)
        waiting = self.ask()
        self.upstream.release(self.path)
        self.proxy.settle()
        self.successResultOf(next_one)
        self.assertEqual((waiting.status, len(self.ranges())), (0, 1))
        self.places.release()
        self.proxy.settle()
        self.assert_ten(waiting, "JOIN")
        self.assertEqual((len(self.ranges()), self.places.held), (1, 3))

    def test_patience(self) -> None:
        """A range waits no longer for a place than a fill does."""
        for _ in range(3):
            self.successResultOf(self.places.acquire(0))
        self.upstream.hold(self.path, at=5)
        waiting = self.ask()
        self.assertEqual((waiting.status, self.places.held), (0, 4))
        self.clock.advance(10)
        self.assertEqual((waiting.status, self.places.held), (206, 5))
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_ten(waiting, "RELAY")
        self.assertEqual(self.places.held, 3)

    def test_refused(self) -> None:
        """A registry that refuses ranges, or sends the whole for one, delays the client alone."""
        for fault in (
            Fault(status=416, body=b""),
            Fault(status=503, body=b""),
            Fault(connect_failure=ConnectionRefusedError()),
            Fault(ignore_range=True),
            Fault(headers={"Content-Range": f"bytes 50000-50008/{SIZE}"}),
        ):
            self.upstream.script(fault)
            answer = self.ask()
            self.assertEqual((answer.status, answer.body, self.places.held), (206, b"", 1))
            self.upstream.release(self.path)
            self.proxy.settle()
            self.assert_ten(answer, "JOIN")
            self.assertEqual(self.places.held, 0)
            self.setUp()

    def test_not_modified(self) -> None:
        """A client that has the blob needs no part of it."""
        answer = self.ask({"If-None-Match": f'"{self.digest}"'})
        self.assertEqual((answer.status, answer.body), (304, b""))
        self.assertEqual(len(self.ranges()), 1)


class NoDiskTests(DetourCase):
    """Relays after the disk failed."""

    def setUp(self) -> None:
        """Lets writes fail from 100 000 bytes on."""
        super().setUp()
        write = Part.write

        def failing(part: Part, offset: int, pieces: list[bytes]) -> int:
            if offset >= 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(part, offset, pieces)

        self.patch(Part, "write", failing)

    def ask(self) -> MemoryAnswer:
        """An answer, once the disk has failed under it and what comes then was held up."""
        self.upstream.hold(self.path, at=100_000)
        answer = self.proxy.ask(self.blob)
        self.upstream.release(self.path)
        return answer

    def test_places(self) -> None:
        """Relays wait for places as fills do."""
        answers = [self.ask() for _ in range(2)]
        taken: list[Deferred[None]] = [self.places.acquire(0) for _ in range(4)]
        self.proxy.settle()
        self.assertFalse(any(answer.complete for answer in answers))
        self.assertEqual(self.ranges().count("bytes=100000-"), 0)
        for _ in taken:
            self.places.release()
        self.proxy.settle()
        for answer in answers:
            self.assert_whole(answer)
        self.assertEqual(self.places.held, 0)

    def test_no_ranges(self) -> None:
        """From a registry without ranges the whole is taken, and what was sent is left out."""
        for flip in (None, SIZE - 10, 10):
            self.upstream.script(Fault())
            self.upstream.script(Fault(ignore_range=True, flip=flip))
            answer = self.ask()
            self.proxy.settle()
            if flip == SIZE - 10:
                self.assert_cut(answer)
            else:
                self.assert_whole(answer)
            self.assertEqual(self.places.held, 0)
            self.upstream.heal()

    def test_unread(self) -> None:
        """What was delivered and cannot be hashed is never completed, right or wrong."""

        async def unreadable(_: Follower) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(Follower, "finish", unreadable)
        for flip in (None, 10):
            self.upstream.script(Fault(flip=flip))
            answer = self.ask()
            self.proxy.settle()
            self.assert_cut(answer)
            self.assertEqual(self.places.held, 0)
            self.upstream.heal()

    def test_nothing(self) -> None:
        """No bytes are no blob, whatever their status."""

        def create_part(_: Digest) -> Part:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(self.proxy.store, "create_part", create_part)
        self.upstream.script(Fault(body=b""))
        answer = self.proxy.ask(self.blob)
        self.assertEqual((answer.status, self.places.held), (502, 0))

    def test_not_modified(self) -> None:
        """A client that has the blob gets 304 here, too, once upstream says that it may."""

        def create_part(_: Digest) -> Part:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(self.proxy.store, "create_part", create_part)
        for etag in (f'"{self.digest}"', "*"):
            answer = self.proxy.ask(self.blob, {"If-None-Match": etag, "Range": "bytes=5-9"})
            self.assertEqual((answer.status, answer.body, answer.complete), (304, b"", True))
            missing = self.proxy.ask(
                f"/v2/{ALPINE}/blobs/sha256:{'0' * 64}", {"If-None-Match": etag}
            )
            self.assertEqual(missing.status, 404)
        self.assertEqual(self.places.held, 0)
        self.clock.pump([1.0] * 6)
        self.assertEqual(self.upstream.connections, 0)
