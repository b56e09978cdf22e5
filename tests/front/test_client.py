"""One request as the pipeline sees it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from regproxy.front.client import Client
from regproxy.front.stall import ClientGone
from regproxy.model.errors import unauthorized
from regproxy.model.outcome import Outcome


class ClientTests(SynchronousTestCase):
    """Headers in, an answer out."""

    def client(self, *headers: tuple[str, bytes], method: bytes = b"GET") -> Client:
        """A client that sent these."""
        self.clock = Clock()
        self.transport = StringTransport()
        self.channel = cast(Any, HTTPChannel())
        self.channel.site = Site(Resource())
        self.channel.makeConnection(self.transport)
        request = Request(self.channel)
        self.channel.requests.append(request)
        request.method, request.uri = method, b"/v2/?x=\xff"
        request.clientproto = b"HTTP/1.1"
        for name, value in headers:
            request.requestHeaders.addRawHeader(name, value)
        return Client(request, self.clock)

    @property
    def written(self) -> bytes:
        """What was sent."""
        return bytes(self.transport.value())

    def test_headers(self) -> None:
        """Header values are text, whatever their bytes."""
        client = self.client(("X-A", b"\xff"), ("X-A", b"b"))
        self.assertEqual(client.header("x-a"), "ÿ")
        self.assertEqual(client.headers("X-A"), ["ÿ", "b"])
        self.assertIsNone(client.header("x-b"))
        self.assertEqual(client.target, "/v2/?x=ÿ")

    def test_authorization(self) -> None:
        """Only a credential that says something is one."""
        for value in (b"Basic Og==", b"basic og==", b" Basic ", b""):
            self.assertIsNone(self.client(("Authorization", value)).authorization)
        self.assertIsNone(self.client().authorization)
        for credential in ("Bearer x", "Basic YTpi"):
            client = self.client(("Authorization", credential.encode()))
            self.assertEqual(client.authorization, credential)

    def test_matches(self) -> None:
        """``If-None-Match`` compares weakly, over lists and several headers."""
        for value in (b'"a"', b'W/"a"', b'"b" , "a"', b"*"):
            self.assertTrue(self.client(("If-None-Match", value)).matches('"a"'))
        self.assertFalse(self.client(("If-None-Match", b'"b"')).matches('"a"'))
        self.assertFalse(self.client().matches('"a"'))
        client = self.client(("If-None-Match", b'"b"'), ("If-None-Match", b'"a"'))
        self.assertTrue(client.matches('"a"'))

    def test_answer(self) -> None:
        """Status, headers and body; the entry for the log."""
        client = self.client()
        client.head(200, [("Content-Length", "4"), ("X-A", "1"), ("X-A", "2")], Outcome.MISS)
        client.begin()
        self.assertIn(b"X-A: 1\r\nX-A: 2\r\n", self.written)
        self.assertIn(b"Cache-Status: regproxy; fwd=uri-miss; stored\r\n", self.written)
        self.assertTrue(self.written.endswith(b"\r\n\r\n"))
        self.clock.advance(1.5)
        client.finish(b"body")
        self.assertTrue(self.written.endswith(b"\r\n\r\nbody"))
        entry = client.described()
        self.assertEqual((entry.status, entry.sent, entry.seconds), (200, 4, 1.5))
        self.assertEqual((entry.outcome, entry.note), ("MISS", ""))

    def test_no_content_type(self) -> None:
        """Twisted's own Content-Type is not sent where upstream sent none."""
        client = self.client()
        client.head(304, [], Outcome.HIT)
        client.finish()
        self.assertNotIn(b"Content-Type", self.written)

    def test_refuse(self) -> None:
        """A refusal has all its headers, and no outcome."""
        client = self.client()
        client.refuse(unauthorized("no", ["Basic realm=a", "Bearer realm=b"]))
        self.assertIn(b"WWW-Authenticate: Basic realm=a\r\n", self.written)
        self.assertIn(b"Bearer realm=b\r\n", self.written)
        self.assertNotIn(b"Cache-Status", self.written)
        self.assertEqual(client.described().status, 401)

    def test_refuse_too_late(self) -> None:
        """After the headers an error can only cut the connection."""
        client = self.client()
        client.head(200, [("Content-Length", "4")], Outcome.MISS)
        client.begin()
        client.refuse(unauthorized("two\nlines", []))
        self.assertTrue(self.transport.disconnected)
        self.assertEqual(client.described().note, "two lines")

    def test_left(self) -> None:
        """A client that is gone is asked nothing and told nothing any more."""
        client = self.client()
        client.check_here()
        client.request.connectionLost(Failure(ConnectionError()))
        self.assertRaises(ClientGone, client.check_here)
        client.finish(b"x")
        client.refuse(unauthorized("no", []))
        entry = client.described()
        self.assertEqual((entry.status, entry.note), (0, "client left"))
