"""Tests for regproxy.testing.client and the transport under it."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.testing import MemoryAnswer, MemoryClient

_BUFFER = 64 * 1024


@implementer(IPushProducer)
class _Producer:
    """Notes what it is told, and writes only when a test does."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class _Echo(Resource):
    """Answers at once: the body of a POST, else the path."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """The body, or the path."""
        if request.method == b"POST":
            assert request.content is not None
            return bytes(request.content.read())
        request.responseHeaders.setRawHeaders(b"X-Peer", [str(request.getClientAddress())])
        return request.path


class _Open(Resource):
    """Leaves every request to the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.gone: list[Request] = []

    def render(self, request: Request) -> int:
        """Takes note of the request, and of its end."""
        self.requests.append(request)
        request.notifyFinish().addErrback(lambda _: self.gone.append(request))
        return NOT_DONE_YET


class AnswerTests(SynchronousTestCase):
    """A site that answers at once."""

    def setUp(self) -> None:
        """Has one connection."""
        clock = Clock()
        self.client = MemoryClient(
            Site(_Echo(), reactor=clock), clock, peer=IPv4Address("TCP", "192.0.2.7", 7)
        )

    def test_get(self) -> None:
        """The answer is there when the call returns, and the connection stays."""
        answer = self.client.request("GET", "/a?b")
        self.assertEqual((answer.status, answer.body, answer.complete), (200, b"/a", True))
        self.assertEqual(answer.header("Content-Length"), "2")
        self.assertIn("192.0.2.7", answer.header("X-Peer") or "")
        self.assertIsNone(answer.header("X-None"))
        self.assertFalse(self.client.disconnected)

    def test_head(self) -> None:
        """An answer to HEAD is complete without the body that it announces."""
        answer = self.client.request("HEAD", "/abc")
        self.assertEqual((answer.header("Content-Length"), answer.body), ("4", b""))
        self.assertTrue(answer.complete)
        self.assertEqual(self.client.request("GET", "/next").body, b"/next")

    def test_post(self) -> None:
        """A body is sent with its length."""
        self.assertEqual(self.client.request("POST", "/", body=b"data").body, b"data")

    def test_chunks(self) -> None:
        """A body is sent in chunks, each in a piece of its own."""
        answer = self.client.request("POST", "/", chunks=[b"one", b"two" * 100])
        self.assertEqual(answer.body, b"one" + b"two" * 100)

    def test_interim(self) -> None:
        """A 100 is no answer, but noted."""
        answer = self.client.request("POST", "/", {"Expect": "100-continue"}, b"data")
        self.assertEqual((answer.status, self.client.informational), (200, [100]))

    def test_close(self) -> None:
        """A server that is asked to close does so after the answer."""
        answer = self.client.request("GET", "/", {"Connection": "close"})
        self.assertTrue(answer.complete)
        self.assertFalse(answer.disconnected, "all was there before")
        self.assertEqual((self.client.disconnected, self.client.aborted), (True, False))
        self.assertTrue(self.client.request("GET", "/").disconnected)

    def test_raw(self) -> None:
        """Bytes are sent as they are, and answers nobody expected are kept."""
        self.client.send(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        self.assertEqual([answer.status for answer in self.client.answers], [200, 400])
        self.assertTrue(self.client.disconnected)

    def test_raw_in_pieces(self) -> None:
        """A request can be dripped, and its answer expected."""
        answer = self.client.expect("HEAD")
        for byte in b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n":
            self.assertEqual(answer.status, 0)
            self.client.send(bytes([byte]))
        self.assertEqual((answer.status, answer.complete), (200, True))


class OpenAnswerTests(SynchronousTestCase):
    """A site whose answers are in the test's hands."""

    def setUp(self) -> None:
        """Has one connection, idle."""
        self.clock = Clock()
        self.resource = _Open()
        self.site = Site(self.resource, reactor=self.clock)
        self.client = MemoryClient(self.site, self.clock)

    def ask(self, method: str = "GET") -> tuple[MemoryAnswer, Request]:
        """A new request, seen from both ends."""
        answer = self.client.request(method, "/")
        return answer, self.resource.requests[-1]

    def test_chunks(self) -> None:
        """A body of unknown length arrives as it is written, without its chunks."""
        answer, request = self.ask()
        self.assertEqual(answer.status, 0)
        request.write(b"one")
        self.client.pump()
        self.assertEqual((answer.status, answer.body, answer.complete), (200, b"one", False))
        request.write(b"two")
        request.finish()
        self.client.pump()
        self.assertEqual((answer.body, answer.complete), (b"onetwo", True))

    def test_nothing_inside_calls(self) -> None:
        """What is written arrives in a turn of its own."""
        answer, request = self.ask()
        request.write(b"one")
        self.assertEqual(answer.body, b"")

    def test_until_close(self) -> None:
        """An answer to HTTP/1.0 is complete when the connection has closed in order."""
        answer = self.client.expect("GET")
        self.client.send(b"GET / HTTP/1.0\r\n\r\n")
        (request,) = self.resource.requests
        request.write(b"data")
        self.client.pump()
        self.assertFalse(answer.complete)
        request.finish()
        self.client.pump()
        self.assertEqual((answer.body, answer.complete), (b"data", True))

    def test_pipelined(self) -> None:
        """Requests can be sent before earlier ones are answered; answers keep their order."""
        first, request = self.ask()
        second = self.client.request("HEAD", "/")
        self.assertEqual(len(self.resource.requests), 1, "HTTPChannel takes one at a time")
        request.write(b"one")
        request.finish()
        self.client.pump()
        self.resource.requests[1].finish()
        self.client.pump()
        self.assertEqual((first.body, first.complete, second.complete), (b"one", True, True))
        self.assertEqual(self.client.answers, [first, second])

    def test_buffer_fills(self) -> None:
        """While the client does not read, more than 64 KiB pause a producer, and none are lost."""
        answer, request = self.ask()
        producer = _Producer()
        request.registerProducer(producer, streaming=True)
        self.client.reading = False
        request.setHeader("Content-Length", str(2 * _BUFFER))
        request.write(b"x" * _BUFFER)
        self.assertEqual(producer.told, ["pause"], "the headers are in the buffer as well")
        self.clock.advance(3600)
        self.assertEqual((answer.status, producer.told), (0, ["pause"]))
        self.client.reading = True
        self.assertEqual((len(answer.body), producer.told), (_BUFFER, ["pause", "resume"]))
        request.write(b"x" * _BUFFER)
        request.unregisterProducer()
        request.finish()
        self.client.pump()
        self.assertTrue(answer.complete)

    def test_small_buffer(self) -> None:
        """Up to 64 KiB wait without a pause."""
        _, request = self.ask()
        self.client.reading = False
        producer = _Producer()
        request.registerProducer(producer, streaming=True)
        request.write(b"x" * (_BUFFER - 1024))
        self.client.pump()
        self.assertEqual(producer.told, [])

    def test_read_some(self) -> None:
        """A slow client takes as many bytes as it is told; only an empty buffer resumes."""
        _, request = self.ask()
        producer = _Producer()
        request.registerProducer(producer, streaming=True)
        self.client.reading = False
        request.write(b"x" * 2 * _BUFFER)
        self.client.read(1000)
        self.assertEqual((self.client.received, producer.told), (1000, ["pause"]))
        self.client.read(10 * _BUFFER)
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_not_reading_from_the_start(self) -> None:
        """A client may never read at all."""
        client = MemoryClient(self.site, self.clock, reading=False)
        answer = client.request("GET", "/")
        self.resource.requests[-1].finish()
        client.pump()
        self.assertEqual((answer.status, client.reading), (0, False))

    def test_drop(self) -> None:
        """A client that hangs up is noticed at once, and its producer stopped."""
        answer, request = self.ask()
        producer = _Producer()
        request.registerProducer(producer, streaming=True)
        request.write(b"one")
        self.client.pump()
        self.client.drop()
        self.assertEqual(self.resource.gone, [request])
        self.assertEqual(producer.told, ["stop"])
        self.assertEqual((answer.complete, answer.disconnected), (False, True))
        self.assertEqual((self.client.disconnected, self.client.aborted), (True, False))

    def test_drop_unnoticed(self) -> None:
        """A server that has paused reading notices a client's end at its next write."""
        _, request = self.ask()
        self.client.send(b"x" * 20000)
        self.assertFalse(self.client.transport.reading)
        self.client.drop()
        self.assertEqual(self.resource.gone, [])
        request.write(b"one")
        self.client.pump()
        self.assertEqual(self.resource.gone, [request])

    def test_abort(self) -> None:
        """A server that aborts sends nothing more, and is told from one that closes."""
        answer, request = self.ask()
        request.write(b"x" * 10)
        self.client.pump()
        request.write(b"y" * 10)
        request.channel.forceAbortClient()
        self.client.pump()
        self.assertEqual((answer.body, answer.complete), (b"x" * 10, False))
        self.assertEqual((answer.disconnected, answer.aborted), (True, True))
        self.assertTrue(self.client.aborted)

    def test_close_waits_for_the_buffer(self) -> None:
        """A server that closes in order sends what is buffered first."""
        answer, request = self.ask()
        self.client.reading = False
        request.write(b"x" * 300_000)
        request.loseConnection()
        self.client.pump()
        self.assertFalse(self.client.disconnected)
        self.client.reading = True
        self.assertEqual(len(answer.body), 300_000)
        self.assertEqual((self.client.disconnected, answer.aborted), (True, False))

    def test_idle_timeout(self) -> None:
        """The server's own deadlines run on the clock."""
        self.clock.advance(61)
        self.assertTrue(self.client.disconnected)

    def test_transport(self) -> None:
        """The server's transport is a TCP transport with addresses."""
        transport = self.client.transport
        verifyObject(ITCPTransport, transport)
        self.assertTrue(transport.getTcpNoDelay(), "HTTPChannel has set it")
        self.assertEqual(transport.getPeer().host, "127.0.0.1")
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpKeepAlive())

    def test_refused(self) -> None:
        """A site that builds no protocol refuses the connection."""

        class Refusing(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        self.assertRaises(ConnectionRefusedError, MemoryClient, Refusing(), self.clock)
