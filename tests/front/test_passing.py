"""Requests that are passed on as they are, and their answers."""

from __future__ import annotations

from twisted.internet.error import ConnectionRefusedError

from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.testing import BEFORE_HEADERS, Fault, Framing
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.passing import Passage
from tests.front.proxy import QUAY, SILENCE
from tests.front.pushing import BODY, VIA, PassingCase

PAGE = f"{QUAY}/api"


class Passing(PassingCase):
    """Everything goes to quay.io."""

    def setUp(self) -> None:
        """Puts a page there."""
        super().setUp()
        self.upstream.add_page(PAGE, b"page", headers={"Content-Type": "text/html"})
        exchange = Exchange(self.upstream, self.clock, VIA)
        self.passage = Passage("quay.io", QUAY, exchange, self.clock)

    async def serve(self, client: Client, deadline: Deadline) -> None:
        """Passes it on."""
        await self.passing.answer(client, client.target, self.passage, client.body, deadline)


class HeadersTest(Passing):
    """What goes through, and what does not."""

    def test_answer(self) -> None:
        """Status, headers, length and body come back as they are, and Via besides."""
        self.upstream.script(Fault(headers={"X-Mine": "1", "Cache-Status": "theirs; hit"}))
        answer = self.pass_on("GET", "/api?x=%20a&y")
        self.assert_whole(answer, b"page")
        self.assertEqual(answer.header("Content-Length"), "4")
        self.assertEqual(answer.headers.getRawHeaders("Content-Type"), ["text/html"])
        self.assertEqual(answer.header("X-Mine"), "1")
        self.assertEqual(answer.header("Via"), f"1.1 {VIA}")
        self.assertEqual(
            answer.headers.getRawHeaders("Cache-Status"),
            ["regproxy; fwd=bypass", "theirs; hit"],
        )
        self.assertEqual(self.upstream.requests[0].url, f"{PAGE}?x=%20a&y")

    def test_several_values(self) -> None:
        """Headers that come several times do so for the client, and for upstream."""
        links = ['</a>; rel="next"', '</b>; rel="last"']
        self.upstream.script(Fault(headers={"Set-Cookie": ["a=1", "b=2"], "Link": links}))
        answer = self.pass_on("GET", "/api", {"Accept": ["text/html", "text/plain"]})
        self.assertEqual(answer.headers.getRawHeaders("Set-Cookie"), ["a=1", "b=2"])
        self.assertEqual(answer.headers.getRawHeaders("Link"), links)
        (request,) = self.upstream.requests
        self.assertEqual(request.headers.getRawHeaders("Accept"), ["text/html", "text/plain"])

    def test_cookies_of_one_client(self) -> None:
        """A cookie that one client was given is not sent with the request of the next."""
        self.upstream.script(Fault(headers={"Set-Cookie": "a=1"}))
        self.pass_on("GET", "/api")
        self.pass_on("GET", "/api")
        self.pass_on("GET", "/api", {"Cookie": "c=3"})
        cookies = [request.header("Cookie") for request in self.upstream.requests]
        self.assertEqual(cookies, [None, None, "c=3"])

    def test_connection_headers(self) -> None:
        """What concerns one connection stays on it, named in Connection or not, both ways."""
        self.upstream.script(
            Fault(headers={"Keep-Alive": "5", "Proxy-Authenticate": "Basic", "Upgrade": "h2c"})
        )
        answer = self.pass_on(
            "GET",
            "/api",
            {
                "Connection": "keep-alive, X-Mine",
                "X-Mine": "1",
                "Keep-Alive": "5",
                "TE": "trailers",
                "Upgrade": "websocket",
                "Proxy-Authorization": "Basic eA==",
                "Proxy-Connection": "keep-alive",
                "Transfer_Encoding": "chunked",
                "X_Mine": "1",
                "X_Forwarded_Host": "evil.example",
                "X-Other": "2",
            },
        )
        sent = self.upstream.requests[0].headers
        names = {name.lower() for name, _ in sent.getAllRawHeaders()}
        self.assertEqual(names, {b"accept-encoding", b"x-other", b"via"} - {b"accept-encoding"})
        for name in ("Keep-Alive", "Proxy-Authenticate", "Upgrade"):
            self.assertIsNone(answer.header(name))

    def test_claims_of_proxies(self) -> None:
        """Nobody can choose, by a header of proxies, which host a registry puts into its URLs."""
        claims = ("Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-For")
        self.pass_on("GET", "/api", {**dict.fromkeys(claims, "169.254.169.254"), "X-Real-IP": "1"})
        sent = self.upstream.requests[0].headers
        self.assertEqual([name for name in (*claims, "X-Real-IP") if sent.hasHeader(name)], [])

    def test_via(self) -> None:
        """The client's Via is kept, and this proxy comes behind it."""
        self.pass_on("GET", "/api", {"Via": "1.0 other"})
        values = self.upstream.requests[0].headers.getRawHeaders("Via")
        self.assertEqual(values, ["1.0 other", f"1.1 {VIA}"])

    def test_host(self) -> None:
        """Upstream gets its own name as Host."""
        self.pass_on("GET", "/api", {"Host": "quay.test"})
        self.assertFalse(self.upstream.requests[0].headers.hasHeader("Host"))

    def test_credential(self) -> None:
        """The client's credential is passed on, and the registry's challenges come back."""
        challenges = ['Bearer realm="https://quay.io/auth"', 'Basic realm="quay"']
        self.upstream.script(Fault(status=401, headers={"WWW-Authenticate": challenges}))
        answer = self.pass_on("GET", "/api", {"Authorization": "Bearer mine"})
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers.getRawHeaders("WWW-Authenticate"), challenges)
        self.assertEqual(self.upstream.requests[0].header("Authorization"), "Bearer mine")
        self.assertEqual(len(self.upstream.requests), 1)

    def test_credential_elsewhere(self) -> None:
        """A URL at another origin is asked without a word of who asks, and sets no cookie."""
        page = {"Set-Cookie": "a=b", "X-Kept": "yes"}
        self.upstream.add_page("https://other.example/x", b"other", headers=page)

        async def serve(client: Client, deadline: Deadline) -> None:
            target = "https://other.example/x"
            await self.passing.answer(client, target, self.passage, None, deadline)

        self.serve = serve  # type: ignore[method-assign]
        self.start()
        secrets = {"Authorization": "Bearer mine", "Cookie": "session=1", "X-Auth-Token": "mine"}
        answer = self.pass_on("GET", "/", {**secrets, "Content-Type": "text/plain"})
        self.assert_whole(answer, b"other")
        self.assertEqual((answer.header("Set-Cookie"), answer.header("X-Kept")), (None, "yes"))
        (asked,) = self.upstream.requests
        self.assertEqual([asked.header(name) for name in secrets], [None] * 3)
        self.assertEqual(asked.header("Content-Type"), "text/plain")

    def test_encodings(self) -> None:
        """What encodings the client accepts goes up, and an encoded body comes back as it is."""
        self.upstream.script(Fault(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b no gzip"))
        answer = self.pass_on("GET", "/api", {"Accept-Encoding": "gzip, br"})
        self.assertEqual(self.upstream.requests[0].header("Accept-Encoding"), "gzip, br")
        self.assertEqual(answer.headers.getRawHeaders("Content-Encoding"), ["gzip"])
        self.assert_whole(answer, b"\x1f\x8b no gzip")

    def test_no_encodings(self) -> None:
        """For a client that says nothing of encodings or of itself, nothing is said."""
        answer = self.pass_on("GET", "/api")
        self.assertFalse(answer.headers.hasHeader("Content-Encoding"))
        self.assertIsNone(self.upstream.requests[0].header("Accept-Encoding"))
        self.assertIsNone(self.upstream.requests[0].header("User-Agent"))

    def test_date_and_server(self) -> None:
        """Upstream's Date and Server come in place of the proxy's, not besides them."""
        date = "Tue, 01 Jan 2030 00:00:00 GMT"
        self.upstream.script(Fault(headers={"Date": date, "Server": "quay"}))
        answer = self.pass_on("GET", "/api")
        self.assertEqual(answer.headers.getRawHeaders("Date"), [date])
        self.assertEqual(answer.headers.getRawHeaders("Server"), ["quay"])

    def test_bytes_of_headers(self) -> None:
        """Values outside ASCII are passed on byte for byte, in both directions."""
        self.upstream.script(Fault(headers={"X-Mine": "caf\xe9"}))
        answer = self.pass_on("GET", "/api")
        self.assertEqual(answer.headers.getRawHeaders(b"X-Mine"), [b"caf\xe9"])

    def test_redirects(self) -> None:
        """A redirect is the client's to follow."""
        self.upstream.script(Fault(status=302, headers={"Location": "https://other.example/"}))
        answer = self.pass_on("GET", "/api")
        self.assertEqual(answer.status, 302)
        self.assertEqual(answer.header("Location"), "https://other.example/")
        self.assertEqual(len(self.upstream.requests), 1)


class BodilessTest(Passing):
    """Answers without a body."""

    def test_head(self) -> None:
        """HEAD is answered with the length that upstream tells, and without a body."""
        answer = self.pass_on("HEAD", "/api")
        self.assert_whole(answer, b"")
        self.assertEqual(answer.header("Content-Length"), "4")
        self.assertEqual(self.upstream.requests[0].method, "HEAD")

    def test_statuses(self) -> None:
        """204 and 304 have no body and no length; the connection goes on."""
        client = self.connect()
        for status in (204, 304):
            self.upstream.script(Fault(status=status, headers={"ETag": '"1"'}))
            answer = client.request("GET", "/api")
            self.proxy.settle()
            self.assert_whole(answer, b"", status)
            self.assertIsNone(answer.header("Content-Length"))
            self.assertIsNone(answer.header("Transfer-Encoding"))
            self.assertEqual(answer.header("ETag"), '"1"')
        self.assertFalse(client.disconnected)

    def test_unknown_length(self) -> None:
        """A body whose length upstream does not tell arrives whole."""
        self.upstream.script(Fault(framing=Framing.CHUNKED, piece=3, body=BODY[:1000]))
        answer = self.pass_on("GET", "/api")
        self.proxy.settle(400)
        self.assert_whole(answer, BODY[:1000])

    def test_method(self) -> None:
        """Any method is passed on, save TRACE."""
        self.assert_whole(self.pass_on("PROPFIND", "/api"), b"page")
        self.assertEqual(self.upstream.requests[0].method, "PROPFIND")
        self.assert_error(self.pass_on("TRACE", "/api"), 405, "UNSUPPORTED")
        self.assertEqual(len(self.upstream.requests), 1)


class RequestBodyTest(Passing):
    """Bodies of requests."""

    def test_length(self) -> None:
        """A body goes up with its length, and is counted."""
        self.assert_whole(self.pass_on("POST", "/api", body=BODY), b"page")
        (request,) = self.upstream.requests
        self.assertTrue(request.body == BODY)
        self.assertEqual(self.resource.clients[0].entry.received, len(BODY))

    def test_chunks(self) -> None:
        """A body without a length goes up in chunks, whole."""
        pieces = [BODY[:5], BODY[5:70_000], BODY[70_000:]]
        self.assert_whole(self.pass_on("PATCH", "/api", chunks=pieces), b"page")
        self.assertTrue(self.upstream.requests[0].body == BODY)
        self.assertTrue(self.upstream.requests[0].whole)

    def test_continue(self) -> None:
        """Whoever waits to be told to send is told when upstream is there, and not before."""
        client, answer = self.begin("PUT", "/api", 4, {"Expect": "100-continue"})
        self.assertEqual(client.informational, [100])
        self.assertIsNone(self.upstream.requests[0].header("Expect"))
        client.send(b"body")
        self.proxy.settle()
        self.assert_whole(answer, b"page")

    def test_no_continue(self) -> None:
        """Where upstream cannot be reached, the client never sends its body."""
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()))
        client, answer = self.begin("PUT", "/api", 4, {"Expect": "100-continue"})
        self.assertEqual(client.informational, [])
        self.assert_error(answer, 502, "UNKNOWN")

    def test_streamed(self) -> None:
        """Upstream has the first bytes before the client has sent the last."""
        client, answer = self.begin("PUT", "/api", 6)
        client.send(b"one")
        self.proxy.settle()
        self.assertEqual(self.upstream.requests[0].body, b"one")
        client.send(b"two")
        self.proxy.settle()
        self.assert_whole(answer, b"page")

    def test_back_pressure(self) -> None:
        """While upstream does not read, neither is the client read beyond a few buffers."""
        self.upstream.script(Fault(read=1000))
        size = 4 * 1024 * 1024
        client, answer = self.begin("PUT", "/api", size)
        sent = 0
        while sent < size:
            client.send(BODY)
            sent += len(BODY)
            self.proxy.settle(2)
        (body,) = self.resource.bodies
        assert body is not None
        self.assertLess(body.received, 1024 * 1024)
        self.assertFalse(client.transport.reading)
        self.upstream.read_on()
        self.proxy.settle(200)
        self.assert_whole(answer, b"page")
        self.assertEqual(len(self.upstream.requests[0].body), size)

    def test_slow_body(self) -> None:
        """A body that takes an hour is not cut: the answer's deadline begins at its end."""
        client, answer = self.begin("PUT", "/api", 120 * 2048)
        for _ in range(120):
            self.clock.advance(30.0)
            client.send(bytes(2048))
        self.proxy.settle()
        self.assert_whole(answer, b"page")

    def test_no_answer(self) -> None:
        """From the end of the body on the answer has its deadline."""
        self.upstream.script(Fault(silent=True))
        client, answer = self.begin("PUT", "/api", 2)
        self.clock.advance(40.0)
        client.send(b"xx")
        self.clock.pump([1.0] * 24)
        self.assertEqual(answer.status, 0)
        self.clock.pump([1.0] * 2)
        self.assert_error(answer, 504, "UNKNOWN")
        self.assertEqual(self.upstream.connections, 0)

    def test_upstream_takes_nothing(self) -> None:
        """An upstream that stops reading is given up after the silence deadline."""
        self.upstream.script(Fault(read=1000))
        client, answer = self.begin("PUT", "/api", len(BODY) * 20)
        for _ in range(10):
            client.send(BODY)
        self.clock.pump([1.0] * (int(SILENCE) - 2))
        self.assertEqual(answer.status, 0)
        self.clock.pump([1.0] * 4)
        self.assertIn("took nothing", self.assert_error(answer, 504, "UNKNOWN"))
        self.proxy.settle()
        self.assertEqual(self.upstream.connections, 0)

    def test_early_answer(self) -> None:
        """An answer that comes before the end of the body is passed back, and is the last."""
        self.upstream.script(Fault(status=413, answer_after=1000))
        client, answer = self.begin("PUT", "/api", len(BODY) * 20)
        client.send(BODY)
        self.proxy.settle()
        self.assertEqual(answer.status, 413)
        self.assertTrue(answer.complete)
        self.assertEqual(answer.header("Connection"), "close")
        self.assertEqual(self.upstream.connections, 0)
        self.clock.pump([1.0] * 5)
        self.assertTrue(client.disconnected)

    def test_early_answer_in_pieces(self) -> None:
        """So is one that takes its time, though upstream reads no more of the body."""
        page = BODY[:50_000]
        self.upstream.script(
            Fault(status=413, body=page, answer_after=0, read=1000, piece=10_000, rate=20_000.0)
        )
        client, answer = self.begin("PUT", "/api", len(BODY) * 20)
        client.send(BODY)
        client.send(BODY)
        self.clock.pump([0.1] * 40)
        self.assert_whole(answer, page, 413)
        self.assertEqual(self.upstream.connections, 0)

    def test_endless_early_answer(self) -> None:
        """An early answer without an end is not kept in memory."""
        page = bytes(2 * 1024 * 1024)
        self.upstream.script(Fault(status=200, body=page, answer_after=0, read=1000))
        client, answer = self.begin("PUT", "/api", len(BODY) * 20)
        client.send(BODY)
        self.proxy.settle(60)
        self.assert_error(answer, 502, "UNKNOWN")

    def test_answer_before_the_end(self) -> None:
        """An answer that begins early and outlasts the body is streamed from then on."""
        page = bytes(1024 * 1024)
        self.upstream.script(Fault(status=200, body=page, answer_after=1, rate=100_000.0))
        client, answer = self.begin("PUT", "/api", 3)
        client.send(b"xx")
        self.clock.pump([0.1] * 10)
        self.assertEqual(answer.status, 0)
        client.send(b"x")
        self.clock.pump([0.1] * 200)
        self.assert_whole(answer, page)

    def test_upstream_dies(self) -> None:
        """A connection that is lost while the body flows is 502, and the last answer."""
        self.upstream.script(Fault(answer_after=1000, cut_at=BEFORE_HEADERS))
        client, answer = self.begin("PUT", "/api", len(BODY) * 20)
        client.send(BODY)
        self.proxy.settle()
        self.assert_error(answer, 502, "UNKNOWN")
        self.assertEqual(answer.header("Connection"), "close")

    def test_answer_dies(self) -> None:
        """An answer that breaks off in its body is cut for the client."""
        self.upstream.script(Fault(cut_at=2))
        self.assert_cut(self.pass_on("POST", "/api", body=b"x"))

    def test_client_leaves(self) -> None:
        """A client that leaves in its body has the upstream request aborted."""
        client, _ = self.begin("PUT", "/api", len(BODY) * 20)
        client.send(BODY)
        self.proxy.settle()
        self.assertEqual(self.upstream.connections, 1)
        client.drop()
        self.proxy.settle()
        self.assertEqual(self.upstream.connections, 0)
        self.assertFalse(self.upstream.requests[0].whole)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_client_leaves_before_the_answer(self) -> None:
        """So has one that leaves while it waits."""
        self.upstream.hold("/api")
        client = self.connect()
        client.request("POST", "/api", body=b"x")
        self.proxy.settle()
        client.drop()
        self.proxy.settle()
        self.assertTrue(self.upstream.requests[0].cancelled)

    def test_client_leaves_in_the_answer(self) -> None:
        """So has one that leaves while it is answered."""
        self.upstream.hold("/api", at=2)
        client = self.connect()
        client.request("GET", "/api")
        self.proxy.settle()
        client.drop()
        self.proxy.settle()
        self.assertTrue(self.upstream.requests[0].aborted)

    def test_silent_client(self) -> None:
        """A client that falls silent in its body is hung up on, and upstream let go."""
        client, answer = self.begin("PUT", "/api", 10)
        client.send(b"x")
        self.clock.pump([1.0] * 62)
        self.assertTrue(client.disconnected)
        self.assertEqual(answer.status, 0)
        self.assertEqual(self.upstream.connections, 0)


class RewriteTest(Passing):
    """Locations that are rewritten."""

    async def serve(self, client: Client, deadline: Deadline) -> None:
        """Passes it on with another Location."""

        def location(answer: Answer, value: str) -> str:
            return f"{answer.status} {value}"

        await self.passing.answer(
            client, client.target, self.passage, client.body, deadline, location=location
        )

    def test_location(self) -> None:
        """Location is what the rewriting makes of it."""
        self.upstream.script(Fault(status=302, headers={"Location": "/b"}))
        self.assertEqual(self.pass_on("GET", "/api").header("Location"), "302 /b")
