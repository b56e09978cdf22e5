"""Tests for regproxy.testing.pushing, and for how requests with bodies are read."""

from __future__ import annotations

from io import BytesIO

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from regproxy.model.digest import Digest
from regproxy.testing import Fault
from tests.testing.case import DATA, HUB, REPOSITORY, UpstreamCase

UPLOADS = f"/v2/{REPOSITORY}/blobs/uploads/"
BODY = bytes(300_000)


class PushCase(UpstreamCase):
    """A registry that takes pushes."""

    def setUp(self) -> None:
        """Lets it."""
        super().setUp()
        self.uploads = self.upstream.accept_pushes(HUB)

    def send(self, method: str, path: str, body: bytes = b"") -> Deferred[IResponse]:
        """Makes a request with a body."""
        cooperator = Cooperator(scheduler=lambda call: self.clock.callLater(0, call))
        producer = FileBodyProducer(BytesIO(body), cooperator=cooperator)
        headers = Headers({"Content-Type": ["text/plain"]})
        url = f"{HUB}{path}".encode()
        waiting = self.upstream.request(method.encode(), url, headers, producer)
        self.clock.pump([0.0] * 50)
        return waiting

    def status(self, method: str, path: str, body: bytes = b"") -> int:
        """The status that a request gets at once."""
        self.answer = self.successResultOf(self.send(method, path, body))
        return int(self.answer.code)

    @property
    def location(self) -> str:
        """The Location of the last answer."""
        values: list[str] = self.answer.headers.getRawHeaders("Location") or [""]
        return values[0]


class UploadTests(PushCase):
    """Blobs."""

    def test_chunks(self) -> None:
        """A blob is there when its upload ends with the right digest, and not before."""
        digest = Digest.of(BODY)
        self.assertEqual(self.status("POST", UPLOADS), 202)
        for piece in (BODY[:100_000], BODY[100_000:]):
            self.assertEqual(self.status("PATCH", self.location, piece), 202)
        self.assertEqual(self.status("GET", f"/v2/{REPOSITORY}/blobs/{digest}"), 404)
        self.assertEqual(self.status("PUT", "/v2/x/blobs/uploads/session-1?digest=sha256:0"), 400)
        self.assertEqual(self.status("GET", "/v2/x/blobs/uploads/session-1"), 204)
        self.assertEqual(self.status("PUT", f"{self.location}&digest={digest}"), 201)
        self.assertEqual(self.status("GET", f"/v2/{REPOSITORY}/blobs/{digest}"), 200)
        self.assertEqual(self.uploads.sessions, {})

    def test_mount(self) -> None:
        """A blob of another repository is there at once; what is nowhere has to be uploaded."""
        target = f"/v2/other/blobs/uploads/?mount={self.digest}&from="
        self.assertEqual(self.status("POST", f"{target}{REPOSITORY}"), 201)
        self.assertEqual(self.status("GET", f"/v2/other/blobs/{self.digest}"), 200)
        self.assertEqual(self.status("POST", f"{target}nowhere"), 202)

    def test_given_up(self) -> None:
        """An upload that was given up is unknown."""
        self.status("POST", UPLOADS)
        location = self.location
        self.assertEqual(self.status("DELETE", location), 204)
        self.assertEqual(self.status("PATCH", location, b"x"), 404)

    def test_elsewhere(self) -> None:
        """Uploads may be at another origin."""
        self.upstream.accept_pushes(HUB, "https://up.test/{session}?s=1")
        self.status("POST", UPLOADS)
        self.assertEqual(self.location, "https://up.test/session-1?s=1")
        answer = self.get("https://up.test/session-1?s=1")
        self.assertEqual(answer.code, 204)

    def test_refused(self) -> None:
        """A registry takes no pushes unless it is told to."""
        self.upstream.add_blob("https://other.test", REPOSITORY, DATA)
        self.assertEqual(self.get(f"https://other.test{UPLOADS}", method="POST").code, 405)


class ManifestTests(PushCase):
    """Manifests, and what is deleted."""

    def test_put_and_delete(self) -> None:
        """A manifest is there by tag and by digest until it is deleted."""
        path = f"/v2/{REPOSITORY}/manifests/"
        self.assertEqual(self.status("PUT", f"{path}new", b"{}"), 201)
        for reference in ("new", str(Digest.of(b"{}"))):
            self.assertEqual(self.status("GET", path + reference), 200)
            self.assertEqual(self.answer.headers.getRawHeaders("Content-Type"), ["text/plain"])
            self.assertEqual(self.status("DELETE", path + reference), 202)
            self.assertEqual(self.status("GET", path + reference), 404)
            self.assertEqual(self.status("DELETE", path + reference), 404)

    def test_delete_blob(self) -> None:
        """A blob can be deleted, once."""
        self.assertEqual(self.status("DELETE", self.blob), 202)
        self.assertEqual(self.status("DELETE", self.blob), 404)
        self.assertEqual(self.status("GET", self.blob), 404)


class ReadingTests(PushCase):
    """Bodies of requests that are not read as they come."""

    def test_read_in_part(self) -> None:
        """A request is read up to where it was to be, and on when told so."""
        self.upstream.script(Fault(read=1000))
        waiting = self.send("PATCH", UPLOADS, BODY)
        (request,) = self.upstream.requests
        self.assertLess(len(request.body), 1000)
        self.assertFalse(request.whole)
        self.assertNoResult(waiting)
        self.upstream.read_on()
        self.clock.pump([0.0] * 50)
        self.assertTrue(request.whole)
        self.successResultOf(waiting)

    def test_early_answer(self) -> None:
        """An answer may come before all of the request is there."""
        self.upstream.script(Fault(status=413, answer_after=10, read=1000))
        waiting = self.send("PATCH", UPLOADS, BODY)
        self.assertEqual(self.successResultOf(waiting).code, 413)
        self.assertFalse(self.upstream.requests[0].whole)
