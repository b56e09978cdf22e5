"""Tests for regproxy.cache.fills, against a registry in memory."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError
from twisted.logger import capturedLogs

from regproxy.cache.content import ContentFailed
from regproxy.cache.fill import DigestMismatch, Fill, StoreTrouble
from regproxy.cache.fills import PATIENCE, Fills, RegistrySource
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError
from regproxy.testing import Fault, Framing, HeldWorker
from tests.cache.case import DATA, DIGEST, FaultyWorker
from tests.cache.filling import Reader
from tests.cache.upstreams import ORIGIN, REPOSITORY, RegistryCase

SIZE = len(DATA)
BLOB = f"/blobs/{DIGEST}"
OTHER = "other.test"


class FillsCase(RegistryCase):
    """A registry that has `DATA`."""

    def setUp(self) -> None:
        """No fill runs."""
        super().setUp()
        self.agent.add_blob(ORIGIN, REPOSITORY, DATA)
        self.hashing = FaultyWorker()
        self.stored_blobs: list[tuple[Digest, int]] = []
        self.fills = Fills(
            self.store,
            self.clock,
            self.disk,
            self.hashing,
            60.0,
            lambda digest, size: self.stored_blobs.append((digest, size)),
        )

    def join(self, source: RegistrySource | None = None, *, first: bool = True) -> Fill:
        """Joins the fill."""
        fill, is_first = self.fills.join(DIGEST, source or self.source)
        self.assertEqual(is_first, first)
        return fill

    def pull(self, source: RegistrySource | None = None) -> Reader:
        """Reads the blob as far as it comes."""
        fill = self.join(source)
        self.pass_time()
        return Reader(fill)

    def pass_time(self, seconds: float = 1.0) -> None:
        """Lets time pass in steps."""
        self.clock.pump([0.05] * int(seconds * 20))

    def mismatch(self, source: RegistrySource | None = None) -> None:
        """Pulls wrong bytes."""
        reader = self.pull(source)
        assert reader.failure is not None
        self.assertTrue(reader.failure.check(DigestMismatch))


class JoinTests(FillsCase):
    """One fill for each digest."""

    def test_miss(self) -> None:
        """A fill brings the blob, and its size is told once it is kept."""
        reader = self.pull()
        self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.assertEqual(self.stored(DIGEST), DATA)
        self.assertEqual(self.stored_blobs, [(DIGEST, SIZE)])
        self.assertEqual((len(self.fills), self.fills.running(DIGEST)), (0, False))
        self.assertEqual(self.agent.connections, 0)
        self.assertEqual(self.upstream.transfers.held, 0)

    def test_join(self) -> None:
        """Everyone who comes while it runs reads the same fill."""
        self.agent.hold(BLOB, at=100)
        first = self.join()
        self.pass_time(0.1)
        joiners = [self.join(first=False) for _ in range(20)]
        self.assertTrue(self.fills.running(DIGEST))
        readers = [Reader(fill) for fill in (first, *joiners)]
        self.assertEqual({len(reader.data) for reader in readers}, {100})
        self.agent.release(BLOB)
        self.pass_time()
        for reader in readers:
            self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.assertEqual(self.agent.count("GET"), 1)

    def test_second_registry(self) -> None:
        """A joiner through another registry shares the transfer, and can save it."""
        self.agent.add_blob(f"https://{OTHER}", REPOSITORY, DATA)
        self.agent.script(Fault(cut_at=5000), BLOB)
        self.agent.hold(BLOB, at=4000)
        first = self.join()
        self.pass_time(0.1)
        second = self.join(RegistrySource(self.registry(OTHER), REPOSITORY), first=False)
        self.assertEqual(self.agent.count("GET"), 1)
        self.agent.remove_digest(ORIGIN, REPOSITORY, DIGEST)
        self.agent.release(BLOB)
        self.pass_time()
        for fill in (first, second):
            reader = Reader(fill)
            self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.assertEqual(
            [request.header("Range") for request in self.agent.requests],
            [None, "bytes=5000-", "bytes=5000-"],
        )

    def test_everyone_leaves(self) -> None:
        """A fill that nobody reads any more comes to its end, and closes its file."""
        self.agent.hold(BLOB, at=100)
        fill = self.join()
        self.pass_time(0.1)
        fill.close()
        self.agent.release(BLOB)
        self.pass_time()
        self.assertEqual(self.stored(DIGEST), DATA)

    def test_refused(self) -> None:
        """What the registry says is what who waits is told; the next one asks again."""
        self.agent.remove_digest(ORIGIN, REPOSITORY, DIGEST)
        fill = self.join()
        waiting = fill.started()
        self.clock.advance(0)
        self.assertEqual(self.error(waiting, 404).code, "BLOB_UNKNOWN")
        fill.close()
        self.agent.add_blob(ORIGIN, REPOSITORY, DATA)
        self.assertTrue(self.pull().ended)

    def test_down(self) -> None:
        """A registry that cannot be reached is an error of its own, and no mismatch."""
        self.agent.script(Fault(connect_failure=ConnectionRefusedError()), BLOB, times=3)
        for _ in range(3):
            fill = self.join()
            self.clock.advance(0)
            self.error(fill.started(), 502)
            fill.close()
        self.assertTrue(self.pull().ended)

    def test_busy_registry(self) -> None:
        """A fill waits for a place at its registry, but not for long."""
        for _ in range(2):
            self.upstream.transfers.acquire(0)
        fill = self.join()
        self.pass_time(PATIENCE - 1)
        self.assertEqual(self.agent.requests, [])
        self.pass_time(2)
        reader = Reader(fill)
        self.assertTrue(reader.ended)


class ResumeTests(FillsCase):
    """Cut transfers, as a registry mends them."""

    def cut(self, then: Fault) -> Reader:
        """A transfer that is cut, and what is answered to its resumes."""
        self.agent.script(Fault(cut_at=4000), BLOB)
        self.agent.script(then, BLOB, times=None)
        fill = self.join()
        self.pass_time(30)
        return Reader(fill)

    def fails(self, reader: Reader, kind: type[Exception] = ContentFailed) -> None:
        """Checks that nothing came of it."""
        assert reader.failure is not None
        self.assertTrue(reader.failure.check(kind))
        self.assertFalse(reader.ended)
        self.assertIsNone(self.stored(DIGEST))
        self.assertEqual((self.parts(), len(self.fills)), ([], 0))
        self.assertEqual(self.agent.connections, 0)
        self.assertEqual(self.upstream.transfers.held, 0)

    def test_mended(self) -> None:
        """The rest is asked for, and joined to what is there."""
        reader = self.cut(Fault())
        self.assertEqual((reader.data, reader.ended), (DATA, True))
        self.assertEqual(self.agent.requests[1].header("Range"), "bytes=4000-")

    def test_wrong_range(self) -> None:
        """Another part than was asked for is not taken."""
        for said in (f"bytes 4001-{SIZE - 1}/{SIZE}", f"bytes 4000-5000/{SIZE}", "words 1", None):
            self.agent.heal()
            self.fails(self.cut(Fault(headers={"Content-Range": said})))

    def test_whole_again(self) -> None:
        """A registry that knows no ranges cannot mend a transfer."""
        self.fails(self.cut(Fault(ignore_range=True)))

    def test_wrong_rest(self) -> None:
        """A rest with a wrong byte is a mismatch."""
        self.fails(self.cut(Fault(flip=9000)), DigestMismatch)

    def test_no_length(self) -> None:
        """A chunked body is filled too, but a cut one cannot be told from another blob's end."""
        self.agent.script(Fault(framing=Framing.CHUNKED), BLOB)
        self.assertTrue(self.pull().ended)
        self.store.set_aside(DIGEST)
        self.agent.script(Fault(framing=Framing.CHUNKED, cut_at=4000), BLOB)
        self.fails(self.pull())

    def test_length_lies(self) -> None:
        """A length that is no truth never makes a blob."""
        self.agent.script(Fault(content_length=SIZE - 5), BLOB)
        self.fails(self.pull(), DigestMismatch)
        self.agent.script(Fault(content_length=SIZE + 5), BLOB, times=None)
        fill = self.join()
        self.pass_time(40)
        self.fails(Reader(fill))


class MismatchTests(FillsCase):
    """Sources that send wrong bytes."""

    def setUp(self) -> None:
        """A registry that lies from now on, and one that does not."""
        super().setUp()
        self.agent.script(Fault(flip=5000), BLOB, times=None)
        self.agent.add_blob(f"https://{OTHER}", REPOSITORY, DATA)
        self.other = RegistrySource(self.registry(OTHER), REPOSITORY)

    def refused(self) -> RegistryError:
        """The error with which the source is refused."""
        error: RegistryError = self.assertRaises(RegistryError, self.join)
        return error

    def test_twice(self) -> None:
        """After two mismatches a source is not asked for a minute."""
        self.mismatch()
        self.mismatch()
        error = self.refused()
        self.assertEqual(error.status, 502)
        self.assertIn(str(DIGEST), error.message)
        self.pass_time(58)
        self.refused()
        self.assertEqual(self.agent.count("GET"), 2)
        self.pass_time(2)
        self.mismatch()
        self.mismatch()
        self.refused()

    def test_once(self) -> None:
        """One mismatch is forgotten with the next success, or in a minute."""
        self.mismatch()
        self.agent.heal()
        self.assertTrue(self.pull().ended)
        self.store.set_aside(DIGEST)
        self.agent.script(Fault(flip=5000), BLOB, times=None)
        self.mismatch()
        self.pass_time(61)
        self.mismatch()
        self.mismatch()
        self.refused()

    def test_others(self) -> None:
        """Other digests and other repositories are not concerned."""
        self.mismatch()
        self.mismatch()
        self.agent.heal()
        other = self.agent.add_blob(ORIGIN, REPOSITORY, b"other")
        fill, _ = self.fills.join(other, self.source)
        self.pass_time()
        self.assertTrue(Reader(fill).ended)
        self.assertTrue(self.pull(self.other).ended)

    def test_joiner_is_innocent(self) -> None:
        """A source that joined and was never asked has sent nothing wrong."""
        self.agent.hold(BLOB, at=100)
        for _ in range(2):
            fill = self.join()
            self.pass_time(0.1)
            joined = self.join(self.other, first=False)
            self.agent.release(BLOB)
            self.pass_time()
            for each in (fill, joined):
                self.assertIsNotNone(Reader(each).failure)
            self.agent.hold(BLOB, at=100)
        self.agent.release(BLOB)
        self.refused()
        self.agent.heal()
        self.assertTrue(self.pull(self.other).ended)

    def test_joins_but_is_not_asked(self) -> None:
        """A source that is not trusted may read what another one brings, and brings nothing."""
        self.mismatch()
        self.mismatch()
        self.agent.heal()
        self.agent.script(Fault(cut_at=4000), BLOB)
        fill = self.join(self.other)
        self.pass_time(0.1)
        joined = self.join(first=False)
        before = len(self.agent.requests)
        self.agent.script(Fault(status=503), BLOB)
        self.pass_time(3)
        for each in (fill, joined):
            self.assertTrue(Reader(each).ended)
        for request in self.agent.requests[before:]:
            self.assertIn(OTHER, request.url)

    def test_joiner_after_the_verdict(self) -> None:
        """While a failed fill puts its part away, who comes starts another that waits for it."""
        held = HeldWorker()
        self.fills = Fills(self.store, self.clock, held, self.hashing, 60.0, lambda *_: None)
        first = self.join()
        for _ in range(100):
            if first.failed:
                break
            if held.held:
                held.run_next()
            self.clock.advance(0.05)
        self.assertEqual(len(self.parts()), 2)
        reader = Reader(first)
        self.assertIsNotNone(reader.failure)
        self.assertFalse(self.fills.running(DIGEST))
        self.agent.heal()
        second, third = self.join(), self.join(first=False)
        self.assertIs(second, third)
        self.pass_time()
        self.assertEqual(self.agent.count("GET"), 1)
        for _ in range(10):
            held.run_all()
            self.pass_time(0.1)
        for each in (second, third):
            self.assertTrue(Reader(each).ended)
        self.assertEqual((len(self.fills), self.agent.count("GET")), (0, 2))

    def test_logged(self) -> None:
        """The log has both digests and who sent the wrong one."""
        with capturedLogs() as events:
            self.mismatch()
        (event,) = events
        text = event["log_format"].format(**event)
        actual = Digest.of(DATA[:5000] + bytes([DATA[5000] ^ 1]) + DATA[5001:])
        for part in (str(DIGEST), str(actual), self.source.name):
            self.assertIn(part, text)


class TroubleTests(FillsCase):
    """Disks that fail under a fill."""

    def test_said_once(self) -> None:
        """Each kind of trouble is one line in the log, and the next fill is a new try."""
        for broken in ("create_part", "write", "hash_pieces", "commit"):
            self.disk.broken = self.hashing.broken = {broken}
            with capturedLogs() as events:
                fill = self.join()
                self.pass_time()
                fill.wait(0).addErrback(lambda failure: failure.trap(StoreTrouble))
                fill.close()
            levels = [event["log_level"].name for event in events]
            self.assertEqual(levels, ["error"], broken)
            self.assertEqual(self.parts(), [])
            self.assertEqual(self.stored_blobs, [])
            self.assertEqual(self.agent.connections, 0)
        self.disk.broken = self.hashing.broken = set()
        self.assertTrue(self.pull().ended)

    def test_commits_apart(self) -> None:
        """What waits for fsync is in nobody's way."""
        commits = FaultyWorker()
        self.fills = Fills(
            self.store, self.clock, self.disk, self.hashing, 60.0, lambda *_: None, commits
        )
        self.assertTrue(self.pull().ended)
        self.assertEqual(commits.ran, ["commit"])
        self.assertNotIn("commit", self.disk.ran)

    def test_bug(self) -> None:
        """A fill that breaks for no known reason fails its readers and says so."""
        self.disk.broken_with = ZeroDivisionError()
        self.disk.broken = {"write"}
        fill = self.join()
        self.pass_time()
        self.failureResultOf(fill.wait(0), ZeroDivisionError)
        fill.close()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.parts(), len(self.fills)), ([], 0))
