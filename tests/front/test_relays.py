"""What is passed on: lists, referrers, and requests that bring a credential of their own."""

from __future__ import annotations

import json

from twisted.logger import capturedLogs, formatEvent

from regproxy.model.digest import Digest
from regproxy.testing import Fault, Framing
from tests.front.proxy import ALPINE, DATA, HUB, QUAY, ProxyCase

LOGIN = {"Authorization": "Basic dXNlcjpodW50ZXIy"}


class CredentialTests(ProxyCase):
    """A client that brings an Authorization gets upstream's answer to exactly that."""

    def test_nothing_is_cached(self) -> None:
        """Blob and manifest pass through, and the next one asks upstream again."""
        manifest, data = self.proxy.add_manifest(b"layer")
        for target, body in (
            (self.blob, DATA),
            (f"/v2/{ALPINE}/manifests/latest", data),
            (f"/v2/{ALPINE}/manifests/{manifest}", data),
        ):
            before = len(self.upstream.requests)
            for _ in range(2):
                answer = self.proxy.ask(target, LOGIN)
                self.assert_whole(answer, body)
                self.assertEqual(answer.header("Cache-Status"), "regproxy; fwd=bypass")
                self.assertEqual(answer.header("Content-Length"), str(len(body)))
            self.assertEqual(len(self.upstream.requests), before + 2)
        for request in self.upstream.requests:
            self.assertEqual(request.header("Authorization"), LOGIN["Authorization"])
        self.assertFalse(self.proxy.store.holds(self.digest))
        self.assertFalse(self.proxy.store.holds(manifest))
        self.assertEqual({line["cache"] for line in self.proxy.lines}, {"RELAY"})

    def test_nothing_cached_is_served(self) -> None:
        """What is stored for anonymous clients does not answer one with a credential."""
        self.fill()
        self.upstream.remove_digest(HUB, ALPINE, self.digest)
        self.assert_error(self.proxy.ask(self.blob, LOGIN), 404, "BLOB_UNKNOWN")

    def test_empty_credential(self) -> None:
        """What podman sends to mirrors, and nothing at all, are no credentials."""
        self.fill()
        for value in ("Basic Og==", "basic og==", "Basic", " "):
            answer = self.proxy.ask(self.blob, {"Authorization": value})
            self.assertEqual(answer.header("Cache-Status"), "regproxy; hit")

    def test_challenge(self) -> None:
        """A registry that wants another credential says so to the client itself."""
        self.upstream.require_token(HUB)
        answer = self.proxy.ask(self.blob, LOGIN)
        self.assert_error(answer, 401, "UNAUTHORIZED")
        challenge = answer.header("WWW-Authenticate") or ""
        self.assertTrue(challenge.startswith('Bearer realm="https://auth.registry-1.docker.io'))
        self.assertEqual(self.upstream.count("GET", "/token"), 0)

    def test_no_credential_for_storage(self) -> None:
        """Across a redirect to another origin the credential stays behind."""
        self.upstream.redirect_blobs(HUB, "https://cdn.test")
        answer = self.proxy.ask(self.blob, LOGIN)
        self.assert_whole(answer)
        self.assertIsNone(answer.header("Location"))
        self.assertIsNone(self.upstream.requests[-1].header("Authorization"))

    def test_head(self) -> None:
        """HEAD is passed on as HEAD."""
        answer = self.proxy.head(self.blob, LOGIN)
        self.assertEqual((answer.status, answer.complete, answer.body), (200, True, b""))
        self.assertEqual(answer.header("Content-Length"), str(len(DATA)))
        self.assertEqual([r.method for r in self.upstream.requests], ["HEAD"])

    def test_range(self) -> None:
        """Ranges and conditions are upstream's to judge."""
        answer = self.proxy.ask(self.blob, {**LOGIN, "Range": "bytes=10-19"})
        self.assert_whole(answer, DATA[10:20], 206)
        self.assertEqual(answer.header("Content-Range"), f"bytes 10-19/{len(DATA)}")
        answer = self.proxy.ask(self.blob, {**LOGIN, "If-None-Match": f'"{self.digest}"'})
        self.assertEqual((answer.status, answer.body, answer.complete), (304, b"", True))
        answer = self.proxy.ask(self.blob, {**LOGIN, "Range": "bytes=9999999-"})
        self.assertEqual(answer.status, 416)

    def test_wrong_bytes(self) -> None:
        """A whole blob or manifest is verified all the same: wrong bytes are cut at the last."""
        whole_as_range = {**LOGIN, "Range": "bytes=0-"}
        for headers in (LOGIN, whole_as_range):
            self.upstream.script(Fault(flip=5))
            answer = self.proxy.ask(self.blob, headers)
            self.assert_cut(answer)
        self.upstream.script(Fault(flip=5, framing=Framing.CHUNKED))
        self.assert_cut(self.proxy.ask(self.blob, LOGIN))
        manifest, _ = self.proxy.add_manifest(b"layer")
        self.upstream.script(Fault(flip=5))
        self.assert_cut(self.proxy.ask(f"/v2/{ALPINE}/manifests/{manifest}", LOGIN))

    def test_no_bytes(self) -> None:
        """An empty answer for what is not empty is refused, before it looks whole."""
        manifest, _ = self.proxy.add_manifest(b"layer")
        for target in (self.blob, f"/v2/{ALPINE}/manifests/{manifest}"):
            self.upstream.script(Fault(body=b""))
            self.assert_error(self.proxy.ask(target, LOGIN), 502, "UNKNOWN")
        empty = self.upstream.add_blob(HUB, ALPINE, b"")
        self.assert_whole(self.proxy.ask(f"/v2/{ALPINE}/blobs/{empty}", LOGIN), b"")

    def test_cut(self) -> None:
        """A transfer cut upstream is cut for the client, which resumes by its own range."""
        for framing in (Framing.LENGTH, Framing.CHUNKED):
            self.upstream.script(Fault(cut_at=1000, framing=framing))
            answer = self.proxy.ask(self.blob, LOGIN)
            self.assert_cut(answer)
            self.assertEqual(answer.body, DATA[:1000])

    def test_silence(self) -> None:
        """One that falls silent is given up after the deadline."""
        self.upstream.hold(self.path, at=1000)
        answer = self.proxy.ask(self.blob, LOGIN)
        self.clock.pump([1.0] * 61)
        self.assert_cut(answer)
        self.assertEqual(self.upstream.connections, 0)

    def test_streams(self) -> None:
        """Bytes come as upstream sends them, and no faster than the client reads."""
        self.upstream.hold(self.path, at=1000)
        client = self.proxy.client(reading=False)
        answer = client.request("GET", self.blob, LOGIN)
        client.read(2000)
        self.assertEqual(answer.body, DATA[:1000])
        data = DATA * 20
        digest = self.upstream.add_blob(HUB, ALPINE, data)
        client = self.proxy.client(reading=False)
        answer = client.request("GET", f"/v2/{ALPINE}/blobs/{digest}", LOGIN)
        self.proxy.settle()
        self.assertLess(self.upstream.requests[-1].sent, 1024 * 1024)
        client.reading = True
        self.proxy.settle()
        self.assert_whole(answer, data)

    def test_client_leaves(self) -> None:
        """A relay ends with its client."""
        self.upstream.hold(self.path, at=1000)
        client = self.proxy.client()
        client.request("GET", self.blob, LOGIN)
        client.drop()
        self.proxy.settle()
        self.assertEqual(self.upstream.connections, 0)
        self.assertEqual(self.proxy.lines[0]["note"], "client left")

    def test_not_logged(self) -> None:
        """No credential and no signature is in any log."""
        with capturedLogs() as events:
            self.upstream.script(Fault(connect_failure=ConnectionRefusedError()))
            self.proxy.ask(self.blob, LOGIN)
            self.proxy.ask(f"/v2/{ALPINE}/nonsense?token=hunter2", LOGIN)
            self.proxy.ask(self.blob, LOGIN)
            self.upstream.redirect_blobs(HUB, "https://cdn.test", lifetime=0)
            self.proxy.ask(self.blob, LOGIN)
            self.proxy.ask(self.blob)
            self.upstream.redirect_blobs(HUB, "https://cdn.test")
            self.upstream.script(Fault(flip=3), path_suffix=f"/data/{self.digest}", times=2)
            self.proxy.ask(self.blob, LOGIN)
            self.proxy.ask(self.blob)
            self.patch(self.proxy.fills, "join", None)
            self.proxy.ask(f"{self.blob}?signature=mine")
        self.flushLoggedErrors(TypeError)
        said = self.proxy.log_text + "".join(formatEvent(event) for event in events)
        self.assertIn("nothing is kept", said)
        for secret in ("dXNlcjpodW50ZXIy", "hunter2", "signature"):
            self.assertNotIn(secret, said)


class ListTests(ProxyCase):
    """Tags, repositories and referrers."""

    def setUp(self) -> None:
        """Tags three manifests at quay.io."""
        super().setUp()
        for tag in ("a", "b", "c"):
            self.proxy.add_manifest(b"layer", origin=QUAY, repository="coreos/etcd", tag=tag)

    def test_pages(self) -> None:
        """Through each way in a client can follow the links to the end."""
        for first, name in (
            ("/v2/coreos/etcd/tags/list?ns=quay.io&n=2", "coreos/etcd"),
            ("/v2/coreos/etcd/tags/list?n=2&ns=quay.io", "coreos/etcd"),
            ("/v2/quay.io/coreos/etcd/tags/list?n=2", "quay.io/coreos/etcd"),
        ):
            tags: list[str] = []
            target = first
            while target:
                answer = self.proxy.ask(target)
                self.assertEqual((answer.status, answer.complete), (200, True))
                self.assertEqual(answer.header("Cache-Status"), "regproxy; fwd=bypass")
                page = json.loads(answer.body)
                self.assertEqual(page["name"], name)
                tags += page["tags"]
                link = answer.header("Link")
                target = ""
                if link is not None:
                    self.assertTrue(link.endswith('>; rel="next"'), link)
                    target = link[1:].partition(">")[0]
                    self.assertTrue(target.startswith("/v2/"), target)
            self.assertEqual(tags, ["a", "b", "c"])
        self.assertNotIn("ns=", "".join(r.url for r in self.upstream.requests))

    def test_pages_of_the_mirror(self) -> None:
        """The mirror way in keeps the name that the client uses."""
        for tag in ("x", "y"):
            self.proxy.add_manifest(b"layer", tag=tag)
        answer = self.proxy.ask("/v2/alpine/tags/list?n=1")
        self.assertEqual(answer.header("Link"), '</v2/alpine/tags/list?last=x&n=1>; rel="next"')

    def test_catalog(self) -> None:
        """Repositories get the prefix through which the client can pull them."""
        body = b'{"repositories":["coreos/etcd","a/b"]}'
        link = {"Content-Type": "application/json", "Link": "</v2/_catalog?last=a%2Fb>; rel=next"}
        self.upstream.add_page(f"{QUAY}/v2/_catalog", body, headers=link)
        plain = self.proxy.ask("/v2/_catalog?ns=quay.io")
        self.assert_whole(plain, body)
        self.assertEqual(plain.header("Link"), "</v2/_catalog?last=a%2Fb&ns=quay.io>; rel=next")
        answer = self.proxy.ask("/v2/quay.io/_catalog?n=5")
        self.assertEqual(
            json.loads(answer.body), {"repositories": ["quay.io/coreos/etcd", "quay.io/a/b"]}
        )
        self.assertEqual(answer.header("Content-Length"), str(len(answer.body)))
        self.assertEqual(answer.header("Link"), "</v2/quay.io/_catalog?last=a%2Fb>; rel=next")
        self.assertEqual(self.upstream.requests[-1].query, "n=5")

    def test_head_of_rewritten(self) -> None:
        """HEAD of a list that is rewritten does not promise upstream's length."""
        answer = self.proxy.head("/v2/quay.io/coreos/etcd/tags/list")
        self.assertEqual((answer.status, answer.complete), (200, True))
        self.assertIsNone(answer.header("Content-Length"))

    def test_referrers(self) -> None:
        """Referrers are passed on as they are."""
        digest = Digest.of(b"subject")
        body = b'{"schemaVersion":2,"manifests":[]}'
        self.upstream.add_page(
            f"{QUAY}/v2/coreos/etcd/referrers/{digest}",
            body,
            headers={
                "Content-Type": "application/vnd.oci.image.index.v1+json",
                "OCI-Filters-Applied": "artifactType",
                "Link": f"<{QUAY}/v2/coreos/etcd/referrers/{digest}?next=2>; rel=next",
            },
        )
        answer = self.proxy.ask(f"/v2/quay.io/coreos/etcd/referrers/{digest}?artifactType=x")
        self.assert_whole(answer, body)
        self.assertEqual(answer.header("OCI-Filters-Applied"), "artifactType")
        self.assertEqual(
            answer.header("Link"), f"</v2/quay.io/coreos/etcd/referrers/{digest}?next=2>; rel=next"
        )
        self.assertEqual(self.upstream.requests[0].query, "artifactType=x")

    def test_huge_list(self) -> None:
        """A list that is to be rewritten and has no end is 502, not this process's memory."""
        self.upstream.add_page(f"{QUAY}/v2/_catalog", b" " * (16 * 1024 * 1024 + 1))
        self.assert_error(self.proxy.ask("/v2/quay.io/_catalog"), 502, "UNKNOWN")

    def test_hostile_link(self) -> None:
        """A Link leads to this proxy alone, whatever upstream writes."""
        for value in ("<https://evil.test/x?n=1>; rel=next", "<//[>; rel=next", "nonsense"):
            self.upstream.add_page(f"{QUAY}/v2/_catalog", b"{}", headers={"Link": value})
            link = self.proxy.ask("/v2/_catalog?ns=quay.io").header("Link") or ""
            self.assertNotIn("evil", link)
