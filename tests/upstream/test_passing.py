"""Requests that are passed on: which headers, on which connections, how many at once."""

from __future__ import annotations

from io import BytesIO

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, Cooperator
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers

from regproxy.deadline import Deadline
from regproxy.testing import Fault, ScriptedUpstream
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.passing import Passage, end_to_end

QUAY = "https://quay.io"


class EndToEndTest(SynchronousTestCase):
    """Which headers a proxy passes on."""

    def test_named(self) -> None:
        """Whatever any Connection names is left out, in any case."""
        headers = [
            (b"connection", b"X-A ,x-b"),
            (b"Connection", b"X-C"),
            *((name, b"1") for name in (b"X-A", b"X-B", b"x-c", b"X-D", b"Content-Length")),
        ]
        self.assertEqual(end_to_end(headers), [(b"X-D", b"1")])

    def test_order(self) -> None:
        """What is left keeps its order and its repetitions."""
        headers = [(b"Link", b"1"), (b"Via", b"2"), (b"Link", b"3")]
        self.assertEqual(end_to_end(headers), headers)


class PassageTest(SynchronousTestCase):
    """A passage to quay.io, whose agent has kept connections, and another that has none."""

    def setUp(self) -> None:
        """Puts the same page behind both."""
        self.clock = Clock()
        self.cooperator = Cooperator(scheduler=lambda call: self.clock.callLater(0, call))
        self.kept, self.fresh = ScriptedUpstream(self.clock), ScriptedUpstream(self.clock)
        for upstream in (self.kept, self.fresh):
            upstream.add_page(f"{QUAY}/x", b"page")
        exchange = Exchange(self.kept, self.clock, "me", unpooled=self.fresh)
        self.passage = Passage("quay.io", QUAY, exchange, self.clock)

    def ask(self, method: str, body: FileBodyProducer | None = None) -> Deferred[Answer]:
        """Passes a request on."""
        asking = Deferred.fromCoroutine(
            self.passage.pass_on(
                method,
                "/x",
                Headers(),
                body,
                None,
                Deadline.after(self.clock, 20.0),
                silence=60.0,
            )
        )
        self.clock.pump([0.01] * 5)
        return asking

    def test_connections(self) -> None:
        """What cannot be sent twice never goes over a connection that may be closed by now."""
        for method in ("GET", "HEAD", "POST", "DELETE"):
            self.successResultOf(self.ask(method)).discard()
        body = FileBodyProducer(BytesIO(b"x"), cooperator=self.cooperator)
        self.successResultOf(self.ask("PROPFIND", body)).discard()
        self.assertEqual([r.method for r in self.kept.requests], ["GET", "HEAD"])
        self.assertEqual([r.method for r in self.fresh.requests], ["POST", "DELETE", "PROPFIND"])

    def test_via(self) -> None:
        """Every request says through whom it came."""
        self.successResultOf(self.ask("GET")).discard()
        self.assertEqual(self.kept.requests[0].header("Via"), "1.1 me")

    def test_places(self) -> None:
        """Beyond 256 requests the next one waits, yet not for ever."""
        self.kept.script(Fault(silent=True), times=None)
        asking = [self.ask("GET") for _ in range(257)]
        self.assertEqual(len(self.kept.requests), 256)
        self.clock.advance(5.0)
        self.clock.advance(0)
        self.assertEqual(len(self.kept.requests), 257)
        for waiting in asking:
            waiting.addErrback(lambda _: None).cancel()

    def test_owns(self) -> None:
        """URLs at the very origin are its own, whatever their path."""
        self.assertTrue(self.passage.owns("https://quay.io:443/y"))
        for url in ("http://quay.io/x", "https://quay.io.example/x", "https://quay.io:444/x"):
            self.assertFalse(self.passage.owns(url))
