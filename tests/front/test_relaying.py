"""Going on without the cache: a disk that fails is nothing that a pull notices."""

from __future__ import annotations

import errno

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.content import ContentFailed
from regproxy.cache.store import Part
from regproxy.front.relaying import Check, Relay
from regproxy.front.stall import ClientGone
from regproxy.model.digest import Digest
from regproxy.testing import Fault, Framing
from regproxy.upstream.transfer import Transfer
from tests.front.proxy import ALPINE, DATA, ProxyCase

SIZE = len(DATA)
FULL = OSError(errno.ENOSPC, "No space left on device")


class DiskTroubleTests(ProxyCase):
    """A cache directory that takes nothing, or nothing more."""

    def fail_creation(self) -> None:
        """Lets no part be made."""

        def create_part(_: Digest) -> Part:
            raise FULL

        self.patch(self.proxy.store, "create_part", create_part)

    def fail_writes(self, after: int) -> None:
        """Lets writes fail from an offset on."""
        write = Part.write

        def failing(part: Part, offset: int, pieces: list[bytes]) -> int:
            if offset >= after:
                raise FULL
            return write(part, offset, pieces)

        self.patch(Part, "write", failing)

    def test_no_part(self) -> None:
        """Without a place to put it a blob is relayed, range and HEAD too."""
        self.fail_creation()
        answer = self.proxy.ask(self.blob)
        self.assert_whole(answer)
        self.assertEqual(answer.header("Cache-Status"), "regproxy; fwd=bypass")
        self.assertEqual(answer.header("Content-Length"), str(SIZE))
        part = self.proxy.ask(self.blob, {"Range": "bytes=100-199"})
        self.assert_whole(part, DATA[100:200], 206)
        self.assert_whole(self.proxy.ask(self.blob, {"Range": "bytes=-9"}), DATA[-9:], 206)
        self.assert_error(
            self.proxy.ask(self.blob, {"Range": f"bytes={SIZE}-"}), 416, "RANGE_INVALID"
        )
        self.assertEqual(self.proxy.head(self.blob).status, 200)
        self.assertEqual(self.upstream.connections, 0)
        self.assertEqual(self.proxy.lines[0]["cache"], "RELAY")

    def test_no_part_and_not_there(self) -> None:
        """What upstream says of a blob is passed on, with or without a disk."""
        self.fail_creation()
        target = f"/v2/{ALPINE}/blobs/sha256:{'0' * 64}"
        self.assert_error(self.proxy.ask(target), 404, "BLOB_UNKNOWN")

    def test_full_in_the_middle(self) -> None:
        """A disk that fills up in mid-fill costs nobody a byte, joiners and ranges included."""
        self.fail_writes(after=100_000)
        self.upstream.hold(self.path, at=100_000)
        answers = [self.proxy.ask(self.blob), self.proxy.ask(self.blob)]
        inner = self.proxy.ask(self.blob, {"Range": "bytes=90000-109999"})
        outer = self.proxy.ask(self.blob, {"Range": "bytes=200000-"})
        self.upstream.release(self.path)
        self.proxy.settle()
        for answer in answers:
            self.assert_whole(answer)
        self.assert_whole(inner, DATA[90_000:110_000], 206)
        self.assert_whole(outer, DATA[200_000:], 206)
        ranges = [r.header("Range") for r in self.upstream.find("GET", self.path)]
        self.assertEqual(ranges, [None] + ["bytes=100000-"] * 4)
        self.assertFalse(self.proxy.store.holds(self.digest))
        self.assertEqual({line["cache"] for line in self.proxy.lines}, {"RELAY"})
        self.assertEqual(self.proxy.lines[-1]["status"][:2], "20")
        self.assertEqual(self.upstream.connections, 0)

    def test_full_and_wrong(self) -> None:
        """Without the disk the digest still decides: the last byte is held back."""
        for creation in (False, True):
            if creation:
                self.fail_creation()
            else:
                self.fail_writes(after=100_000)
            self.upstream.script(Fault(flip=SIZE - 10), times=8)
            for headers in ({}, {"Range": "bytes=-5"}):
                self.upstream.hold(self.path, at=100_000)
                answer = self.proxy.ask(self.blob, headers)
                self.upstream.release(self.path)
                self.proxy.settle()
                self.assert_cut(answer)
            self.upstream.heal()

    def test_unknown_size(self) -> None:
        """The same where upstream never said how long the blob is; a 200 stays the whole."""
        self.fail_writes(after=100_000)
        for headers in ({}, {"Range": "bytes=5-9"}):
            self.upstream.script(Fault(framing=Framing.CHUNKED))
            self.upstream.hold(self.path, at=100_000)
            answer = self.proxy.ask(self.blob, headers)
            self.upstream.release(self.path)
            self.proxy.settle()
            self.assert_whole(answer)

    def test_upstream_gone_as_well(self) -> None:
        """With neither disk nor upstream the answer is cut."""
        self.fail_writes(after=100_000)
        self.upstream.hold(self.path, at=100_000)
        answer = self.proxy.ask(self.blob)
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()), times=None)
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_cut(answer)

    def test_not_kept(self) -> None:
        """A blob that cannot get its name has been served all the same."""

        def commit(_: Part) -> None:
            raise FULL

        self.patch(Part, "commit", commit)
        self.assert_whole(self.proxy.ask(self.blob))
        self.assertFalse(self.proxy.store.holds(self.digest))
        self.assert_whole(self.proxy.ask(self.blob))
        self.assertEqual(self.upstream.count("GET"), 2)

    def test_client_leaves(self) -> None:
        """A client that left before its relay began holds no connection upstream."""
        self.fail_creation()
        self.upstream.hold(self.path)
        for headers in ({}, {"Authorization": "Bearer mine"}):
            client = self.proxy.client()
            client.request("GET", self.blob, headers)
            self.proxy.settle()
            client.drop()
        self.upstream.release(self.path)
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.upstream.connections, 0)

    def test_manifests(self) -> None:
        """Manifests are served without a disk, and again from memory."""
        self.fail_creation()
        _, data = self.proxy.add_manifest(b"layer")
        for word in ("MISS", "HIT"):
            self.assert_whole(self.proxy.ask(f"/v2/{ALPINE}/manifests/latest"), data)
            self.assertEqual(self.proxy.lines[-1]["cache"], word)
        self.assertEqual(self.upstream.count("GET"), 1)


class Upstream:
    """An answer and its connection.

    Attributes:
        stopped: Whether the connection was given up.
    """

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.stopped = False
        self.paused = False
        self.transfer: Transfer | None = None

    def deliver(self, transfer: Transfer) -> None:
        """See Answer."""
        self.transfer = transfer
        transfer.makeConnection(self)

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self.stopped = True

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.paused = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.paused = False


class Request:
    """What a relay writes to."""

    transport = None

    def __init__(self) -> None:
        self.body = b""
        self.producer: object = None

    def write(self, data: bytes) -> None:
        """Keeps it."""
        self.body += data

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Keeps it."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """Forgets it."""
        self.producer = None


class RelayTests(SynchronousTestCase):
    """One relay by itself."""

    def setUp(self) -> None:
        """Makes the ends."""
        self.clock = Clock()
        self.request = Request()

    def relay(self, upstream: Upstream, **options: object) -> Relay:
        """A relay from *upstream* to the request."""
        return Relay(
            upstream,  # type: ignore[arg-type]
            self.request,
            self.clock,
            silence=60.0,
            stall=60.0,
            **options,  # type: ignore[arg-type]
        )

    def test_connection_is_kept(self) -> None:
        """At the end of upstream's answer its connection is left to be used again."""
        for window in ((0, None), (0, 10), (4, 10)):
            upstream = Upstream(10)
            relay = self.relay(upstream, window=window)
            done = relay.deliver()
            assert upstream.transfer is not None
            upstream.transfer.dataReceived(b"0123456789")
            self.assertFalse(upstream.stopped)
            upstream.transfer.connectionLost(_done())
            self.successResultOf(done)
            self.assertIsNone(self.request.producer)
        self.assertEqual(self.request.body, b"0123456789" * 2 + b"456789")

    def test_range_ends_early(self) -> None:
        """What comes behind a range is not waited for."""
        upstream = Upstream(None)
        done = self.relay(upstream, offset=100, window=(102, 104)).deliver()
        assert upstream.transfer is not None
        upstream.transfer.dataReceived(b"abc")
        upstream.transfer.dataReceived(b"defgh")
        self.successResultOf(done)
        self.assertEqual(self.request.body, b"cd")
        self.assertTrue(upstream.stopped)

    def test_carried_hash(self) -> None:
        """A check goes on from the hash of what came before."""
        data = b"0123456789"
        for wrong in (False, True):
            self.request.body = b""
            hasher = Digest.of(data).hasher()
            hasher.update(b"xyz" if wrong else b"012")
            upstream = Upstream(7)
            check = Check(Digest.of(data), hasher, 10)
            done = self.relay(upstream, offset=3, window=(3, 10), check=check).deliver()
            assert upstream.transfer is not None
            upstream.transfer.dataReceived(data[3:])
            self.assertEqual(self.request.body, data[3:-1])
            upstream.transfer.connectionLost(_done())
            if wrong:
                self.failureResultOf(done, ContentFailed)
            else:
                self.successResultOf(done)
            self.assertEqual(self.request.body, data[3:-1] if wrong else data[3:])

    def test_too_much(self) -> None:
        """More than was announced is refused before it is sent."""
        data = b"0123456789"
        check = Check(Digest.of(data), Digest.of(data).hasher(), 10)
        upstream = Upstream(None)
        done = self.relay(upstream, check=check).deliver()
        assert upstream.transfer is not None
        upstream.transfer.dataReceived(data + b"!")
        self.failureResultOf(done, ContentFailed)
        self.assertTrue(upstream.stopped)
        self.assertEqual(self.request.body, b"")

    def test_pace(self) -> None:
        """Upstream is read as the client reads; one that stalls is hung up on."""
        upstream = Upstream(None)
        relay = self.relay(upstream)
        done = relay.deliver()
        relay.pauseProducing()
        self.assertTrue(upstream.paused)
        relay.resumeProducing()
        self.assertFalse(upstream.paused)
        relay.pauseProducing()
        self.clock.pump([30.0] * 5)
        self.failureResultOf(done, ClientGone)
        self.assertTrue(upstream.stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_client_leaves(self) -> None:
        """A client that leaves takes upstream's connection with it."""
        upstream = Upstream(None)
        relay = self.relay(upstream)
        done = relay.deliver()
        relay.stopProducing()
        self.failureResultOf(done, ClientGone)
        self.assertTrue(upstream.stopped)


def _done() -> Failure:
    from twisted.web.client import ResponseDone

    return Failure(ResponseDone())
