"""Manifests: by digest for ever, by tag for a while, and each client what it accepts."""

from __future__ import annotations

from twisted.web.http_headers import Headers

from regproxy.model.mediatypes import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from regproxy.testing import Fault
from tests.front.proxy import ALPINE, HUB, TAG_TTL, ProxyCase

LATEST = f"/v2/{ALPINE}/manifests/latest"


class ManifestTests(ProxyCase):
    """An image in a repository of docker.io."""

    def setUp(self) -> None:
        """Tags a manifest."""
        super().setUp()
        self.manifest, self.data = self.proxy.add_manifest(b"layer")
        self.by_digest = f"/v2/{ALPINE}/manifests/{self.manifest}"

    def words(self) -> list[str]:
        """How the requests so far were served."""
        return [line["cache"] for line in self.proxy.lines]

    def test_by_tag(self) -> None:
        """A cold tag is one GET, and a fresh one is served without asking."""
        self.assert_whole(self.proxy.ask(LATEST), self.data)
        self.assert_whole(self.proxy.ask(LATEST), self.data)
        self.assertEqual([r.method for r in self.upstream.requests], ["GET"])
        self.assertEqual(self.words(), ["MISS", "HIT"])
        self.assertEqual(self.proxy.lines[0]["reference"], "latest")

    def test_by_digest(self) -> None:
        """A manifest by digest is asked for once; a tag that meant it counts as once."""
        self.assert_whole(self.proxy.ask(LATEST), self.data)
        self.clock.advance(TAG_TTL * 100)
        answer = self.proxy.ask(self.by_digest)
        self.assert_whole(answer, self.data)
        self.assertEqual(answer.header("Cache-Status"), "regproxy; hit")
        self.assertEqual(len(self.upstream.requests), 1)

    def test_headers(self) -> None:
        """GET and HEAD, by tag and by digest, cold and warm, say the same of the manifest."""
        answers = [self.proxy.head(LATEST)]
        for target in (LATEST, self.by_digest):
            answers += [self.proxy.ask(target), self.proxy.head(target)]
        for answer in answers:
            self.assertEqual((answer.status, answer.complete), (200, True))
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.manifest))
            self.assertEqual(answer.header("Content-Type"), OCI_MANIFEST)
            self.assertEqual(answer.header("ETag"), f'"{self.manifest}"')
            self.assertEqual(answer.header("Content-Length"), str(len(self.data)))

    def test_vary(self) -> None:
        """A tag may mean another manifest for another Accept, a digest may not."""
        matching = {"If-None-Match": f'"{self.manifest}"'}
        for answer in (
            self.proxy.head(LATEST),
            self.proxy.ask(LATEST),
            self.proxy.ask(LATEST),
            self.proxy.ask(LATEST, matching),
        ):
            self.assertEqual(answer.header("Vary"), "Accept")
        self.assertIsNone(self.proxy.ask(self.by_digest).header("Vary"))

    def test_head_of_cold_tag(self) -> None:
        """HEAD of a cold tag is one HEAD upstream, which costs no quota, and stores nothing."""
        answer = self.proxy.head(LATEST)
        self.assertEqual(answer.header("Cache-Status"), "regproxy; fwd=uri-miss")
        self.assertEqual([r.method for r in self.upstream.requests], ["HEAD"])
        self.assertEqual(answer.body, b"")

    def test_not_modified(self) -> None:
        """A client that has the manifest gets 304."""
        for target in (LATEST, self.by_digest):
            answer = self.proxy.ask(target, {"If-None-Match": f'W/"{self.manifest}"'})
            self.assertEqual((answer.status, answer.body, answer.complete), (304, b"", True))
            self.assertEqual(answer.header("Docker-Content-Digest"), str(self.manifest))
        self.assert_whole(self.proxy.ask(LATEST, {"If-None-Match": '"sha256:0"'}), self.data)

    def test_revalidated(self) -> None:
        """After its time a tag costs one HEAD, and is served from the store if it is the same."""
        self.proxy.ask(LATEST)
        self.clock.advance(TAG_TTL + 1)
        self.upstream.hold("/latest")
        answers = [self.proxy.ask(LATEST) for _ in range(3)]
        self.upstream.release("/latest")
        self.proxy.settle()
        for answer in answers:
            self.assert_whole(answer, self.data)
        self.assertEqual([r.method for r in self.upstream.requests], ["GET", "HEAD"])
        self.assertEqual(self.words(), ["MISS", "REVALIDATED", "REVALIDATED", "REVALIDATED"])
        self.assertIn("fwd=stale", answers[0].header("Cache-Status") or "")

    def test_moved(self) -> None:
        """A tag that moved is seen to have moved."""
        self.proxy.ask(LATEST)
        self.clock.advance(TAG_TTL + 1)
        _, data = self.proxy.add_manifest(b"newer")
        self.assert_whole(self.proxy.ask(LATEST), data)
        self.assert_whole(self.proxy.ask(self.by_digest), self.data)

    def test_stale(self) -> None:
        """With upstream down a stored tag is served, and said to be stale."""
        self.proxy.ask(LATEST)
        self.clock.advance(TAG_TTL + 1)
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()), times=None)
        for _ in range(2):
            answer = self.proxy.ask(LATEST)
            self.assert_whole(answer, self.data)
            self.assertEqual(answer.header("Cache-Status"), "regproxy; hit; detail=stale-if-error")
        self.assertEqual(self.words(), ["MISS", "STALE", "STALE"])
        self.assertEqual(self.upstream.count("HEAD"), 1)

    def test_slow_upstream(self) -> None:
        """One that does not answer within 3 s counts as down."""
        self.proxy.ask(LATEST)
        self.clock.advance(TAG_TTL + 1)
        self.upstream.script(Fault(silent=True), times=None)
        answer = self.proxy.ask(LATEST)
        self.assertFalse(answer.complete)
        self.clock.pump([0.5] * 6)
        self.assert_whole(answer, self.data)
        self.assertEqual(self.words()[-1], "STALE")

    def test_gone(self) -> None:
        """Upstream is believed when it says that a tag is gone."""
        self.proxy.ask(LATEST)
        self.clock.advance(TAG_TTL + 1)
        self.upstream.remove_tag(HUB, ALPINE, "latest")
        self.assert_error(self.proxy.ask(LATEST), 404, "MANIFEST_UNKNOWN")

    def test_accepted_variants(self) -> None:
        """What a tag means to one client is not what it means to another."""
        docker, docker_data = self.proxy.add_manifest(
            b"layer", tag="v2", media_type=DOCKER_MANIFEST
        )
        index = b'{"schemaVersion":2,"mediaType":"%b","manifests":[]}' % OCI_INDEX.encode()
        self.upstream.add_manifest(HUB, ALPINE, index, OCI_INDEX, "both")
        self.upstream.add_variant(HUB, ALPINE, "both", docker)
        target = f"/v2/{ALPINE}/manifests/both"
        for _ in range(2):
            self.assert_whole(self.proxy.ask(target, {"Accept": OCI_INDEX}), index)
            self.assert_whole(self.proxy.ask(target, {"Accept": DOCKER_MANIFEST}), docker_data)
            self.assertEqual(self.proxy.ask(target, {"Accept": OCI_MANIFEST}).status, 404)
            self.assert_whole(self.proxy.ask(target), index)
        both = Headers({"Accept": [DOCKER_MANIFEST, f"{OCI_INDEX};q=0.5"]})
        answer = self.proxy.client().request("GET", target, both)
        self.proxy.settle()
        self.assert_whole(answer, index)
        self.assertEqual(self.upstream.count("GET", "/both"), 6)

    def test_accept_that_is_no_text(self) -> None:
        """An Accept of arbitrary bytes is one that names nothing known."""
        client = self.proxy.client()
        answer = client.expect("GET")
        client.send(f"GET {LATEST} HTTP/1.1\r\nHost: a\r\n".encode() + b"Accept: \xff\xfe\r\n\r\n")
        self.proxy.settle()
        self.assertTrue(answer.complete)
        self.assertNotEqual(answer.status, 500)

    def test_wrong_bytes(self) -> None:
        """A manifest that is not what its digest says is never served."""
        self.upstream.script(Fault(flip=3), times=2)
        self.assert_error(self.proxy.ask(self.by_digest), 502, "UNKNOWN")
        self.assert_error(self.proxy.ask(LATEST), 502, "UNKNOWN")
        self.assert_whole(self.proxy.ask(self.by_digest), self.data)

    def test_elsewhere(self) -> None:
        """A stored manifest is served only where upstream has it, as a manifest."""
        self.proxy.ask(LATEST)
        target = f"/v2/library/other/manifests/{self.manifest}"
        self.assert_error(self.proxy.ask(target), 404, "MANIFEST_UNKNOWN")
        layer = self.upstream.add_blob(HUB, ALPINE, b"layer")
        self.proxy.ask(f"/v2/{ALPINE}/blobs/{layer}")
        target = f"/v2/{ALPINE}/manifests/{layer}"
        self.assert_error(self.proxy.ask(target), 404, "MANIFEST_UNKNOWN")

    def test_pull_reads_as_columns(self) -> None:
        """Two pulls are a column of MISS, then a column of HIT."""
        for _ in range(2):
            self.proxy.head(LATEST)
            self.proxy.ask(self.by_digest)
            for content in (b"layer", b'{"os":"linux"}'):
                digest = self.upstream.add_blob(HUB, ALPINE, content)
                self.assert_whole(self.proxy.ask(f"/v2/{ALPINE}/blobs/{digest}"), content)
        self.assertEqual(self.words(), ["MISS"] * 4 + ["HIT"] * 4)
