"""Bodies of requests: where they end, and how they flow."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.front.bodies import HELD_LIMIT, RequestBody
from regproxy.front.framing import ChunkedFraming, CountedFraming, Framing, MalformedBody
from regproxy.front.stall import ClientGone

SILENCE = 60.0


def cut_all(framing: Framing, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """What a framing makes of pieces: the body, and what is behind it, None before its end."""
    body = b""
    while pieces:
        piece, rest = framing.cut(pieces.pop(0))
        body += piece
        if rest is not None:
            return body, rest + b"".join(pieces)
    return body, None


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* in pieces."""
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(marks)]


class FramingTests(SynchronousTestCase):
    """The end of a body, however the bytes arrive."""

    @given(st.binary(min_size=1), st.binary(), st.lists(st.integers(0, 300)))
    def test_counted(self, body: bytes, behind: bytes, cuts: list[int]) -> None:
        """A length is kept to, and what follows is left alone."""
        found = cut_all(CountedFraming(len(body)), split(body + behind, cuts))
        self.assertEqual(found, (body, behind))

    @given(
        st.lists(st.binary(min_size=1, max_size=40)),
        st.sampled_from([b"", b";x", b'; a="b"']),
        st.sampled_from([b"", b"X: y\r\n", b"A: b\r\nHost: c\r\n"]),
        st.binary(),
        st.lists(st.integers(0, 300)),
    )
    def test_chunked(
        self, chunks: list[bytes], extension: bytes, trailers: bytes, behind: bytes, cuts: list[int]
    ) -> None:
        """Chunks are joined; extensions and trailers are dropped."""
        data = b"".join(b"%X%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks)
        data += b"0" + extension + b"\r\n" + trailers + b"\r\n"
        found = cut_all(ChunkedFraming(), split(data + behind, cuts))
        self.assertEqual(found, (b"".join(chunks), behind))

    def test_unfinished(self) -> None:
        """A body without its end has none, even when all of its data is there."""
        for data in (b"1\r\nx\r\n", b"1\r\nx\r\n0\r\n", b"1\r\nx\r\n0\r\nA: b\r\n", b"1\r\nx"):
            self.assertEqual(ChunkedFraming().cut(data), (b"x", None))

    def test_malformed(self) -> None:
        """What parsers may read in two ways is refused, however it arrives."""
        for data in (
            b"1\nx\r\n0\r\n\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1\r\nx\r\n0\n\n",
            b"1\r\nx\r\n0\r\nA: b\n\r\n",
            b"1\r\nxy\r\n0\r\n\r\n",
            b"-1\r\n\r\n",
            b"+1\r\nx\r\n",
            b"0x1\r\nx\r\n",
            b"1_0\r\n",
            b" 1\r\nx\r\n",
            b"1 ;a\r\nx\r\n",
            b"\r\n",
            b"1;a\rb\r\nx\r\n",
            b"1;a\x00\r\nx\r\n",
            b"1" + b"0" * 15 + b"\r\n",
            b"1;" + b"a" * 2000,
            b"1;" + b"a" * 2000 + b"\r\n",
            b"0\r\n" + b"X: " + b"a" * 2000 + b"\r\n",
            b"0\r\n" + b"X: y\r\n" * 5000,
        ):
            for pieces in ([data], split(data, list(range(len(data)))[:1500])):
                with self.assertRaises(MalformedBody, msg=data[:60]):
                    cut_all(ChunkedFraming(), pieces)

    @given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
    def test_anything(self, data: bytes, cuts: list[int]) -> None:
        """Pieces make no difference: not to what is found, and not to what is refused."""

        def outcome(pieces: list[bytes]) -> object:
            try:
                return cut_all(ChunkedFraming(), pieces)
            except MalformedBody:
                return None

        self.assertEqual(outcome([data]), outcome(split(data, cuts)))


@implementer(IConsumer)
class Consumer:
    """Takes a body.

    Attributes:
        pieces: What was written.
        pause_at: Pauses after so many pieces.
    """

    def __init__(self, body: RequestBody, pause_at: int = -1) -> None:
        self.body = body
        self.pause_at = pause_at
        self.pieces: list[bytes] = []

    @property
    def taken(self) -> bytes:
        """All that was written."""
        return b"".join(self.pieces)

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See IConsumer."""

    def unregisterProducer(self) -> None:
        """See IConsumer."""

    def write(self, data: bytes) -> None:
        """See IConsumer."""
        self.pieces.append(data)
        if len(self.pieces) == self.pause_at:
            self.body.pauseProducing()


class RequestBodyTests(SynchronousTestCase):
    """A body between a transport and a consumer."""

    def setUp(self) -> None:
        """Has a body of 200,000 bytes of which nothing has come."""
        self.clock = Clock()
        self.transport = StringTransport()
        self.body = self.make(200_000)

    def make(self, length: int | None, *, awaited: bool = False) -> RequestBody:
        """A body on the transport."""
        return RequestBody(self.transport, self.clock, length, SILENCE, awaited=awaited)

    def send(self, data: bytes) -> bytes | None:
        """Lets the client send something; what is behind the end of the body."""
        self.assertEqual(self.transport.producerState, "producing")
        piece, rest = self.body.cut(data)
        self.body.arrived(piece)
        return rest

    def start(self, pause_at: int = -1) -> tuple[Consumer, Deferred[None]]:
        """Starts production."""
        consumer = Consumer(self.body, pause_at)
        return consumer, self.body.startProducing(consumer)

    def assert_over(self) -> None:
        """Asserts that nothing is left to run."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_interface(self) -> None:
        """It is what Twisted's agents and treq take as a body."""
        verifyObject(IBodyProducer, self.body)
        self.assertEqual(self.body.length, 200_000)
        self.assertEqual(self.make(None).length, UNKNOWN_LENGTH)

    def test_flows(self) -> None:
        """What arrives goes to the consumer at once; the Deferred fires with the last of it."""
        consumer, done = self.start()
        for _ in range(4):
            self.assertNoResult(done)
            self.send(b"x" * 50_000)
            self.assertEqual(len(consumer.taken), self.body.received)
        self.assertIsNone(self.successResultOf(done))
        self.assertTrue(self.body.complete)
        self.assert_over()

    def test_held_until_started(self) -> None:
        """Nobody has started: 64 KiB are kept, then the client is not read."""
        self.send(b"a" * (HELD_LIMIT - 1))
        self.assertEqual(self.transport.producerState, "producing")
        self.send(b"b" * 10_000)
        self.assertEqual(self.transport.producerState, "paused")
        consumer, done = self.start()
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(consumer.taken, b"a" * (HELD_LIMIT - 1) + b"b" * 10_000)
        self.send(b"c" * (200_000 - self.body.received))
        self.successResultOf(done)

    def test_complete_before_started(self) -> None:
        """A small body that is all there is handed on in the call."""
        self.body = self.make(3)
        self.assertEqual(self.send(b"abcGET"), b"GET")
        consumer, done = self.start()
        self.successResultOf(done)
        self.assertEqual(consumer.taken, b"abc")
        self.assert_over()

    def test_paused(self) -> None:
        """A consumer that pauses pauses the client's transport; what was on its way is kept."""
        consumer, done = self.start(pause_at=1)
        self.send(b"a" * 1000)
        self.assertEqual(self.transport.producerState, "paused")
        # TLS delivers what it had read, paused or not.
        self.body.arrived(self.body.cut(b"b" * 1000)[0])
        self.assertEqual(len(consumer.taken), 1000)
        self.body.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.assertEqual(consumer.taken, b"a" * 1000 + b"b" * 1000)
        self.assertNoResult(done)

    def test_end_while_paused(self) -> None:
        """The end that came behind a pause waits for the consumer; reading is not held up."""
        self.body = self.make(None)
        consumer, done = self.start(pause_at=1)
        self.send(b"1\r\na\r\n")
        piece, rest = self.body.cut(b"1\r\nb\r\n0\r\n\r\nGET")
        self.body.arrived(piece)
        self.assertEqual((rest, self.transport.producerState), (b"GET", "producing"))
        self.assertNoResult(done)
        self.body.resumeProducing()
        self.assertEqual(consumer.taken, b"ab")
        self.successResultOf(done)
        self.assert_over()

    def test_paused_before_started(self) -> None:
        """A consumer that is full from the start gets nothing until it says so."""
        self.send(b"abc")
        self.body.pauseProducing()
        consumer, _ = self.start()
        self.assertEqual(consumer.pieces, [])
        self.body.resumeProducing()
        self.assertEqual(consumer.taken, b"abc")

    def test_paused_by_what_was_held(self) -> None:
        """A consumer may pause in the middle of starting."""
        self.send(b"abc")
        self.start(pause_at=1)
        self.assertEqual(self.transport.producerState, "paused")
        self.assert_over()

    def test_continue(self) -> None:
        """A client that waits is told to go on when production starts, and not before."""
        self.body = self.make(5, awaited=True)
        self.assertEqual(self.transport.value(), b"")
        self.start()
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")

    def test_no_continue(self) -> None:
        """One that has sent something is not told, nor one whose answer has begun."""
        self.body = self.make(5, awaited=True)
        self.send(b"a")
        self.start()
        self.body = self.make(5, awaited=True)
        self.body.answered()
        self.start()
        self.assertEqual(self.transport.value(), b"")

    def test_stopped(self) -> None:
        """A consumer that has enough gets no more; the rest is read and thrown away."""
        consumer, done = self.start(pause_at=1)
        self.send(b"a" * 70_000)
        self.body.stopProducing()
        self.send(b"a" * 70_000)
        self.send(b"a" * 60_000)
        self.assertEqual(len(consumer.taken), 70_000)
        self.assertEqual((self.body.received, self.body.complete), (200_000, True))
        self.assertNoResult(done)
        self.assert_over()

    def test_stopped_before_started(self) -> None:
        """As of a consumer whose own connection is gone before it begins."""
        self.body.stopProducing()
        consumer, done = self.start()
        self.send(b"a" * 100_000)
        self.assertEqual(consumer.pieces, [])
        self.assertNoResult(done)

    def test_cancelled(self) -> None:
        """To cancel the Deferred is to stop."""
        consumer, done = self.start()
        done.cancel()
        self.send(b"abc")
        self.assertEqual(consumer.pieces, [])
        self.failureResultOf(done)
        self.assert_over()

    def test_failed(self) -> None:
        """The consumer learns that the rest will not come, once."""
        _, done = self.start()
        self.send(b"abc")
        self.body.failed("client left")
        self.body.failed("again")
        failure = self.failureResultOf(done, ClientGone)
        self.assertEqual(str(failure.value), "client left")
        self.assertIs(self.body.failure, failure.value)
        self.assert_over()

    def test_failed_before_started(self) -> None:
        """Also one that begins only then."""
        self.body.failed("client left")
        _, done = self.start()
        self.failureResultOf(done, ClientGone)

    def test_complete_does_not_fail(self) -> None:
        """What is all there can still be handed on when the client has left."""
        self.body = self.make(3)
        self.send(b"abc")
        self.body.failed("client left")
        consumer, done = self.start()
        self.successResultOf(done)
        self.assertEqual(consumer.taken, b"abc")

    def test_once(self) -> None:
        """What was handed on is gone: there is no second start."""
        self.start()
        self.assertRaises(RuntimeError, self.start)

    def test_silence(self) -> None:
        """A client that sends nothing while it is listened to is hung up on."""
        _, done = self.start()
        self.clock.advance(50)
        self.send(b"a" * 2000)
        self.clock.advance(59)
        self.assertNoResult(done)
        self.clock.advance(1)
        failure = self.failureResultOf(done, ClientGone)
        self.assertIn("60 s", str(failure.value))
        self.assertTrue(self.transport.disconnected)
        self.assert_over()

    def test_drip(self) -> None:
        """A byte now and then is silence, too."""
        _, done = self.start()
        for _ in range(59):
            self.clock.advance(1)
            self.send(b"a")
        self.assertNoResult(done)
        self.clock.advance(1)
        self.failureResultOf(done, ClientGone)

    def test_no_deadline_while_paused(self) -> None:
        """A client is not blamed for what the consumer holds up, nor before anyone listens."""
        self.clock.advance(1000)
        _, done = self.start()
        self.body.pauseProducing()
        self.clock.advance(1000)
        self.body.resumeProducing()
        self.clock.advance(59)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.failureResultOf(done, ClientGone)
