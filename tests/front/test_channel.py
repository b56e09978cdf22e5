"""Requests with bodies, and connections that CONNECT hands over."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.bodies import RequestBody
from regproxy.front.channel import ClientChannel, ClientRequest
from regproxy.front.connections import Connections
from regproxy.front.limits import ClientLimits
from regproxy.front.site import LimitedSite
from regproxy.front.stall import ClientGone
from regproxy.model.errors import RegistryError, denied
from regproxy.model.hosts import HostPort
from regproxy.testing import MemoryClient
from tests.front.test_bodies import Consumer

LIMITS = ClientLimits(
    header_size=16 * 1024, request_headers=20.0, idle=75.0, write_stall=60.0, body_silence=30.0
)


class Entries(list[Entry]):
    """An access log that keeps its entries."""

    def add(self, entry: Entry) -> None:
        """See AccessLog."""
        self.append(entry)


class Taking(Resource):
    """Leaves every request to the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ClientRequest] = []
        self.gone: list[ClientRequest] = []

    def render(self, request: Any) -> int:
        """Takes note of the request, and of its end."""
        self.requests.append(request)
        request.notifyFinish().addErrback(lambda _: self.gone.append(request))
        return NOT_DONE_YET


class ChannelCase(SynchronousTestCase):
    """A site whose requests are in the test's hands, and one connection."""

    def setUp(self) -> None:
        """Connects."""
        self.clock = Clock()
        self.resource = Taking()
        self.log = Entries()
        self.connections = Connections(10)
        self.site = LimitedSite(
            self.resource, LIMITS, self.connections, cast(AccessLog, self.log), self.clock
        )
        self.client = self.connect()

    def connect(self) -> MemoryClient:
        """A client that has connected."""
        return MemoryClient(self.site, self.clock)

    def assert_gone(self) -> None:
        """Asserts that the connection is over, and nothing left to run."""
        self.assertTrue(self.client.disconnected)
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    # Requests with bodies

    def begin(
        self, length: int | None, *, method: str = "PATCH", more: dict[str, str] | None = None
    ) -> RequestBody:
        """Sends the head of a request; its body as the resource has it."""
        framing = (
            {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        )
        self.client.request(method, "/upload", {**framing, **(more or {})})
        body = self.resource.requests[-1].body
        assert body is not None
        return body

    def consume(self, body: RequestBody, pause_at: int = -1) -> tuple[Consumer, Deferred[None]]:
        """Starts production."""
        consumer = Consumer(body, pause_at)
        done = body.startProducing(consumer)
        self.client.pump()
        return consumer, done

    def finish(self, data: bytes = b"done", number: int = -1) -> None:
        """Ends the answer to a request."""
        request = self.resource.requests[number]
        request.setHeader("Content-Length", str(len(data)))
        request.write(data)
        request.finish()
        self.client.pump()


class BodyTests(ChannelCase):
    """What the resource sees of a body, and when."""

    def test_at_the_headers(self) -> None:
        """A request is there as soon as its headers are."""
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            self.client = self.connect()
            body = self.begin(600_000_000, method=method)
            self.assertEqual((body.length, body.received), (600_000_000, 0))
            self.assertEqual(self.connections.active, 1)
            self.client.drop()

    def test_none(self) -> None:
        """Without a length, and with one of 0, there is no body."""
        self.client.request("POST", "/")
        self.finish()
        self.client.request("POST", "/", body=b"")
        self.finish()
        self.assertEqual([request.body for request in self.resource.requests], [None, None])
        self.assertFalse(self.client.disconnected)

    def test_small(self) -> None:
        """A body that comes with its headers; the connection goes on, in order."""
        answer = self.client.request("PUT", "/", body=b"manifest")
        body = self.resource.requests[0].body
        assert body is not None
        consumer, done = self.consume(body)
        self.successResultOf(done)
        self.assertEqual(consumer.taken, b"manifest")
        self.finish()
        self.assertEqual((answer.body, answer.header("Connection")), (b"done", None))
        self.client.request("GET", "/next")
        self.assertEqual(self.resource.requests[1].uri, b"/next")

    def test_chunked(self) -> None:
        """A body in chunks, and the next request on its connection."""
        self.client.request("PATCH", "/", chunks=[b"one", b"two" * 1000])
        body = self.resource.requests[0].body
        assert body is not None
        consumer, done = self.consume(body)
        self.successResultOf(done)
        self.assertEqual(consumer.taken, b"one" + b"two" * 1000)
        self.finish()
        self.client.request("GET", "/next")
        self.assertEqual(len(self.resource.requests), 2)

    def test_nothing_is_kept(self) -> None:
        """What has been handed on is nowhere else; Twisted's own copy stays empty."""
        body = self.begin(2_000_000)
        self.consume(body)
        for _ in range(20):
            self.client.send(b"x" * 100_000)
        content = self.resource.requests[0].content
        assert content is not None
        self.assertEqual(content.read(), b"")
        self.assertTrue(body.complete)

    def test_back_pressure(self) -> None:
        """Nobody has started, or the consumer has paused: the client's socket is not read."""
        body = self.begin(1_000_000)
        for _ in range(5):
            self.client.send(b"x" * 50_000)
        self.assertFalse(self.client.transport.reading)
        self.assertEqual(body.received, 100_000)
        consumer, _ = self.consume(body, pause_at=3)
        self.assertEqual(len(consumer.taken), 200_000)
        self.assertFalse(self.client.transport.reading)
        body.resumeProducing()
        self.client.pump()
        self.assertTrue(self.client.transport.reading)
        self.assertEqual(body.received, 250_000)

    def test_full_answer_does_not_unpause(self) -> None:
        """That the client takes its answer does not make it heard while the consumer is full."""
        body = self.begin(1_000_000)
        self.consume(body, pause_at=1)
        self.client.send(b"x")
        self.client.reading = False
        self.resource.requests[0].write(b"y" * 200_000)
        self.client.pump()
        self.client.reading = True
        self.assertFalse(self.client.transport.reading)

    def test_continue(self) -> None:
        """The client is told to send when production starts."""
        body = self.begin(5, more={"Expect": "100-continue"})
        self.assertEqual(self.client.informational, [])
        self.consume(body)
        self.assertEqual(self.client.informational, [100])
        self.client.send(b"hello")
        self.finish()
        self.assertEqual(self.client.answers[0].body, b"done")

    def test_no_continue_in_an_answer(self) -> None:
        """Not in the middle of its answer, though."""
        body = self.begin(5, more={"Expect": "100-continue"})
        self.resource.requests[0].write(b"no")
        self.consume(body)
        self.assertEqual(self.client.informational, [])

    def test_malformed(self) -> None:
        """A broken chunk cuts the connection and fails the body."""
        body = self.begin(None)
        _, done = self.consume(body)
        self.client.send(b"3\r\nabc\r\nz\r\n")
        self.failureResultOf(done, ClientGone)
        self.assertTrue(self.client.aborted)
        self.assertEqual(self.resource.gone, self.resource.requests)
        self.assert_gone()

    def test_client_leaves(self) -> None:
        """A client that leaves in the middle fails the body; the request ends first."""
        body = self.begin(10)
        _, done = self.consume(body)
        order: list[str] = []
        self.resource.requests[0].notifyFinish().addErrback(lambda _: order.append("request"))
        done.addErrback(lambda _: order.append("body"))
        self.client.send(b"abc")
        self.client.drop()
        self.assertEqual(order, ["request", "body"])
        self.assertEqual(str(body.failure), "client left")
        self.assert_gone()

    def test_silence(self) -> None:
        """A client that falls silent in its body is hung up on, at the limit of the site."""
        _, done = self.consume(self.begin(10))
        self.clock.advance(29)
        self.assertFalse(self.client.disconnected)
        self.clock.advance(1)
        self.failureResultOf(done, ClientGone)
        self.assert_gone()

    def test_no_idle_timeout(self) -> None:
        """An upload that takes longer than connections may idle goes on; afterwards they may not.

        A request with a body may be the first of its connection.
        """
        _, done = self.consume(self.begin(200_000))
        for _ in range(10):
            self.clock.advance(20)
            self.client.send(b"x" * 20_000)
        self.successResultOf(done)
        self.clock.advance(200)
        self.finish()
        self.clock.advance(74)
        self.assertFalse(self.client.disconnected)
        self.clock.advance(1)
        self.assert_gone()


class EarlyAnswerTests(ChannelCase):
    """Answers that are there before the body is."""

    def test_refused(self) -> None:
        """The answer says that it is the last; what comes is thrown away for a while."""
        body = self.begin(1_000_000)
        self.client.send(b"x" * 100_000)
        self.assertFalse(self.client.transport.reading)
        self.finish()
        (answer,) = self.client.answers
        self.assertEqual((answer.body, answer.header("Connection")), (b"done", "close"))
        for _ in range(5):
            self.client.send(b"x" * 100_000)
            self.assertTrue(self.client.transport.reading)
            self.clock.advance(0.5)
        self.assertFalse(self.client.disconnected)
        self.assertEqual(body.received, 100_000)
        self.clock.advance(0.5)
        self.assertEqual(len(self.resource.requests), 1)
        self.assert_gone()

    def test_while_consumed(self) -> None:
        """A consumer that was at work learns that it is over."""
        _, done = self.consume(self.begin(10))
        self.finish()
        self.assertIn("answered", str(self.failureResultOf(done, ClientGone).value))

    def test_rest_is_no_request(self) -> None:
        """What follows is never read as another request."""
        self.begin(10)
        self.finish()
        self.client.send(b"0123456789GET / HTTP/1.1\r\nHost: p\r\n\r\n")
        self.clock.advance(3)
        self.assertEqual((len(self.client.answers), len(self.resource.requests)), (1, 1))

    def test_body_ends_in_time(self) -> None:
        """An answer that had begun before still ends, and closes."""
        self.begin(5)
        self.resource.requests[0].write(b"first")
        self.client.send(b"hello")
        self.resource.requests[0].finish()
        self.client.pump()
        (answer,) = self.client.answers
        self.assertEqual((answer.body, answer.complete), (b"first", True))
        self.assertFalse(self.client.aborted)
        self.assert_gone()

    def test_answer_with_the_last_piece(self) -> None:
        """A consumer that answers as it gets the last piece leaves the connection in order."""
        body = self.begin(5)
        _, done = self.consume(body)
        done.addCallback(lambda _: self.finish())
        second = b"GET /second HTTP/1.1\r\nHost: p\r\n\r\n"
        self.client.send(b"hello" + second + b"GET /third HTTP/1.1\r\nHost: p\r\n\r\n")
        self.assertEqual(self.resource.requests[-1].uri, b"/second")
        self.finish()
        self.assertEqual(self.resource.requests[-1].uri, b"/third")
        self.finish()
        self.assertEqual([a.body for a in self.client.answers], [b"done"] * 3)


class PipelineTests(ChannelCase):
    """Requests behind bodies."""

    def test_in_order(self) -> None:
        """Three uploads in one piece are three requests, one after the other."""
        data = b"".join(
            b"PUT /%d HTTP/1.1\r\nHost: p\r\n%b\r\n%b" % (number, framing, body)
            for number, (framing, body) in enumerate(
                [
                    (b"Content-Length: 5\r\n", b"first"),
                    (b"Transfer-Encoding: chunked\r\n", b"6\r\nsecond\r\n0\r\nX: y\r\n\r\n"),
                    (b"Content-Length: 5\r\n", b"GET /"),
                ]
            )
        )
        self.client.send(data)
        taken = []
        for number in range(3):
            self.assertEqual(len(self.resource.requests), number + 1)
            body = self.resource.requests[number].body
            assert body is not None
            consumer, done = self.consume(body)
            self.successResultOf(done)
            taken.append(consumer.taken)
            self.finish(b"%d" % number)
        self.assertEqual(taken, [b"first", b"second", b"GET /"])
        self.assertEqual([a.body for a in self.client.answers], [b"0", b"1", b"2"])

    def test_bounded(self) -> None:
        """What comes behind a body is read up to a bound, while the request has no answer."""
        self.consume(self.begin(5))
        self.client.send(b"hello")
        for _ in range(100):
            self.client.send(b"GET / HTTP/1.1\r\nHost: p\r\n\r\n" * 1000)
        self.assertFalse(self.client.transport.reading)

    def test_bounded_while_not_reading(self) -> None:
        """A client that asks on and on and reads nothing is hung up on."""
        self.consume(self.begin(5))
        self.client.reading = False
        self.client.send(b"hello")
        self.resource.requests[0].write(b"y" * 200_000)
        for _ in range(6):
            self.client.send(b"GET / HTTP/1.1\r\nHost: p\r\n\r\n" * 2000)
        self.assertTrue(self.client.aborted)

    def test_stalls_twice(self) -> None:
        """A client that stalls at the end of its answer is hung up on, the second time too."""
        self.client.reading = False
        self.client.request("GET", "/")
        self.finish(b"y" * 200_000)
        self.clock.advance(59)
        self.client.reading = True
        self.client.request("GET", "/")
        self.client.reading = False
        self.finish(b"y" * 200_000)
        self.clock.advance(60)
        self.assertTrue(self.client.aborted)


class SmugglingTests(ChannelCase):
    """Requests about whose end parsers disagree never reach the resource."""

    def assert_refused(self, head: bytes, *statuses: int) -> None:
        """Asserts a refusal at once, and that the rest is not read as a request."""
        client = self.client = self.connect()
        client.send(b"POST /x HTTP/1.1\r\nHost: p\r\n" + head)
        self.assertEqual(len(client.answers), 1, head)
        self.assertIn(client.answers[0].status, statuses or (400,), head)
        client.send(b"0\r\n\r\nGET / HTTP/1.1\r\nHost: p\r\n\r\n")
        self.clock.advance(3)
        self.assertEqual((len(client.answers), len(self.resource.requests)), (1, 0), head)
        self.assertEqual((self.log[-1].status, self.log[-1].reference), (400, "/x"))
        self.assert_gone_after(client)

    def assert_gone_after(self, client: MemoryClient) -> None:
        """Asserts that the connection is closed."""
        self.assertTrue(client.disconnected)

    def test_length(self) -> None:
        """What is no length, or no length that all read in one way."""
        for value in (
            b"+5", b"-5", b"5, 5", b"0x5", b"5 5", b"5;", b"", b"1_0", b"\xb2", b"9" * 5000, b"five"
        ):  # fmt: skip
            self.assert_refused(b"Content-Length: " + value + b"\r\n\r\n")

    def test_lengths(self) -> None:
        """Several lengths."""
        self.assert_refused(b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n")
        self.assert_refused(b"Content-Length: 5\r\ncontent-length: 5\r\n\r\n")

    def test_length_and_chunks(self) -> None:
        """A length and chunks, in either order."""
        self.assert_refused(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assert_refused(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n")

    def test_codings(self) -> None:
        """Any transfer coding but chunked alone."""
        for value in (b"identity", b"gzip", b"gzip, chunked", b"chunked, chunked", b"xchunked",
                      b"chunked;q=1", b'"chunked"', b"", b"\x0bchunked"):  # fmt: skip
            self.assert_refused(b"Transfer-Encoding: " + value + b"\r\n\r\n")
        self.assert_refused(b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n")
        self.assert_refused(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n")
        self.assert_refused(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n")

    def test_names(self) -> None:
        """White space before the colon, and at the start of a line."""
        self.assert_refused(b"Transfer-Encoding : chunked\r\n\r\n")
        self.assert_refused(b"Content-Length\t: 5\r\n\r\n")
        self.assert_refused(b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n")
        self.assert_refused(b": chunked\r\n\r\n")

    def test_line_ends(self) -> None:
        """Bare line feeds and carriage returns, wherever they are."""
        self.assert_refused(b"X: y\nTransfer-Encoding: chunked\r\n\r\n")
        self.assert_refused(b"X: y\r\nTransfer-Encoding: chunked\n\r\n")
        self.assert_refused(b"Content-Length: 5\r\n\nhello")
        self.assert_refused(b"X: y\rTransfer-Encoding: chunked\r\n\r\n")
        self.assert_refused(b"X: y\x00Transfer-Encoding: chunked\r\n\r\n")

    def test_line_feeds_alone(self) -> None:
        """A request that has nothing but line feeds is answered at its first line."""
        self.client.send(b"GET /x HTTP/1.1\nHost: p\n\n")
        self.assertEqual(self.client.answers[0].status, 400)
        self.assertEqual((self.log[0].method, self.log[0].reference), ("GET", "/x"))

    def test_old_version(self) -> None:
        """Chunks from a client that is too old to know them."""
        self.client.send(b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.assertEqual(self.client.answers[0].status, 400)

    def test_content_of_get(self) -> None:
        """A GET or HEAD that brings a body is refused before it."""
        for method in (b"GET", b"HEAD"):
            for framing in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
                client = self.connect()
                client.expect(method.decode())
                client.send(method + b" / HTTP/1.1\r\nHost: p\r\n" + framing + b"\r\n\r\n")
                self.assertEqual(client.answers[0].status, 413)
        self.assertEqual(self.resource.requests, [])


@implementer(IHalfCloseableProtocol)
class Successor(Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.received = b""
        self.told: list[str] = []

    def connectionMade(self) -> None:
        """See IProtocol."""
        self.told.append("made")
        cast(Any, self.transport).registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self.told.append("lost")

    def readConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""
        self.told.append("read lost")

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol."""
        self.told.append("write lost")

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.told.append("resume")

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self.told.append("stop")


class Connecting:
    """A connector in the test's hands."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.cancelled = 0
        self.channel: ClientChannel | None = None
        self.result: Deferred[IProtocol] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def connect(self, channel: ClientChannel, target: str, headers: Headers) -> Deferred[IProtocol]:
        """See Connector."""
        self.channel = channel
        self.asked.append((target, list(headers.getRawHeaders("Host", []))))
        return self.result


class ConnectTests(ChannelCase):
    """CONNECT, up to the hand-over and behind it."""

    def setUp(self) -> None:
        """Has a connector."""
        super().setUp()
        self.connector = self.site.connector = Connecting()
        self.successor = Successor()

    def ask(self, behind: bytes = b"", head: bytes = b"Host: h.test:443\r\n") -> None:
        """Sends a CONNECT, and something behind it in the same piece."""
        self.client.expect("CONNECT")
        self.client.send(b"CONNECT h.test:443 HTTP/1.1\r\n" + head + b"\r\n" + behind)

    def hand_over(self) -> None:
        """The connector has what it needs."""
        self.connector.result.callback(self.successor)
        self.client.pump()

    def assert_status(self, status: int) -> None:
        """Asserts that the client was refused, with a line in the log."""
        self.assertEqual(self.client.answers[-1].status, status)
        self.assertTrue(self.client.answers[-1].complete)
        (entry,) = self.log
        self.assertEqual(
            (entry.method, entry.way, entry.reference, entry.status),
            ("CONNECT", "connect", "h.test:443", status),
        )
        self.clock.advance(3)
        self.assert_gone()

    def test_nobody_answers(self) -> None:
        """Without a connector it is refused."""
        self.site.connector = None
        self.ask()
        self.assert_status(405)

    def test_established(self) -> None:
        """The client hears that it is connected, and its bytes go to the successor."""
        self.ask()
        self.assertEqual(self.connector.asked, [("h.test:443", ["h.test:443"])])
        self.assertEqual(self.client.answers[0].status, 0)
        self.assertEqual(self.connections.active, 1)
        self.hand_over()
        self.assertEqual(
            self.client.answers[0].message.start_line, "HTTP/1.1 200 Connection established"
        )
        self.client.send(b"hello")
        self.assertEqual(self.successor.received, b"hello")
        cast(Any, self.successor.transport).write(b"back")
        self.client.pump()
        self.assertEqual(self.client.answers[0].body, b"back")
        self.assertEqual(self.resource.requests, [])

    def test_at_once(self) -> None:
        """A connector that need not wait gets what came in the same piece, as it is."""
        self.connector.result.callback(self.successor)
        hello = b"\x16\x03\x01\x00\x05\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        self.ask(hello)
        self.assertEqual((self.successor.told, self.successor.received), (["made"], hello))

    def test_early_bytes(self) -> None:
        """What comes before the successor is there is kept for it, never read as HTTP."""
        self.ask(b"GET / HTTP/1.1\r\nHost: p\r\n\r\n")
        self.client.send(b"and more")
        self.hand_over()
        self.assertEqual(self.successor.received, b"GET / HTTP/1.1\r\nHost: p\r\n\r\nand more")
        self.assertEqual((self.resource.requests, len(self.client.answers)), ([], 1))

    def test_early_bytes_are_bounded(self) -> None:
        """Beyond a bound the client is not read until then."""
        self.ask(b"x" * 50_000)
        for _ in range(10):
            self.client.send(b"x" * 50_000)
        self.assertFalse(self.client.transport.reading)
        self.hand_over()
        self.assertTrue(self.client.transport.reading)
        self.assertEqual(len(self.successor.received), 550_000)

    def test_nothing_of_http_is_left(self) -> None:
        """No deadline, no account and no limit of the channel reaches the successor."""
        self.ask()
        self.hand_over()
        self.assertEqual(len(self.connections), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in range(20):
            self.client.send(b"x" * 50_000)
        self.assertEqual(len(self.successor.received), 1_000_000)
        self.clock.advance(10_000)
        self.assertFalse(self.client.disconnected)

    def test_back_pressure(self) -> None:
        """The successor is the producer that the transport pauses."""
        self.ask()
        self.hand_over()
        self.client.reading = False
        cast(Any, self.successor.transport).write(b"x" * 200_000)
        self.assertEqual(self.successor.told, ["made", "pause"])
        self.client.reading = True
        self.assertEqual(self.successor.told, ["made", "pause", "resume"])

    def test_lost(self) -> None:
        """The end of the connection is the successor's, and nobody else's."""
        self.ask()
        self.hand_over()
        self.client.drop()
        self.assertEqual(self.successor.told, ["made", "stop", "lost"])
        self.assert_gone()

    def test_half_closed(self) -> None:
        """A successor that goes on with half a connection does; a channel alone does not."""
        channel = self.site.buildProtocol(None)
        self.assertIsNone(IHalfCloseableProtocol(channel, None))
        self.ask()
        self.assertIsNone(IHalfCloseableProtocol(self.connector.channel, None))
        self.hand_over()
        half = IHalfCloseableProtocol(self.connector.channel)
        half.readConnectionLost()
        half.writeConnectionLost()
        self.assertEqual(self.successor.told, ["made", "read lost", "write lost"])

    def test_whole_successor(self) -> None:
        """One that does not is told that the connection is lost, as ever."""
        self.ask()
        self.connector.result.callback(Protocol())
        self.assertIsNone(IHalfCloseableProtocol(self.connector.channel, None))

    def test_refused(self) -> None:
        """The connector's refusal is the client's answer; what it had sent is thrown away."""
        self.ask(b"x" * 70_000)
        self.assertFalse(self.client.transport.reading)
        self.connector.result.errback(denied("not that one"))
        self.client.pump()
        self.assertIn(b"not that one", self.client.answers[0].body)
        self.assertTrue(self.client.transport.reading)
        self.client.send(b"GET / HTTP/1.1\r\nHost: p\r\n\r\n")
        self.assertEqual(len(self.client.answers), 1)
        self.assert_status(403)

    def test_bug(self) -> None:
        """Any other failure is logged, and answered."""
        self.ask()
        self.connector.result.errback(ZeroDivisionError())
        self.client.pump()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_status(500)

    def test_client_leaves(self) -> None:
        """A client that leaves before ends the attempt."""
        self.ask()
        self.client.drop()
        self.assertEqual(self.connector.cancelled, 1)
        self.assertEqual(self.log, [])
        self.assert_gone()

    def test_refused_after_the_client_left(self) -> None:
        """What becomes of an attempt that was given up concerns nobody."""
        self.connector.result = Deferred(lambda d: d.errback(RegistryError(504, "UNKNOWN", "late")))
        self.ask()
        self.client.drop()
        self.assert_gone()

    def test_body(self) -> None:
        """A CONNECT with a body is refused; a length of 0 is none."""
        for framing in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
            self.log.clear()
            self.client = self.connect()
            self.ask(head=b"Host: h\r\n" + framing)
            self.clock.advance(0)
            self.assertEqual(self.client.answers[0].status, 400)
        self.client = self.connect()
        self.ask(head=b"Host: h\r\nContent-Length: 0\r\n")
        self.assertEqual(len(self.connector.asked), 1)

    def test_old_client(self) -> None:
        """HTTP/1.0 without a Host, as some clients still ask."""
        self.client.expect("CONNECT")
        self.client.send(b"CONNECT h.test:443 HTTP/1.0\r\n\r\n")
        self.assertEqual(self.connector.asked, [("h.test:443", [])])

    def test_inside(self) -> None:
        """A CONNECT inside a CONNECT is refused."""
        self.ask()
        assert self.connector.channel is not None
        self.client.drop()
        built = self.site.buildProtocol

        def inside(addr: Any) -> Any:
            channel = built(addr)
            channel.connect_target = HostPort("h.test", 443)
            return channel

        self.patch(self.site, "buildProtocol", inside)
        self.client = self.connect()
        self.ask()
        self.assertEqual(len(self.connector.asked), 1)
        self.assert_status(400)

    def test_behind_requests(self) -> None:
        """On a connection that has been used, after the answers to what came before."""
        self.client.request("GET", "/")
        self.ask(b"hello")
        self.assertEqual(self.connector.asked, [])
        self.finish()
        self.hand_over()
        self.assertEqual(self.successor.received, b"hello")

    def test_shutdown(self) -> None:
        """At a shutdown an attempt is given up like any other request."""
        self.ask()
        self.connections.close_idle()
        self.clock.advance(0)
        self.assertFalse(self.client.disconnected)
        self.connections.abort_all()
        self.clock.advance(0)
        self.assertEqual(self.connector.cancelled, 1)
        self.assert_gone()


class LimitTests(ChannelCase):
    """What is configured."""

    def test_default_silence(self) -> None:
        """The limit for silence in a body has a default."""
        limits = ClientLimits(header_size=1, request_headers=1, idle=1, write_stall=1)
        self.assertEqual(limits.body_silence, 60.0)
        self.assertEqual(evolve(limits, body_silence=5.0).body_silence, 5.0)

    def test_no_server_name(self) -> None:
        """Without TLS there is no name from a handshake."""
        self.client.request("GET", "/")
        self.assertIsNone(self.resource.requests[0].channel.server_name)
