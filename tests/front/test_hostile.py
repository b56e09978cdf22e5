"""Whatever clients send, they get an answer that is no bug, and the log a line."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.front.proxy import ALPINE, ProxyCase

_PARTS = st.lists(
    st.sampled_from(
        [b"v2", b"library", b"alpine", b"manifests", b"blobs", b"tags", b"list", b"_catalog", b"..",
         b"referrers", b"latest", b"sha256:" + b"0" * 64, b"quay.io", b"ghcr.io", b"%2e%2f", b"%ff",
         b"?ns=", b"&", b"[::1]:5000", b"uploads", b"", b"\xff", b"#", b"*", b"http://x"]
    ),
    max_size=8,
)  # fmt: skip
_VALUES = st.binary(max_size=30).filter(lambda value: not re.search(rb"[\r\n\x00]", value))
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"Accept", b"Range", b"If-Range", b"If-None-Match", b"Authorization", b"Cookie",
             b"Connection", b"Expect", b"Host", b"Content-Length", b"Transfer-Encoding", b"X"]
        ),
        st.one_of(
            _VALUES,
            st.sampled_from([b"bytes=0-", b"bytes=-1", b"bytes=9-1", b"*", b"0", b"chunked", b"5"]),
        ),
    ),
    max_size=5,
)  # fmt: skip
_BODIES = st.lists(
    st.one_of(
        st.sampled_from([b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello", b"ffffffff\r\n", b"\n", b"5;a",
                         b"-1\r\n", b"GET /v2/ HTTP/1.1\r\nHost: p\r\n\r\n", b"\x16\x03\x01"]),
        st.binary(max_size=30),
    ),
    max_size=5,
)  # fmt: skip
_METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"CONNECT", b"OPTIONS", b"get", b"X" * 60])


class HostileTests(ProxyCase):
    """Requests made of what the proxy looks for, put together wrongly."""

    @settings(max_examples=150)
    @given(_METHODS, _PARTS, _HEADERS)
    def test_anything(
        self, method: bytes, parts: list[bytes], headers: list[tuple[bytes, bytes]]
    ) -> None:
        """One answer, never a 500; one line; nothing left running."""
        before = len(self.proxy.lines)
        client = self.proxy.client()
        answer = client.expect(method.decode())
        lines = [method + b" /" + b"/".join(parts) + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in headers]
        client.send(b"\r\n".join([*lines, b"", b""]))
        self.proxy.settle(5)
        client.drop()
        self.assertIn(answer.status // 100, (2, 3, 4, 5))
        self.assertNotEqual(answer.status, 500)
        self.assertEqual(len(self.proxy.lines), before + 1)
        self.assertEqual(self.proxy.lines[-1]["status"], str(answer.status))
        self.assertEqual(len(self.proxy.site.connections), 0)

    @settings(max_examples=150)
    @given(_HEADERS)
    def test_headers_of_a_pull(self, headers: list[tuple[bytes, bytes]]) -> None:
        """The same for requests that name something that is there."""
        for target in (self.blob, f"/v2/{ALPINE}/tags/list"):
            client = self.proxy.client()
            answer = client.expect("GET")
            lines = [b"GET " + target.encode() + b" HTTP/1.1"]
            lines += [name + b": " + value for name, value in headers]
            client.send(b"\r\n".join([*lines, b"", b""]))
            self.proxy.settle(5)
            client.drop()
            self.assertNotIn(answer.status, (0, 500))

    @settings(max_examples=150)
    @given(_METHODS, _HEADERS, _BODIES)
    def test_bodies(
        self, method: bytes, headers: list[tuple[bytes, bytes]], pieces: list[bytes]
    ) -> None:
        """Whatever comes behind the headers: no answer is a bug, and nothing is left running."""
        client = self.proxy.client()
        client.expect(method.decode())
        lines = [method + b" /v2/library/x/blobs/uploads/ HTTP/1.1", b"Host: p"]
        lines += [name + b": " + value for name, value in headers]
        client.send(b"\r\n".join([*lines, b"", b""]))
        for piece in pieces:
            client.send(piece)
        self.proxy.settle(5)
        client.drop()
        self.assertNotIn(client.answers[0].status, (0, 500))
        self.assertNotIn(500, [answer.status for answer in client.answers])
        self.assertEqual(len(self.proxy.site.connections), 0)
        self.proxy.access_log.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
