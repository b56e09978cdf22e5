"""Blobs: from upstream once, from the store ever after, and never a wrong one."""

from __future__ import annotations

from regproxy.testing import Fault, Framing
from tests.front.proxy import ALPINE, DATA, QUAY, ProxyCase


class BlobTests(ProxyCase):
    """Whole blobs through the mirror way in."""

    def test_miss_then_hit(self) -> None:
        """A cold blob comes from upstream, and later from the store alone."""
        first = self.proxy.ask(self.blob)
        self.assert_whole(first)
        self.assertEqual(first.header("Cache-Status"), "regproxy; fwd=uri-miss; stored")
        asked = len(self.upstream.requests)
        second = self.proxy.ask(self.blob)
        self.assert_whole(second)
        self.assertEqual(second.header("Cache-Status"), "regproxy; hit")
        self.assertEqual(len(self.upstream.requests), asked)
        self.assertEqual([line["cache"] for line in self.proxy.lines], ["MISS", "HIT"])

    def test_headers(self) -> None:
        """Miss, hit and HEAD say the same of the blob."""
        for answer in (
            self.proxy.head(self.blob),
            self.proxy.ask(self.blob),
            self.proxy.ask(self.blob),
            self.proxy.head(self.blob),
        ):
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.complete)
            self.assertEqual(answer.header("Content-Length"), str(len(DATA)))
            self.assertEqual(answer.header("Content-Type"), "application/octet-stream")
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.digest))
            self.assertEqual(answer.header("ETag"), f'"{self.digest}"')
            self.assertEqual(answer.header("Accept-Ranges"), "bytes")

    def test_head_starts_no_fill(self) -> None:
        """HEAD of a cold blob is one HEAD upstream, and says that nothing was stored."""
        answer = self.proxy.head(self.blob)
        self.assertEqual(answer.header("Cache-Status"), "regproxy; fwd=uri-miss")
        self.assertEqual([r.method for r in self.upstream.requests], ["HEAD"])
        self.assertEqual(len(self.proxy.fills), 0)

    def test_not_modified(self) -> None:
        """A client that has the blob gets 304, whatever part of it it asks for."""
        self.fill()
        for headers in (
            {"If-None-Match": f'"{self.digest}"'},
            {"If-None-Match": f'"other", W/"{self.digest}"'},
            {"If-None-Match": "*", "Range": "bytes=0-9"},
        ):
            answer = self.proxy.ask(self.blob, headers)
            self.assertEqual((answer.status, answer.body), (304, b""))
            self.assertEqual(answer.header("ETag"), f'"{self.digest}"')
        self.assert_whole(self.proxy.ask(self.blob, {"If-None-Match": '"other"'}))

    def test_empty(self) -> None:
        """A blob of no bytes is served like any other."""
        digest = self.upstream.add_blob(QUAY, "a/b", b"")
        for word in ("MISS", "HIT"):
            answer = self.proxy.ask(f"/v2/a/b/blobs/{digest}?ns=quay.io")
            self.assert_whole(answer, b"")
            self.assertEqual(self.proxy.lines[-1]["cache"], word)

    def test_unknown_size(self) -> None:
        """Without a length from upstream the body is chunked; once stored, its size is known."""
        self.upstream.script(Fault(framing=Framing.CHUNKED))
        cold = self.proxy.ask(self.blob, {"Range": "bytes=0-9"})
        self.assert_whole(cold)
        self.assertIsNone(cold.header("Content-Length"))
        warm = self.proxy.ask(self.blob)
        self.assert_whole(warm)
        self.assertEqual(warm.header("Content-Length"), str(len(DATA)))

    def test_content_encoding(self) -> None:
        """Bytes are passed on as sent, whatever upstream calls them."""
        self.upstream.script(Fault(headers={"Content-Encoding": "gzip"}))
        answer = self.proxy.ask(self.blob)
        self.assert_whole(answer)
        self.assertIsNone(answer.header("Content-Encoding"))

    def test_redirects_stay_here(self) -> None:
        """A client never learns where a registry stores its blobs, nor does any log."""
        self.upstream.redirect_blobs("https://registry-1.docker.io", "https://cdn.test")
        answer = self.proxy.ask(self.blob)
        self.assert_whole(answer)
        said = str(list(answer.headers.getAllRawHeaders())) + self.proxy.log_text
        self.assertNotIn("cdn.test", said)
        self.assertNotIn("signature", said)


class JoinTests(ProxyCase):
    """Several clients and one transfer."""

    def test_joiners_from_the_first_byte(self) -> None:
        """Everyone who asks while a fill runs reads from offset 0 what is there already."""
        self.upstream.hold(self.path, at=100_000)
        clients = [self.proxy.client() for _ in range(4)]
        answers = [client.request("GET", self.blob) for client in clients]
        self.proxy.settle()
        late = self.proxy.ask(self.blob)
        for answer in [*answers, late]:
            self.assertEqual(answer.body, DATA[:100_000])
        self.upstream.release(self.path)
        self.proxy.settle()
        for answer in [*answers, late]:
            self.assert_whole(answer)
        self.assertEqual(self.upstream.count("GET", self.path), 1)
        self.assertEqual(late.header("Cache-Status"), "regproxy; fwd=uri-miss; collapsed")
        words = sorted(line["cache"] for line in self.proxy.lines)
        self.assertEqual(words, ["JOIN", "JOIN", "JOIN", "JOIN", "MISS"])

    def test_head_while_filling(self) -> None:
        """HEAD of a blob on its way is answered from what is known of it."""
        self.upstream.hold(self.path, at=10)
        self.proxy.ask(self.blob)
        asked = len(self.upstream.requests)
        answer = self.proxy.head(self.blob)
        self.assertEqual(answer.header("Content-Length"), str(len(DATA)))
        self.assertEqual(len(self.upstream.requests), asked)

    def test_client_leaves(self) -> None:
        """A fill goes on without clients, and the next one hits."""
        self.upstream.hold(self.path, at=1000)
        client = self.proxy.client()
        client.request("GET", self.blob)
        self.proxy.settle()
        client.drop()
        self.proxy.settle()
        self.assertEqual(len(self.proxy.fills), 1)
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assertEqual(len(self.proxy.fills), 0)
        self.assert_whole(self.proxy.ask(self.blob))
        left, hit = self.proxy.lines
        self.assertEqual((left["cache"], left["note"]), ("MISS", "client left"))
        self.assertEqual((left["status"], left["bytes"]), ("200", "1000"))
        self.assertEqual(hit["cache"], "HIT")

    def test_client_leaves_before_headers(self) -> None:
        """The same before upstream has answered; the log tells that there was no answer."""
        self.upstream.hold(self.path)
        client = self.proxy.client()
        client.request("GET", self.blob)
        client.drop()
        self.upstream.release(self.path)
        self.proxy.settle()
        self.assert_whole(self.proxy.ask(self.blob))
        left, hit = self.proxy.lines
        self.assertEqual((left["status"], left["note"]), ("0", "client left"))
        self.assertEqual(hit["cache"], "HIT")

    def test_cut_transfer_is_resumed(self) -> None:
        """A connection cut upstream is nothing that a client notices."""
        self.upstream.script(Fault(cut_at=50_000))
        answer = self.proxy.ask(self.blob)
        self.clock.pump([0.1] * 10)
        self.assert_whole(answer)
        self.assertEqual(
            [r.header("Range") for r in self.upstream.find("GET", self.path)],
            [None, "bytes=50000-"],
        )


class GrantTests(ProxyCase):
    """A digest is no credential."""

    def setUp(self) -> None:
        """Adds the ways to ask for the same digest elsewhere."""
        super().setUp()
        self.elsewhere = [
            f"/v2/library/other/blobs/{self.digest}",
            f"/v2/a/b/blobs/{self.digest}?ns=quay.io",
            f"/v2/quay.io/a/b/blobs/{self.digest}",
        ]

    def test_stored_is_not_served_elsewhere(self) -> None:
        """A stored blob is served through another repository only if upstream has it there."""
        self.fill()
        self.upstream.add_manifest(QUAY, "a/b", b"{}", "application/json")
        for target in self.elsewhere:
            self.assert_error(self.proxy.ask(target), 404, "BLOB_UNKNOWN")
            self.assertEqual(self.proxy.head(target).status, 404)
        self.assertEqual(self.upstream.count("GET", self.path), 1)

    def test_running_is_not_served_elsewhere(self) -> None:
        """Nor is one that is on its way."""
        self.upstream.add_manifest(QUAY, "a/b", b"{}", "application/json")
        self.upstream.hold(self.path, at=1000)
        self.proxy.ask(self.blob)
        for target in self.elsewhere:
            self.assert_error(self.proxy.ask(target), 404, "BLOB_UNKNOWN")

    def test_refused_starter(self) -> None:
        """Whoever started a fill gets nothing through a joiner's right to it."""
        self.upstream.add_manifest(QUAY, "a/b", b"{}", "application/json")
        self.upstream.hold(f"a/b{self.path}")
        starter = self.proxy.ask(self.elsewhere[1])
        joiner = self.proxy.ask(self.blob)
        self.upstream.release(f"a/b{self.path}")
        self.proxy.settle()
        self.assert_whole(joiner)
        self.assert_error(starter, 404, "BLOB_UNKNOWN")
        self.assert_error(self.proxy.ask(self.elsewhere[1]), 404, "BLOB_UNKNOWN")

    def test_proof_is_one_head(self) -> None:
        """Where upstream has it, one HEAD proves it for good, and nothing is transferred."""
        self.fill()
        self.upstream.add_blob(QUAY, "a/b", DATA)
        for _ in range(2):
            self.assert_whole(self.proxy.ask(self.elsewhere[1]))
        self.assertEqual(self.upstream.count("GET", self.path), 1)
        self.assertEqual(self.upstream.count("HEAD", self.path), 1)

    def test_manifest_is_proof(self) -> None:
        """A manifest that was served for a repository proves its layers there."""
        self.fill()
        self.proxy.add_manifest(DATA, origin=QUAY, repository="a/b")
        self.assertEqual(self.proxy.ask("/v2/a/b/manifests/latest?ns=quay.io").status, 200)
        self.assert_whole(self.proxy.ask(self.elsewhere[1]))
        self.assertEqual(self.upstream.count("HEAD"), 0)

    def test_upstream_down(self) -> None:
        """Without upstream a proof cannot be had, and the blob is not served without it."""
        self.fill()
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()), times=None)
        self.assert_error(self.proxy.ask(self.elsewhere[0]), 502, "UNKNOWN")
        self.assert_whole(self.proxy.ask(self.blob))

    def test_unknown_here(self) -> None:
        """What upstream does not have is 404 with its own code, and starts nothing that stays."""
        target = f"/v2/{ALPINE}/blobs/sha256:{'0' * 64}"
        self.assert_error(self.proxy.ask(target), 404, "BLOB_UNKNOWN")
        self.assertEqual(len(self.proxy.fills), 0)
        self.assertEqual(self.upstream.connections, 0)
