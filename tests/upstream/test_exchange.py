"""Tests for regproxy.upstream.exchange."""

from __future__ import annotations

import gzip
from http import HTTPStatus

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from regproxy import __version__
from regproxy.model.errors import RegistryError
from regproxy.testing import BEFORE_HEADERS, Fault, Framing
from regproxy.upstream.exchange import Answer
from tests.testing.bodies import Sink
from tests.upstream.case import DATA, REGISTRY, UpstreamCase

PAGE = f"{REGISTRY}/page"
ZIPPED = gzip.compress(b"layer" * 1000)


class ExactnessTests(UpstreamCase):
    """What is sent and received, byte for byte."""

    def test_urls(self) -> None:
        """A URL is asked for as it is: escapes, signs, dots, empty values, IPv6 hosts."""
        for url in (
            "https://storage.test/a%2Fb%2fc/%7e/~/./x/../y//z?sig=%2F%2f+%20&empty=&flag&x=1&x=2",
            "https://[2001:db8::5]:5000/v2/?a=b",
            "https://[::1]/v2/",
            "http://10.1.2.3:5000/v2/a;b=c/d?e;f",
            "https://Storage.TEST:443/x?u=https://other.test/?y=1",
            "https://storage.test?query",
        ):
            self.scripted.add_page(url.partition("?")[0], b"here")
            answer = self.send(url)
            self.assertEqual((self.last.url, answer.url), (url, url))
            self.assertEqual(self.read(answer), b"here")

    def test_methods(self) -> None:
        """The method is asked for as it is."""
        self.scripted.add_page(PAGE, DATA)
        answer = self.send(PAGE, method="HEAD")
        self.assertEqual(self.last.method, "HEAD")
        self.assertEqual(answer.header("Content-Length"), str(len(DATA)))
        self.assertEqual(self.read(answer), b"")

    def test_request_headers(self) -> None:
        """Identity is asked for; besides that, only what was given and who asks is sent."""
        self.scripted.add_page(PAGE, b"")
        self.send(PAGE, {"Accept": "a/b, c/d", "Range": "bytes=1-", "Accept-Encoding": "gzip"})
        self.assertEqual(
            dict(self.last.headers.getAllRawHeaders()),
            {
                b"Accept": [b"a/b, c/d"],
                b"Accept-Encoding": [b"identity"],
                b"Range": [b"bytes=1-"],
                b"User-Agent": [f"regproxy/{__version__}".encode()],
            },
        )

    def test_encoded_body(self) -> None:
        """A body labelled gzip is passed on as it came, and its label is told."""
        for label in ("gzip", "x-gzip", "GZIP", "gzip, gzip", "deflate", "zstd"):
            self.scripted.add_page(PAGE, ZIPPED, headers={"Content-Encoding": label})
            answer = self.send(PAGE)
            self.assertEqual(answer.header("Content-Encoding"), label)
            self.assertEqual(answer.headers("content-encoding"), [label])
            self.assertEqual(answer.length, len(ZIPPED))
            self.assertEqual(self.read(answer), ZIPPED)

    def test_false_label(self) -> None:
        """A label that is wrong harms nobody, streamed or read."""
        self.scripted.add_page(PAGE, DATA, headers={"Content-Encoding": "gzip"})
        self.assertEqual(self.read(self.send(PAGE)), DATA)
        sink = Sink()
        self.send(PAGE).deliver(sink)
        self.clock.advance(0)
        self.assertEqual(sink.body, DATA)

    def test_no_label(self) -> None:
        """A body without a label has none, whatever other headers upstream makes up."""
        self.scripted.add_page(PAGE, DATA, headers={"X-Regproxy-Content-Encoding": "gzip"})
        answer = self.send(PAGE)
        self.assertEqual(answer.headers("Content-Encoding"), [])
        self.assertEqual(answer.headers("X-Regproxy-Content-Encoding"), [])

    def test_cookies(self) -> None:
        """A cookie is never sent back."""
        cookie = {"Set-Cookie": "session=1; Path=/; Domain=registry.test"}
        self.scripted.add_page(PAGE, b"", headers=cookie)
        for _ in range(3):
            self.send(PAGE)
            self.assertIsNone(self.last.header("Cookie"))

    def test_no_redirect(self) -> None:
        """A redirect is an answer like any other here."""
        self.scripted.add_page(PAGE, b"moved", status=302, headers={"Location": "/x"})
        answer = self.send(PAGE)
        self.assertEqual((answer.status, self.read(answer)), (302, b"moved"))
        self.assertEqual(len(self.scripted.requests), 1)

    def test_statuses(self) -> None:
        """Every status is an answer, its body unread."""
        for status in (*(s.value for s in HTTPStatus if s.value >= 200), 299, 499, 599):
            self.scripted.add_page(PAGE, b"body", status=status)
            self.assertEqual(self.send(PAGE).status, status)

    def test_length(self) -> None:
        """The announced length is told, and None where there is none."""
        self.scripted.add_page(PAGE, DATA)
        for framing, length in [
            (Framing.LENGTH, len(DATA)),
            (Framing.CHUNKED, None),
            (Framing.CLOSE, None),
        ]:
            self.scripted.script(Fault(framing=framing))
            self.assertEqual(self.send(PAGE).length, length)

    def test_response_headers(self) -> None:
        """A header that is absent is None, and bytes beyond ASCII are replaced."""
        self.scripted.add_page(PAGE, b"", headers={"X-Name": "caf\xe9"})
        answer = self.send(PAGE)
        self.assertIsNone(answer.header("X-Other"))
        self.assertEqual(answer.header("x-name"), "caf\ufffd")


class FailureTests(UpstreamCase):
    """What is said of an upstream that does not answer."""

    def failed(self, fault: Fault) -> RegistryError:
        """The refusal that *fault* leads to."""
        self.scripted.add_page(PAGE, b"")
        self.scripted.script(fault)
        return self.refused(self.exchange.send("GET", PAGE, {}, self.deadline()))

    def test_connecting(self) -> None:
        """Each way of not getting through is 502, and says which it was."""
        for failure, said in [
            (error.ConnectionRefusedError(111, "Connection refused"), "111: Connection refused"),
            (error.NoRouteError(113, "No route to host"), "113: No route to host"),
            (error.TCPTimedOutError(110, "too\nlong"), "timed out"),
            (error.TimeoutError(), "connecting timed out"),
            (
                error.DNSLookupError("no results for hostname lookup: x"),
                "name not found (DNS lookup failed: no",
            ),
            (error.ConnectionLost(), "the connection was lost before an answer came"),
            (ValueError("two\nlines\x00" + "x" * 10_000), "ValueError: two lines"),
            (RuntimeError(), "cannot be reached: RuntimeError"),
        ]:
            refusal = self.failed(Fault(connect_failure=failure))
            self.assertEqual(refusal.status, 502)
            self.assertTrue(refusal.message.startswith("registry.test cannot be reached: "))
            self.assertIn(said, refusal.message)
        self.assert_nothing_left()

    def test_trust(self) -> None:
        """A handshake that failed says why, in TLS's own words."""
        reasons = [("SSL routines", "", "certificate verify failed")]
        for failure, said in [
            (SSL.Error(reasons), "TLS: certificate verify failed"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "SysCallError: (-1, 'Unexpected EOF')"),
            (SSL.ZeroReturnError(), "ZeroReturnError"),
        ]:
            wrapped = ResponseNeverReceived([Failure(failure)])
            refusal = self.failed(Fault(connect_failure=wrapped))
            self.assertEqual(refusal.message, f"registry.test cannot be reached: {said}")

    def test_unknown_host(self) -> None:
        """A name that does not exist is 502."""
        refusal = self.refused(
            self.exchange.send("GET", "https://nowhere.test/", {}, self.deadline())
        )
        self.assertEqual(refusal.status, 502)
        self.assertIn("nowhere.test cannot be reached: name not found", refusal.message)

    def test_lost(self) -> None:
        """A connection that ends before the headers is 502, in whichever way it ends."""
        for cleanly in (False, True):
            refusal = self.failed(Fault(cut_at=BEFORE_HEADERS, cut_cleanly=cleanly))
            self.assertEqual(refusal.status, 502)
            self.assertIn("lost before an answer came", refusal.message)
        self.assert_nothing_left()

    def test_garbage(self) -> None:
        """What is no HTTP is 502, and no more than a little of it is quoted."""
        refusal = self.failed(Fault(headers={"X": "y\r\nno header at all " + "x" * 10_000}))
        self.assertEqual(refusal.status, 502)
        self.assert_nothing_left()

    def test_silence(self) -> None:
        """Headers that do not come by the deadline are 504, whatever was waited for."""
        self.scripted.add_page(PAGE, b"")
        for fault in (Fault(silent=True), Fault(latency=30)):
            self.scripted.script(fault)
            waiting = self.start(self.exchange.send("GET", PAGE, {}, self.deadline()))
            self.clock.advance(24.9)
            self.assertNoResult(waiting)
            self.clock.advance(0.1)
            refusal = self.error(waiting)
            self.assertEqual(refusal.status, 504)
            self.assertIn("registry.test: GET", refusal.message)
            self.assertTrue(self.last.cancelled)
            self.clock.advance(30)
        self.assert_nothing_left()

    def test_cancel(self) -> None:
        """Whoever leaves takes the request along."""
        self.scripted.hold("/page")
        self.scripted.add_page(PAGE, b"")
        waiting: Deferred[Answer] = self.start(self.exchange.send("GET", PAGE, {}, self.deadline()))
        waiting.cancel()
        self.failureResultOf(waiting)
        self.clock.advance(0)
        self.assertTrue(self.last.cancelled)
        self.assert_nothing_left()
