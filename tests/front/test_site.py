"""What clients may send, and how long they may take over it."""

from __future__ import annotations

from attrs import evolve

from regproxy.testing import MemoryAnswer, MemoryClient
from tests.front.proxy import ALPINE, DATA, HUB, LIMITS, ProxyCase

PUSH = f"/v2/{ALPINE}/blobs/uploads/"


class SiteCase(ProxyCase):
    """Raw bytes to a proxy."""

    def send(self, data: bytes, client: MemoryClient | None = None) -> MemoryAnswer:
        """The answer to these bytes."""
        client = client or self.proxy.client()
        answer = client.expect(data.partition(b" ")[0].decode("latin-1"))
        client.send(data)
        self.proxy.settle()
        return answer

    def line(self) -> dict[str, str]:
        """The only line of the access log."""
        (line,) = self.proxy.lines
        return line


class BodyTests(SiteCase):
    """A body that nothing which is served needs is refused at the headers, and not received."""

    def assert_refused(self, head: str, status: int, code: str) -> MemoryClient:
        """Asserts that a request is refused at its headers."""
        client = self.proxy.client()
        answer = self.send(head.encode(), client)
        self.assert_error(answer, status, code)
        self.assertEqual(answer.header("Connection"), "close")
        self.assertEqual(client.informational, [])
        self.assertEqual(self.upstream.requests, [])
        line = self.line()
        self.assertEqual((line["status"], line["client"]), (str(status), "127.0.0.1"))
        return client

    def test_length(self) -> None:
        """600 MB are refused before the first of them; what comes is thrown away for a while."""
        client = self.assert_refused(
            f"POST {PUSH} HTTP/1.1\r\nHost: p\r\nContent-Length: 629145600\r\n\r\n",
            405,
            "UNSUPPORTED",
        )
        for _ in range(4):
            client.send(b"x" * 65536)
            self.clock.advance(0.5)
        self.assertFalse(client.disconnected)
        self.clock.advance(1.5)
        self.assertTrue(client.disconnected)
        self.assertEqual(len(self.proxy.site.connections), 0)
        line = self.line()
        self.assertEqual((line["method"], line["reference"]), ("POST", PUSH))

    def test_chunked(self) -> None:
        """The same for a body of unknown length."""
        self.assert_refused(
            f"PATCH {PUSH}x HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            405,
            "UNSUPPORTED",
        )

    def test_expect(self) -> None:
        """A client that asks first is not told to go on."""
        self.assert_refused(
            f"PUT {PUSH}x HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            405,
            "UNSUPPORTED",
        )

    def test_get(self) -> None:
        """A GET with a body is refused as well."""
        self.assert_refused(
            f"GET {self.blob} HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\nx",
            413,
            "SIZE_INVALID",
        )

    def test_head(self) -> None:
        """The refusal of a HEAD has no body."""
        client = self.proxy.client()
        answer = self.send(
            f"HEAD {self.blob} HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\nx".encode(), client
        )
        self.assertEqual((answer.status, answer.complete), (413, True))
        self.assertEqual(len(client.answers), 1)

    def test_empty(self) -> None:
        """A length of 0 is no body: docker starts pushes so, and keeps its connection."""
        client = self.proxy.client()
        for _ in range(2):
            answer = self.send(
                f"POST {PUSH} HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n".encode(), client
            )
            self.assert_error(answer, 405, "UNSUPPORTED")
        self.assertFalse(client.disconnected)


class MalformedTests(SiteCase):
    """Requests about which parsers disagree are refused, with an answer and a line."""

    def assert_malformed(self, data: bytes, status: int = 400) -> MemoryClient:
        """Asserts the refusal, and that the rest is not taken for another request."""
        client = self.proxy.client()
        answer = self.send(data, client)
        self.assert_error(answer, status, "UNSUPPORTED")
        self.assertEqual(self.line()["status"], str(status))
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n")
        self.clock.advance(3)
        self.assertEqual(len(client.answers), 1)
        self.assertTrue(client.disconnected)
        self.assertEqual(self.upstream.requests, [])
        return client

    def test_folded(self) -> None:
        """Obsolete folding."""
        self.assert_malformed(b"GET /v2/ HTTP/1.1\r\nHost: p\r\nX: a\r\n b\r\n\r\n")

    def test_length_and_chunks(self) -> None:
        """Content-Length with Transfer-Encoding, either first."""
        length, chunked = b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"
        self.assert_malformed(
            b"POST /v2/ HTTP/1.1\r\nHost: p\r\n" + length + chunked + b"\r\n0\r\n\r\n"
        )

    def test_chunks_and_length(self) -> None:
        """The other order, with a header behind."""
        self.assert_malformed(
            b"GET /v2/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n"
            b"Host: p\r\n\r\n0\r\n\r\n"
        )

    def test_two_lengths(self) -> None:
        """Two Content-Length headers, even equal ones."""
        self.assert_malformed(
            b"GET /v2/ HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"
        )

    def test_two_hosts(self) -> None:
        """Two Host headers."""
        self.assert_malformed(b"GET /v2/ HTTP/1.1\r\nHost: p\r\nHost: q\r\n\r\n")

    def test_garbage(self) -> None:
        """What is no HTTP at all; the log line is one line all the same."""
        self.assert_malformed(b'\x00\xff "quoted" = garbage\r\n\r\n')
        self.assertEqual(self.proxy.log_text.count("\n"), 1)

    def test_header_without_colon(self) -> None:
        """A header line that is none, in the middle and at the end."""
        self.assert_malformed(b"GET /v2/ HTTP/1.1\r\nnonsense\r\nHost: p\r\n\r\n")

    def test_bad_chunk_coding(self) -> None:
        """A transfer coding that nobody knows."""
        self.assert_malformed(
            b"GET /v2/ HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        )

    def test_headers_too_large(self) -> None:
        """More header bytes than the limit, in many lines."""
        lines = b"".join(b"X-%d: %b\r\n" % (i, b"a" * 1000) for i in range(17))
        self.assert_malformed(b"GET /v2/ HTTP/1.1\r\nHost: p\r\n" + lines + b"\r\n", 431)

    def test_line_too_long(self) -> None:
        """The same in one line that never ends."""
        self.assert_malformed(b"GET /v2/" + b"a" * 17_000, 431)
        self.assertLess(len(self.proxy.log_text), 2000)

    def test_limit_is_configured(self) -> None:
        """What the limit allows passes, in one line too."""
        self.proxy = self.make_proxy(limits=evolve(LIMITS, header_size=64 * 1024))
        self.clock = self.proxy.clock
        answer = self.send(
            b"GET /v2/ HTTP/1.1\r\nHost: p\r\nCookie: " + b"a" * 60_000 + b"\r\n\r\n"
        )
        self.assert_whole(answer, b"{}")


class TlsOnPlainPortTests(SiteCase):
    """A client that tries TLS first."""

    def test_hung_up_on(self) -> None:
        """It is hung up on at once, so that it goes on to plain HTTP; that is no request."""
        client = self.proxy.client()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        self.assertTrue(client.disconnected)
        self.assertEqual(client.received, 0)
        self.assertEqual(self.proxy.lines, [])


class PipelineTests(SiteCase):
    """Several requests before the first answer."""

    def test_in_order(self) -> None:
        """Answers come in the order of their requests, however long the first one takes."""
        client = self.proxy.client()
        self.upstream.hold(self.path)
        first = client.request("GET", self.blob)
        rest = [client.request("GET", "/v2/"), client.request("HEAD", "/healthz")]
        self.proxy.settle()
        self.assertEqual(client.received, 0)
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_whole(first)
        self.assert_whole(rest[0], b"{}")
        self.assertTrue(rest[1].complete)
        self.assertEqual({line["bytes"] for line in self.proxy.lines}, {str(len(DATA)), "2", "0"})

    def test_in_one_piece(self) -> None:
        """Also when all of them came in one piece, and the connection is never idle meanwhile."""
        client = self.proxy.client()
        answers = [client.expect("GET") for _ in range(3)]
        self.upstream.hold(self.path)
        client.send(
            b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n"
            + f"GET {self.blob} HTTP/1.1\r\nHost: p\r\n\r\n".encode()
            + b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n"
        )
        self.proxy.settle()
        self.assertEqual([answer.complete for answer in answers], [True, False, False])
        self.assertEqual(self.proxy.site.connections.active, 1)
        self.proxy.site.connections.close_idle()
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_whole(answers[1])
        self.assert_whole(answers[2], b"{}")
        self.assertEqual(self.proxy.site.connections.active, 0)

    def test_too_many(self) -> None:
        """While one request is answered, not all of what follows is read."""
        client = self.proxy.client()
        self.upstream.hold(self.path)
        client.request("GET", self.blob)
        for _ in range(10):
            client.send(b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n" * 200)
        self.assertFalse(client.transport.reading)
        self.upstream.release(self.path)
        self.proxy.settle(100)
        self.assertEqual(len(client.answers), 2001)
        self.assertTrue(all(answer.complete for answer in client.answers))

    def test_http_1_0(self) -> None:
        """An old client gets a length and a close."""
        client = self.proxy.client()
        answer = self.send(f"GET {self.blob} HTTP/1.0\r\n\r\n".encode(), client)
        self.assert_whole(answer)
        self.assertTrue(client.disconnected)
        self.assertFalse(client.aborted)

    def test_connection_close(self) -> None:
        """A client that wants to be hung up on is."""
        client = self.proxy.client()
        answer = client.request("GET", self.blob, {"Connection": "close"})
        self.proxy.settle()
        self.assert_whole(answer)
        self.assertEqual(answer.header("Connection"), "close")
        self.assertTrue(client.disconnected)


class DeadlineTests(SiteCase):
    """How long clients may take."""

    def test_dripped_headers(self) -> None:
        """A byte now and then does not put off the deadline for the headers."""
        client = self.proxy.client()
        answer = client.expect("GET")
        client.send(b"GET /v2/ HTTP/1.1\r\nX: ")
        for _ in range(19):
            self.clock.advance(1)
            client.send(b"a")
        self.assertEqual(answer.status, 0)
        self.clock.advance(1)
        self.assert_error(answer, 408, "UNSUPPORTED")
        self.clock.advance(3)
        self.assertTrue(client.disconnected)
        line = self.line()
        self.assertEqual((line["status"], line["reference"]), ("408", "/v2/"))

    def test_dripped_request_line(self) -> None:
        """Nor does one before the first line has come to its end."""
        client = self.proxy.client()
        for _ in range(24):
            client.send(b"G")
            self.clock.advance(1)
        self.assertTrue(client.disconnected)
        self.assertEqual(client.answers[0].status, 408)
        self.assertEqual(self.line()["method"], "-")

    def test_dripped_second_request(self) -> None:
        """Nor one of a later request on the same connection."""
        client = self.proxy.client()
        self.send(b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\nGET", client)
        for _ in range(30):
            self.clock.advance(1)
            client.send(b"a")
        self.assertTrue(client.disconnected)
        self.assertEqual(client.answers[1].status, 408)

    def test_deadline_ends_with_the_headers(self) -> None:
        """It does not run while the answer does."""
        self.upstream.hold(self.path, at=10)
        client = self.proxy.client()
        answer = client.request("GET", self.blob)
        self.clock.pump([1.0] * 40)
        self.assertFalse(client.disconnected)
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_whole(answer)

    def test_idle(self) -> None:
        """A connection without a request is closed after a while, from its start or its last."""
        fresh, used = self.proxy.client(), self.proxy.client()
        self.clock.advance(70)
        used.request("GET", "/v2/")
        self.clock.advance(5)
        self.assertTrue(fresh.disconnected)
        self.clock.advance(69)
        self.assertFalse(used.disconnected)
        self.clock.advance(2)
        self.assertTrue(used.disconnected)
        self.assertEqual(len(self.proxy.site.connections), 0)

    def test_nothing_is_left(self) -> None:
        """A connection leaves no timer behind."""
        for data in (b"", b"GET", b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n", b"\x00\r\n\r\n"):
            client = self.proxy.client()
            client.send(data)
            client.drop()
            self.proxy.access_log.close()
            self.assertEqual(self.clock.getDelayedCalls(), [])


class ConnectionLimitTests(SiteCase):
    """How many connections there may be."""

    def setUp(self) -> None:
        """Allows three."""
        super().setUp()
        self.proxy = self.make_proxy(connections=3)
        self.upstream, self.clock = self.proxy.upstream, self.proxy.clock
        self.upstream.add_blob(HUB, ALPINE, DATA)

    def test_longest_idle_is_replaced(self) -> None:
        """One more replaces the one that has been idle for longest."""
        clients = [self.proxy.client() for _ in range(3)]
        clients[0].request("GET", "/v2/")
        newcomer = self.proxy.client()
        self.clock.advance(0)
        self.assertEqual([c.disconnected for c in clients], [False, True, False])
        self.assert_whole(newcomer.request("GET", "/v2/"), b"{}")

    def test_several_at_once(self) -> None:
        """Each newcomer replaces another one, also within one turn of the reactor."""
        clients = [self.proxy.client() for _ in range(5)]
        self.clock.advance(0)
        self.assertEqual([c.disconnected for c in clients], [True, True, False, False, False])

    def test_half_a_request(self) -> None:
        """A client that drips its headers counts as idle: it keeps nobody out."""
        for _ in range(3):
            self.proxy.client().send(b"GET ")
        self.assert_whole(self.proxy.ask("/v2/"), b"{}")

    def test_all_busy(self) -> None:
        """Running requests are never given up for a newcomer."""
        self.upstream.hold(self.path, at=10)
        answers = [self.proxy.ask(self.blob) for _ in range(3)]
        newcomer = self.proxy.client()
        self.clock.advance(0)
        self.assertTrue(newcomer.disconnected)
        self.upstream.release(self.path)
        self.proxy.settle()
        for answer in answers:
            self.assert_whole(answer)
        self.assert_whole(self.proxy.ask("/v2/"), b"{}")
