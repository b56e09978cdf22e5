"""Tests for regproxy.testing.upstream and regproxy.testing.exchange."""

from __future__ import annotations

import json
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import IConsumer
from twisted.web.client import (
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.testing import BEFORE_HEADERS, Fault, Framing, RecordedRequest
from tests.testing.bodies import Sink
from tests.testing.case import DATA, HUB, REPOSITORY, UpstreamCase


@implementer(IBodyProducer)
class _Body:
    """A request body that is all there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Writes everything."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Has nothing to pause."""

    def resumeProducing(self) -> None:
        """Has nothing to resume."""

    def stopProducing(self) -> None:
        """Has nothing to stop."""


class _ExchangeCase(UpstreamCase):
    """What became of requests."""

    @property
    def last(self) -> RecordedRequest:
        """The newest request."""
        return self.upstream.requests[-1]

    def assertEnded(self, sink: Sink, *expected: type[Exception]) -> None:
        """The body ended so; several are `ResponseFailed` and its reasons."""
        error = sink.reason.value if sink.reason else None
        self.assertIsInstance(error, expected[0])
        if isinstance(error, ResponseFailed):
            self.assertIsInstance(error.reasons[0].value, expected[1])


class RequestTests(_ExchangeCase):
    """Requests and what is noted of them."""

    def test_agent(self) -> None:
        """The upstream is an agent."""
        verifyObject(IAgent, self.upstream)

    def test_recorded(self) -> None:
        """A request is recorded when it is made, answered or not."""
        self.clock.advance(7)
        url = f"{HUB}{self.blob}?a=b"
        self.upstream.request(b"GET", url.encode())
        self.assertEqual((self.last.method, self.last.url, self.last.at), ("GET", url, 7))
        self.assertEqual((self.last.path, self.last.query), (self.blob, "a=b"))
        self.assertEqual((self.last.status, self.last.finished), (None, False))
        self.clock.advance(0)
        self.assertEqual((self.last.status, self.last.sent), (200, 0))

    def test_headers(self) -> None:
        """The headers are kept as they were given."""
        self.get("/v2/", {"Accept": "x"})
        self.assertEqual(self.last.header("accept"), "x")
        self.assertIsNone(self.last.header("Range"))
        self.assertEqual(len(list(self.last.headers.getAllRawHeaders())), 1)

    def test_nothing_inside_calls(self) -> None:
        """Neither an answer nor a body comes before its turn."""
        waiting = self.upstream.request(b"GET", f"{HUB}{self.blob}".encode())
        self.assertNoResult(waiting)
        self.clock.advance(0)
        sink = Sink()
        self.successResultOf(waiting).deliverBody(sink)
        self.assertEqual(sink.pieces, [])

    def test_count(self) -> None:
        """Requests are counted by method and the end of their path."""
        self.get(self.blob)
        self.get(self.blob + "?x=y")
        self.get(self.blob, method="HEAD")
        self.get("/v2/")
        self.assertEqual(self.upstream.count("GET", str(self.digest)), 2)
        self.assertEqual(self.upstream.count("GET"), 3)
        self.assertEqual(self.upstream.find("HEAD"), [self.upstream.requests[2]])

    def test_body(self) -> None:
        """The body of a request is recorded."""
        self.upstream.request(b"POST", f"{HUB}/v2/x/blobs/uploads/".encode(), None, _Body(b"data"))
        self.clock.advance(0)
        self.assertEqual((self.last.body, self.last.status), (b"data", 405))

    def test_connections(self) -> None:
        """A connection is open until its answer has been read, or stopped."""
        first, second = self.get(self.blob), self.get(self.blob)
        self.assertEqual(self.upstream.connections, 2)
        self.read(first)
        self.assertEqual(self.upstream.connections, 1)
        sink = Sink()
        second.deliverBody(sink)
        sink.producer.stopProducing()
        self.clock.advance(0)
        self.assertEqual((self.upstream.connections, self.upstream.most_connections), (0, 2))

    def test_cancelled(self) -> None:
        """A request can be cancelled while connecting, while it waits, but not twice."""
        self.upstream.hold(self.blob)
        connecting = self.upstream.request(b"GET", f"{HUB}{self.blob}".encode())
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        waiting = self.ask(self.blob)
        waiting.cancel()
        failure = self.failureResultOf(waiting, ResponseNeverReceived)
        self.assertIsInstance(failure.value.reasons[0].value, CancelledError)
        self.clock.advance(0)
        self.assertEqual([request.cancelled for request in self.upstream.requests], [True] * 2)
        self.upstream.release(self.blob)
        self.clock.advance(0)
        self.assertEqual([request.status for request in self.upstream.requests], [None] * 2)
        self.assertEqual(self.upstream.connections, 0)

    def test_treq(self) -> None:
        """A treq client can use it."""
        client: Any = HTTPClient(self.upstream)
        waiting = client.get(f"{HUB}{self.blob}", headers={"X-Test": "1"}, reactor=self.clock)
        content = waiting.addCallback(treq.content)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(content), DATA)
        self.assertEqual(self.last.header("X-Test"), "1")


class BodyTests(_ExchangeCase):
    """How bodies arrive."""

    def test_whole(self) -> None:
        """A body that is all there ends with `ResponseDone`."""
        sink = self.deliver(self.get(self.blob))
        self.assertEqual(sink.body, DATA)
        self.assertEnded(sink, ResponseDone)
        self.assertTrue(self.last.finished)
        self.assertEqual((self.last.sent, self.last.aborted), (len(DATA), False))

    def test_not_before_it_is_wanted(self) -> None:
        """No byte of the body is sent before somebody reads it."""
        self.get(self.blob)
        self.clock.advance(3600)
        self.assertEqual(self.last.sent, 0)

    def test_paused(self) -> None:
        """Nothing more is sent while the reader has paused."""
        sink = self.deliver(self.get(self.blob), one_by_one=True)
        for count in range(1, 4):
            self.clock.advance(10)
            self.assertEqual(len(sink.pieces), count)
            sink.producer.resumeProducing()
            self.assertEqual(len(sink.pieces), count, "not inside the call")
            self.clock.advance(0)
        self.assertEqual(sink.body, DATA)

    def test_pieces_and_rate(self) -> None:
        """A slow body arrives in small pieces over time."""
        self.upstream.script(Fault(piece=1000, rate=2000))
        sink = self.deliver(self.get(self.blob))
        self.assertEqual(len(sink.body), 1000)
        self.clock.pump([0.25] * 4)
        self.assertEqual(sink.pieces, [DATA[at : at + 1000] for at in (0, 1000, 2000)])

    def test_latency(self) -> None:
        """The headers wait for the latency."""
        self.upstream.script(Fault(latency=5))
        waiting = self.ask(self.blob)
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(waiting).code, 200)

    def test_hold(self) -> None:
        """A hold lets exactly so many bytes through, until it is released."""
        self.upstream.hold(self.blob, at=100_001)
        sinks = [self.deliver(self.get(self.blob)) for _ in range(2)]
        self.clock.advance(3600)
        self.assertEqual([sink.body == DATA[:100_001] for sink in sinks], [True, True])
        self.upstream.release(self.blob)
        self.clock.advance(0)
        self.assertEqual([sink.body == DATA for sink in sinks], [True, True])

    def test_hold_before_headers(self) -> None:
        """A hold can be before the headers."""
        self.upstream.hold(self.blob)
        waiting = self.ask(self.blob)
        self.assertNoResult(waiting)
        self.upstream.release(self.blob)
        self.clock.advance(0)
        self.assertEqual(self.read(self.successResultOf(waiting)), DATA)

    def test_hold_moves(self) -> None:
        """Holding further on lets the bytes between through."""
        self.upstream.hold(self.blob, at=0)
        sink = self.deliver(self.get(self.blob))
        self.assertEqual(sink.body, b"")
        self.upstream.release(self.blob)
        self.upstream.hold(self.blob, at=10)
        self.clock.advance(0)
        self.assertEqual(sink.body, DATA[:10])
        self.upstream.release(self.blob)
        self.upstream.hold(self.blob)
        self.clock.advance(0)
        self.assertEqual(sink.body, DATA, "a hold before the headers comes too late")

    def test_stopped(self) -> None:
        """A reader that stops is noted, and told that the connection is closed."""
        self.upstream.hold(self.blob, at=10)
        sink = self.deliver(self.get(self.blob))
        sink.producer.stopProducing()
        self.assertIsNone(sink.reason, "not inside the call")
        self.clock.advance(0)
        self.assertEnded(sink, ResponseFailed, ConnectionDone)
        self.assertEqual((self.last.aborted, self.last.finished), (True, False))

    def test_stopped_while_paused(self) -> None:
        """A paused reader can stop."""
        sink = self.deliver(self.get(self.blob), one_by_one=True)
        sink.producer.stopProducing()
        self.clock.advance(0)
        self.assertTrue(self.last.aborted)
        self.assertEqual(len(sink.pieces), 1)


class FaultTests(_ExchangeCase):
    """What can go wrong."""

    def test_refused(self) -> None:
        """A connection can fail in any way."""
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()))
        self.failureResultOf(self.ask(self.blob), ConnectionRefusedError)
        self.assertEqual((self.upstream.connections, self.last.status), (0, None))
        self.assertFalse(self.last.cancelled)

    def test_silent(self) -> None:
        """An upstream may never answer, until it is left."""
        self.upstream.script(Fault(silent=True))
        waiting = self.ask(self.blob)
        self.clock.advance(3600)
        self.assertNoResult(waiting)
        waiting.cancel()
        self.clock.advance(0)
        self.failureResultOf(waiting, ResponseNeverReceived)
        self.assertTrue(self.last.cancelled)

    def test_status(self) -> None:
        """A status comes with an error as registries word it, and with headers."""
        self.upstream.script(Fault(status=429, headers={"Retry-After": "7"}))
        response = self.get(self.blob)
        self.assertEqual((response.code, self.header(response, "Retry-After")), (429, "7"))
        error = json.loads(self.read(response))["errors"][0]
        self.assertEqual(error["code"], "TOOMANYREQUESTS")
        self.assertEqual(self.get(self.blob).code, 200, "the script was for one request")

    def test_body(self) -> None:
        """A body can be anything."""
        self.upstream.script(Fault(status=599, body=b"too many"))
        response = self.get(self.blob)
        self.assertEqual((response.code, self.read(response)), (599, b"too many"))

    def test_headers(self) -> None:
        """A header can be added, replaced and taken away; the bytes stay."""
        headers = {"Content-Encoding": "gzip", "ETag": '"x"', "Docker-Content-Digest": None}
        self.upstream.script(Fault(headers=headers))
        response = self.get(self.blob)
        self.assertEqual(self.header(response, "Content-Encoding"), "gzip")
        self.assertEqual(self.header(response, "ETag"), '"x"')
        self.assertIsNone(self.header(response, "Docker-Content-Digest"))
        self.assertEqual(self.read(response), DATA)

    def test_cut(self) -> None:
        """A connection is lost after exactly so many bytes."""
        for cleanly, expected in ((False, ConnectionLost), (True, ConnectionDone)):
            with self.subTest(cleanly=cleanly):
                self.upstream.script(Fault(cut_at=70_000, cut_cleanly=cleanly))
                sink = self.deliver(self.get(self.blob))
                self.assertEqual(sink.body, DATA[:70_000])
                self.assertEnded(sink, ResponseFailed, expected)
                self.assertEqual((self.last.finished, self.last.aborted), (False, False))

    def test_cut_at_nothing(self) -> None:
        """A connection can be lost right behind the headers, and before them."""
        self.upstream.script(Fault(cut_at=0))
        self.assertEnded(self.deliver(self.get(self.blob)), ResponseFailed, ConnectionLost)
        self.upstream.script(Fault(cut_at=BEFORE_HEADERS))
        failure = self.failureResultOf(self.ask(self.blob), ResponseNeverReceived)
        self.assertIsInstance(failure.value.reasons[0].value, ConnectionLost)

    def test_cut_while_paused(self) -> None:
        """A cut is noticed when the reader reads again."""
        self.upstream.script(Fault(cut_at=10))
        sink = self.deliver(self.get(self.blob), one_by_one=True)
        self.clock.advance(3600)
        self.assertIsNone(sink.reason)
        sink.producer.resumeProducing()
        self.clock.advance(0)
        self.assertEnded(sink, ResponseFailed, ConnectionLost)

    def test_cut_after_a_hold(self) -> None:
        """A held answer can be cut when it is released."""
        self.upstream.script(Fault(cut_at=10))
        self.upstream.hold(self.blob, at=10)
        sink = self.deliver(self.get(self.blob))
        self.assertEqual((sink.body, sink.reason), (DATA[:10], None))
        self.upstream.release(self.blob)
        self.clock.advance(0)
        self.assertEnded(sink, ResponseFailed, ConnectionLost)

    def test_flip(self) -> None:
        """One byte of the content is wrong, in whatever range holds it."""
        self.upstream.script(Fault(flip=500), times=None)
        wrong = DATA[:500] + bytes([DATA[500] ^ 1]) + DATA[501:]
        self.assertEqual(self.read(self.get(self.blob)), wrong)
        self.assertEqual(self.read(self.get(self.blob, {"Range": "bytes=400-"})), wrong[400:])
        self.assertEqual(self.read(self.get(self.blob, {"Range": "bytes=501-"})), DATA[501:])

    def test_content_length_too_long(self) -> None:
        """A length that promises too much ends the body with a failure."""
        self.upstream.script(Fault(content_length=len(DATA) + 1))
        response = self.get(self.blob)
        self.assertEqual(response.length, len(DATA) + 1)
        sink = self.deliver(response)
        self.assertEqual(sink.body, DATA)
        self.assertEnded(sink, ResponseFailed, ConnectionDone)

    def test_content_length_too_short(self) -> None:
        """A length that promises too little cuts the body off, and nobody notices."""
        self.upstream.script(Fault(content_length=10))
        sink = self.deliver(self.get(self.blob))
        self.assertEqual(sink.body, DATA[:10])
        self.assertEnded(sink, ResponseDone)

    def test_no_length(self) -> None:
        """A body of unknown length ends with its last chunk, or with doubt."""
        for framing, expected in (
            (Framing.CHUNKED, ResponseDone),
            (Framing.CLOSE, PotentialDataLoss),
        ):
            with self.subTest(framing=framing):
                self.upstream.script(Fault(framing=framing))
                response = self.get(self.blob)
                self.assertIs(response.length, UNKNOWN_LENGTH)
                sink = self.deliver(response)
                self.assertEqual(sink.body, DATA)
                self.assertEnded(sink, expected)
                self.assertTrue(self.last.finished)

    def test_chunks_cut(self) -> None:
        """Chunks without the last one are a failure, even when no byte is missing."""
        self.upstream.script(Fault(framing=Framing.CHUNKED, cut_at=len(DATA)))
        sink = self.deliver(self.get(self.blob))
        self.assertEqual(sink.body, DATA)
        self.assertEnded(sink, ResponseFailed, ConnectionLost)

    def test_no_body_has_no_framing(self) -> None:
        """An answer without a body stays without one, however bodies are framed."""
        self.upstream.script(Fault(framing=Framing.CHUNKED), times=None)
        head = self.get(self.blob, method="HEAD")
        known = self.get(self.blob, {"If-None-Match": f'"{self.digest}"'})
        self.assertEqual([head.code, known.code], [200, 304])
        self.assertEqual(self.upstream.connections, 0)

    def test_ignored_range(self) -> None:
        """A registry may not know ranges."""
        self.upstream.script(Fault(ignore_range=True))
        response = self.get(self.blob, {"Range": "bytes=5-"})
        self.assertEqual((response.code, response.length), (200, len(DATA)))
        self.assertEqual(self.last.header("Range"), "bytes=5-")

    def test_scripts(self) -> None:
        """A script is for a path, a method and a number of requests; older ones come first."""
        self.upstream.script(Fault(status=500), self.blob, method="GET", times=2)
        self.upstream.script(Fault(status=503), times=None)
        codes = [
            self.get(path, method=method).code
            for method, path in (
                ("HEAD", self.blob),
                ("GET", self.blob),
                ("GET", "/v2/"),
                ("GET", self.blob),
                ("GET", self.blob),
            )
        ]
        self.assertEqual(codes, [503, 500, 503, 500, 503])
        self.upstream.heal()
        self.assertEqual(self.get(self.blob).code, 200)

    def test_contents_change_while_waiting(self) -> None:
        """What is answered is what is there when the answer begins."""
        path = f"/v2/{REPOSITORY}/manifests/latest"
        self.upstream.hold(path)
        waiting = self.ask(path)
        self.upstream.add_manifest(HUB, REPOSITORY, b"{}", "text/plain", tag="latest")
        self.upstream.release(path)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting).code, 200)
