"""Tests for regproxy.upstream.client: one registry as the proxy asks it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.testing import Fault, Framing
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer
from regproxy.upstream.transfer import Transfer
from tests.upstream.case import DATA, REGISTRY, REPOSITORY, SECONDS, UpstreamCase

MANIFEST = b'{"schemaVersion": 2}'


class ManifestTests(UpstreamCase):
    """Manifests and what is known of them."""

    def setUp(self) -> None:
        """One manifest."""
        super().setUp()
        self.manifest = self.scripted.add_manifest(
            REGISTRY, REPOSITORY, MANIFEST, OCI_MANIFEST, "v1"
        )

    def test_head(self) -> None:
        """Digest, media type and size come from one HEAD, with the Accept that was given."""
        head = self.result(
            self.upstream.head_manifest(REPOSITORY, "v1", OCI_MANIFEST, self.deadline())
        )
        self.assertEqual(
            (head.digest, head.media_type, head.size), (self.manifest, OCI_MANIFEST, len(MANIFEST))
        )
        self.assertEqual((self.last.method, self.last.header("Accept")), ("HEAD", OCI_MANIFEST))
        self.assertEqual(self.last.path, f"/v2/{REPOSITORY}/manifests/v1")
        self.assert_nothing_left()

    def test_head_without_headers(self) -> None:
        """What a registry does not say, or says badly, is not known."""
        for digest, length in [
            (None, "x"),
            ("sha256:0", "-1"),
            ("md5:00", "1e3"),
            ("", "9" * 5000),
        ]:
            missing = {
                "Docker-Content-Digest": digest,
                "Content-Type": None,
                "Content-Length": length,
            }
            self.scripted.script(Fault(framing=Framing.CLOSE, headers=missing))
            head = self.result(
                self.upstream.head_manifest(REPOSITORY, "v1", "*/*", self.deadline())
            )
            self.assertEqual((head.digest, head.media_type, head.size), (None, "", None))

    def test_get(self) -> None:
        """Bytes, media type and digest come from one GET, by tag or digest."""
        for reference in ("v1", str(self.manifest)):
            body = self.result(
                self.upstream.get_manifest(REPOSITORY, reference, "*/*", 1000, self.deadline())
            )
            self.assertEqual(
                (body.data, body.media_type, body.digest), (MANIFEST, OCI_MANIFEST, self.manifest)
            )
        self.assertEqual(self.scripted.count("GET"), 2)
        self.assert_nothing_left()

    def test_limit(self) -> None:
        """A manifest beyond the limit is 502."""
        error = self.refused(
            self.upstream.get_manifest(REPOSITORY, "v1", "*/*", len(MANIFEST) - 1, self.deadline())
        )
        self.assertEqual(error.status, 502)
        self.assert_nothing_left()


class BlobTests(UpstreamCase):
    """Blobs and parts of them."""

    def test_head(self) -> None:
        """The size comes from one HEAD, if the registry tells it."""

        def size() -> int | None:
            asking = self.upstream.head_blob(REPOSITORY, self.digest, self.deadline())
            return self.result(asking)

        self.assertEqual(size(), len(DATA))
        self.scripted.script(Fault(framing=Framing.CLOSE))
        self.assertIsNone(size())
        self.assertEqual(self.scripted.count("HEAD"), 2)

    def test_whole(self) -> None:
        """The whole is asked for without a Range."""
        self.assertEqual(self.read(self.get_blob()), DATA)
        self.assertIsNone(self.last.header("Range"))

    def test_rest(self) -> None:
        """The rest is asked for by an open range."""
        answer = self.get_blob(1000)
        self.assertEqual(self.last.header("Range"), "bytes=1000-")
        self.assertEqual((answer.length, self.read(answer)), (len(DATA) - 1000, DATA[1000:]))

    def test_wrong_part(self) -> None:
        """An answer that is not exactly the rest is 502, and its body is let go."""
        size = len(DATA)
        for told in (
            f"bytes 999-{size - 1}/{size}",
            f"bytes 1001-{size - 1}/{size}",
            f"bytes 1000-{size - 2}/{size}",
            f"bytes 1000-{size - 1}/*",
            "bytes 1000-",
            f"items 1000-{size - 1}/{size}",
            "",
            None,
        ):
            self.scripted.script(Fault(headers={"Content-Range": told}))
            asking = self.upstream.get_blob(REPOSITORY, self.digest, 1000, self.deadline())
            error = self.refused(asking)
            self.assertEqual(error.status, 502)
            self.assertIn("another range", error.message)
            self.clock.advance(0)
            self.assert_nothing_left()

    def test_part(self) -> None:
        """A part is asked for by its first and last byte."""
        for start, stop in ((1000, 2000), (0, 10), (5, len(DATA))):
            answer = self.result(
                self.upstream.get_blob(REPOSITORY, self.digest, start, self.deadline(), stop=stop)
            )
            self.assertEqual(self.last.header("Range"), f"bytes={start}-{stop - 1}")
            self.assertEqual((answer.length, self.read(answer)), (stop - start, DATA[start:stop]))

    def test_wrong_stop(self) -> None:
        """More or less than the part is 502, whether the header tells it or the length."""
        size = len(DATA)
        for told, body in (
            (f"bytes 1000-1998/{size}", None),
            (f"bytes 1000-{size - 1}/{size}", None),
            (f"bytes 1000-1999/{size}", b"short"),
        ):
            self.scripted.script(Fault(headers={"Content-Range": told}, body=body))
            error = self.refused(
                self.upstream.get_blob(REPOSITORY, self.digest, 1000, self.deadline(), stop=2000)
            )
            self.assertIn("another range", error.message)
            self.clock.advance(0)
            self.assert_nothing_left()

    def test_no_ranges(self) -> None:
        """A registry that sends the whole instead is 502, too."""
        for stop in (None, 2000):
            self.scripted.script(Fault(ignore_range=True))
            error = self.refused(
                self.upstream.get_blob(REPOSITORY, self.digest, 1000, self.deadline(), stop=stop)
            )
            self.assertEqual(error.status, 502)
            self.assertIn("the whole", error.message)
            self.clock.advance(0)
            self.assert_nothing_left()

    def test_skip(self) -> None:
        """Where that is accepted, what was not asked for is left out of the whole."""
        for framing in Framing:
            self.scripted.script(Fault(ignore_range=True, framing=framing, piece=700))
            answer = self.result(
                self.upstream.get_blob(REPOSITORY, self.digest, 1000, self.deadline(), skip=True)
            )
            length = len(DATA) - 1000 if framing is Framing.LENGTH else None
            self.assertEqual(answer.length, length)
            pieces: list[bytes] = []
            transfer = Transfer(pieces.append, self.clock, 60)
            answer.deliver(transfer)
            self.clock.advance(0)
            self.successResultOf(transfer.done)
            self.assertEqual(b"".join(pieces), DATA[1000:])
            self.assertNotIn(b"", pieces)

    def test_too_short_to_skip(self) -> None:
        """A whole that ends before the part begins is 502."""
        for body in (b"short", b""):
            self.scripted.script(Fault(ignore_range=True, body=body))
            error = self.refused(
                self.upstream.get_blob(REPOSITORY, self.digest, 1000, self.deadline(), skip=True)
            )
            self.assertEqual(error.status, 502)
            self.clock.advance(0)
            self.assert_nothing_left()


class RelayTests(UpstreamCase):
    """Requests that are passed on."""

    def test_own_credential(self) -> None:
        """A client's own credential is used as it is; what the registry says to it is an answer."""
        self.scripted.require_token(REGISTRY)
        for authorization in ("Basic dTpw", "Bearer theirs"):
            answer = self.result(
                self.upstream.relay(
                    "GET", self.blob, {}, REPOSITORY, authorization, self.deadline()
                )
            )
            self.assertEqual(answer.status, 401)
            self.assertEqual(self.last.header("Authorization"), authorization)
            self.read(answer)
        self.assertEqual(len(self.scripted.requests), 2)
        self.assert_nothing_left()

    def test_anonymous(self) -> None:
        """Without one the proxy fetches a token; path, query and headers are passed on as given."""
        self.scripted.require_token(REGISTRY)
        self.scripted.add_manifest(REGISTRY, REPOSITORY, MANIFEST, OCI_MANIFEST, "v1")
        path = f"/v2/{REPOSITORY}/tags/list?n=5&last=%2F+"
        answer = self.result(
            self.upstream.relay("GET", path, {"Accept": "a/b"}, REPOSITORY, None, self.deadline())
        )
        self.assertEqual((answer.status, self.last.url), (200, REGISTRY + path))
        self.assertEqual(self.last.header("Accept"), "a/b")
        self.read(answer)
        self.assert_nothing_left()

    def test_catalog(self) -> None:
        """The catalog has a scope of its own."""
        realm = self.scripted.require_token(REGISTRY)
        answer = self.result(
            self.upstream.relay("GET", "/v2/_catalog", {}, "", None, self.deadline())
        )
        self.assertEqual(answer.status, 404)
        self.assertEqual(realm.issued["token-1"][0], frozenset({"registry:catalog:*"}))


class _FailingAuthorizer:
    """Cannot get a token."""

    def authorization(self, scope: str) -> str | None:
        """Nothing is known."""
        return None

    async def answer(
        self, challenges: Sequence[str], scope: str, refused: str | None, deadline: Deadline
    ) -> str | None:
        """The token endpoint is down."""
        raise upstream_failed("no token")


class TokenTroubleTests(UpstreamCase):
    """The registry asks for a token that there is none of."""

    def test_body_let_go(self) -> None:
        """The answer that asked for a token does not lie about while nobody will read it."""
        self.scripted.require_token(REGISTRY)
        self.upstream = Upstream(
            "registry.test",
            REGISTRY,
            self.exchange,
            _FailingAuthorizer(),
            self.clock,
            connections=1,
            headers_timeout=SECONDS,
        )
        self.assertEqual(self.blob_refused().message, "no token")
        self.assert_nothing_left()


class DeadlineTests(UpstreamCase):
    """One deadline for everything up to the headers."""

    def setUp(self) -> None:
        """Each step takes ten seconds."""
        super().setUp()
        self.scripted.require_token(REGISTRY)
        self.scripted.script(Fault(latency=10), times=None)

    def waiting(self, seconds: float) -> Deferred[Answer]:
        """A request for the blob."""
        return self.start(
            self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline(seconds))
        )

    def test_enough(self) -> None:
        """Three steps (challenge, token, blob) take thirty seconds."""
        waiting = self.waiting(31)
        self.clock.pump([1] * 30)
        self.assertEqual(self.read(self.successResultOf(waiting)), DATA)

    def test_each_step(self) -> None:
        """Whichever step the deadline falls into, it is 504 then and there."""
        for seconds, requests, doing in [
            (5, 1, "registry.test: GET"),
            (15, 2, "auth.registry.test: token"),
            (25, 3, "registry.test: GET"),
        ]:
            self.upstream = self.make_upstream(REGISTRY)
            self.scripted.requests.clear()
            waiting = self.waiting(seconds)
            self.clock.pump([1] * (seconds - 1))
            self.assertNoResult(waiting)
            self.clock.advance(1)
            error = self.error(waiting)
            self.assertEqual((error.status, len(self.scripted.requests)), (504, requests))
            self.assertIn(doing, error.message)
            self.clock.pump([1] * 30)
            self.assert_nothing_left()

    def test_redirects(self) -> None:
        """Redirects have no time of their own."""
        self.scripted.heal()
        self.scripted.redirect_blobs(REGISTRY, "https://storage.test")
        self.scripted.hold(f"/data/{self.digest}")
        waiting = self.waiting(25)
        self.clock.advance(25)
        error = self.error(waiting)
        self.assertEqual(error.status, 504)
        self.assertIn("storage.test: GET", error.message)
        self.assert_nothing_left()

    def test_queue(self) -> None:
        """Waiting for a place counts; who is too late is told what for, and the place is kept."""
        self.scripted.heal()
        self.scripted.hold(self.blob)
        first = [
            self.start(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline(60)))
            for _ in range(64)
        ]
        late = self.start(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline(25)))
        patient = self.start(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline(50)))
        self.clock.advance(25)
        error = self.error(late)
        self.assertEqual(error.status, 504)
        self.assertIn("registry.test: queue", error.message)
        self.assertEqual(self.scripted.count("HEAD"), 64)
        self.scripted.release(self.blob)
        self.clock.advance(0)
        for waiting in (*first, patient):
            self.assertEqual(self.successResultOf(waiting), len(DATA))
        self.assert_nothing_left()

    def test_places_come_back(self) -> None:
        """However a control request ends, its place is free again."""
        self.scripted.heal()
        for fault in (Fault(status=404), Fault(status=500), Fault(silent=True)):
            self.scripted.script(fault, times=70)
            waiting = [
                self.start(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline(1)))
                for _ in range(70)
            ]
            self.clock.pump([1, 1])
            for one in waiting:
                self.failureResultOf(one, RegistryError)
            self.scripted.heal()
            asking = self.upstream.head_blob(REPOSITORY, self.digest, self.deadline(1))
            self.assertEqual(self.result(asking), len(DATA))
        self.assert_nothing_left()

    def test_transfers_are_no_control(self) -> None:
        """Blobs on their way never keep a manifest waiting."""
        self.scripted.heal()
        self.scripted.hold(self.blob, 10)
        blobs = [self.get_blob() for _ in range(70)]
        asking = self.upstream.head_blob(REPOSITORY, Digest.of(b"other"), self.deadline())
        self.assertEqual(self.refused(asking).status, 404)
        self.scripted.release(self.blob)
        for blob in blobs:
            self.assertEqual(self.read(blob), DATA)
