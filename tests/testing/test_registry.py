"""Tests for regproxy.testing.registry, as an agent sees it."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.model.digest import Digest
from regproxy.testing.replies import content_reply
from tests.testing.case import CDN, DATA, HUB, REPOSITORY, UpstreamCase

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_LATEST = f"/v2/{REPOSITORY}/manifests/latest"
_SCOPE = f"repository:{REPOSITORY}:pull"


class ContentReplyTests(SynchronousTestCase):
    """Ranges and conditions."""

    @given(st.binary(min_size=1, max_size=20), st.integers(0, 25), st.integers(0, 25))
    def test_ranges(self, data: bytes, first: int, last: int) -> None:
        """A range is the slice that RFC 9110 says, or 416 when it holds nothing."""
        for text, expected in (
            (f"bytes={first}-{last}", data[first : last + 1]),
            (f"bytes={first}-", data[first:]),
            (f"bytes=-{last}", data[max(0, len(data) - last) :] if last else b""),
        ):
            reply = content_reply(data, {"ETag": '"e"'}, Headers({"Range": [text]}))
            if not expected:
                self.assertEqual(
                    (reply.status, reply.headers["Content-Range"]), (416, f"bytes */{len(data)}")
                )
                continue
            stop = reply.start + len(expected)
            self.assertEqual((reply.status, reply.body), (206, expected))
            self.assertEqual(data[reply.start : stop], expected)
            self.assertEqual(
                reply.headers["Content-Range"], f"bytes {reply.start}-{stop - 1}/{len(data)}"
            )

    def test_ignored(self) -> None:
        """Another unit, several ranges, nonsense and a failed If-Range get the whole."""
        for headers in (
            {"Range": ["lines=1-2"]},
            {"Range": ["bytes=0-1,3-4"]},
            {"Range": ["bytes=-"]},
            {"Range": ["bytes=0-1"], "If-Range": ['"other"']},
        ):
            reply = content_reply(b"data", {"ETag": '"e"'}, Headers(headers))
            self.assertEqual((reply.status, reply.body), (200, b"data"))

    def test_conditions(self) -> None:
        """A known ETag is 304; If-Range with it lets the range stand."""
        known = Headers({"If-None-Match": ['"x", "e"']})
        self.assertEqual(content_reply(b"data", {"ETag": '"e"'}, known).status, 304)
        ranged = Headers({"Range": ["bytes=1-"], "If-Range": ['"e"']})
        self.assertEqual(content_reply(b"data", {"ETag": '"e"'}, ranged).body, b"ata")


class ContentTests(UpstreamCase):
    """Blobs, manifests and tags."""

    def test_blob(self) -> None:
        """A blob comes with its length, digest and ETag."""
        response = self.get(self.blob)
        self.assertEqual((response.code, response.length), (200, len(DATA)))
        self.assertEqual(self.header(response, "Docker-Content-Digest"), str(self.digest))
        self.assertEqual(self.header(response, "ETag"), f'"{self.digest}"')
        self.assertEqual(self.header(response, "Content-Type"), "application/octet-stream")
        self.assertEqual(self.read(response), DATA)

    def test_head(self) -> None:
        """HEAD has the headers of GET and no body."""
        response = self.get(self.blob, method="HEAD")
        self.assertEqual((response.code, response.length), (200, 0))
        self.assertEqual(self.header(response, "Content-Length"), str(len(DATA)))
        self.assertEqual(self.read(response), b"")

    def test_range(self) -> None:
        """A range is 206 with a Content-Range."""
        response = self.get(self.blob, {"Range": "bytes=1000-"})
        self.assertEqual((response.code, response.length), (206, len(DATA) - 1000))
        self.assertEqual(
            self.header(response, "Content-Range"), f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"
        )
        self.assertEqual(self.read(response), DATA[1000:])

    def test_unknown(self) -> None:
        """What is not there is 404 with the code of its kind; so is a wrong repository."""
        other = Digest.of(b"other")
        for path, code in (
            (f"/v2/{REPOSITORY}/blobs/{other}", "BLOB_UNKNOWN"),
            (f"/v2/library/busybox/blobs/{self.digest}", "BLOB_UNKNOWN"),
            (_LATEST, "MANIFEST_UNKNOWN"),
            (f"/v2/{REPOSITORY}/manifests/{other}", "MANIFEST_UNKNOWN"),
            ("/v2/library/none/tags/list", "NAME_UNKNOWN"),
        ):
            with self.subTest(path=path):
                response = self.get(path)
                self.assertEqual(response.code, 404)
                self.assertEqual(json.loads(self.read(response))["errors"][0]["code"], code)

    def test_version_check(self) -> None:
        """The API is there; nothing else is, and nothing can be written."""
        self.assertEqual(self.get("/v2/").code, 200)
        self.assertEqual(self.get("/v1/").code, 404)
        self.assertEqual(self.get(self.blob, method="DELETE").code, 405)

    def test_manifest(self) -> None:
        """A manifest is found by tag and by digest, with its media type."""
        digest = self.upstream.add_manifest(HUB, REPOSITORY, b"{}", _MANIFEST, tag="latest")
        for path in (_LATEST, f"/v2/{REPOSITORY}/manifests/{digest}"):
            response = self.get(path)
            self.assertEqual(self.header(response, "Content-Type"), _MANIFEST)
            self.assertEqual(self.header(response, "Docker-Content-Digest"), str(digest))
            self.assertEqual(self.read(response), b"{}")
        known = self.get(_LATEST, {"If-None-Match": f'"{digest}"'})
        self.assertEqual((known.code, self.read(known)), (304, b""))

    def test_tag_moves(self) -> None:
        """A tag points to what was added last, and can be taken away."""
        self.upstream.add_manifest(HUB, REPOSITORY, b"old", _MANIFEST, tag="latest")
        new = self.upstream.add_manifest(HUB, REPOSITORY, b"new", _MANIFEST, tag="latest")
        self.assertEqual(self.read(self.get(_LATEST)), b"new")
        self.upstream.remove_tag(HUB, REPOSITORY, "latest")
        self.assertEqual(self.get(_LATEST).code, 404)
        self.upstream.remove_digest(HUB, REPOSITORY, new)
        self.assertEqual(self.get(f"/v2/{REPOSITORY}/manifests/{new}").code, 404)

    def test_variants(self) -> None:
        """What a tag means depends on what the client accepts; a digest does not."""
        index = self.upstream.add_manifest(HUB, REPOSITORY, b"[]", _INDEX, tag="latest")
        child = self.upstream.add_manifest(HUB, REPOSITORY, b"{}", _MANIFEST)
        self.upstream.add_variant(HUB, REPOSITORY, "latest", child)
        for accept, expected in (
            (_INDEX, index),
            ("*/*", index),
            (f"text/html, application/*;q=0.5, {_MANIFEST}", index),
            (_MANIFEST, child),
            (f"{_INDEX};q=0, {_MANIFEST}", child),
        ):
            with self.subTest(accept=accept):
                response = self.get(_LATEST, {"Accept": accept})
                self.assertEqual(self.header(response, "Docker-Content-Digest"), str(expected))
        self.assertEqual(self.get(_LATEST, {"Accept": "text/html"}).code, 404)
        by_digest = self.get(f"/v2/{REPOSITORY}/manifests/{index}", {"Accept": _MANIFEST})
        self.assertEqual(by_digest.code, 200)

    def test_tags(self) -> None:
        """The list of tags is sorted, and cut into pages that link to the next."""
        for tag in ("c", "a", "b"):
            self.upstream.add_manifest(HUB, REPOSITORY, b"{}", _MANIFEST, tag=tag)
        path = f"/v2/{REPOSITORY}/tags/list"
        whole = self.get(path)
        self.assertEqual(
            json.loads(self.read(whole)), {"name": REPOSITORY, "tags": ["a", "b", "c"]}
        )
        self.assertIsNone(self.header(whole, "Link"))
        page = self.get(f"{path}?n=2")
        self.assertEqual(json.loads(self.read(page))["tags"], ["a", "b"])
        self.assertEqual(self.header(page, "Link"), f'<{path}?last=b&n=2>; rel="next"')
        last = self.get(f"{path}?last=b&n=2")
        self.assertEqual(json.loads(self.read(last))["tags"], ["c"])
        self.assertIsNone(self.header(last, "Link"))

    def test_page(self) -> None:
        """Any URL can be given an answer, before what is at its origin otherwise."""
        self.upstream.add_page(
            f"{HUB}/v2/_catalog", b"denied", status=403, headers={"X-Reason": "none"}
        )
        response = self.get("/v2/_catalog?n=5")
        self.assertEqual((response.code, self.read(response)), (403, b"denied"))
        self.assertEqual(self.header(response, "X-Reason"), "none")

    def test_unknown_origin(self) -> None:
        """A host that nothing was added to does not resolve; a port makes another origin."""
        for url in ("https://quay.io/v2/", "https://registry-1.docker.io:5000/v2/"):
            self.failureResultOf(self.ask(url), DNSLookupError)


class TokenTests(UpstreamCase):
    """Registries that require an anonymous token."""

    def setUp(self) -> None:
        """Requires tokens."""
        super().setUp()
        self.realm = self.upstream.require_token(HUB)

    def token(self, scope: str = _SCOPE) -> str:
        """A token for one scope."""
        response = self.get(f"{self.realm.url}?service=x&scope={quote(scope)}")
        answer = json.loads(self.read(response))
        self.assertEqual(answer["expires_in"], 3600)
        return str(answer["token"])

    def bearer(self, token: str) -> dict[str, str]:
        """The header that brings a token."""
        return {"Authorization": f"Bearer {token}"}

    def test_challenge(self) -> None:
        """Without a token there is a challenge that names realm, service and scope."""
        response = self.get(self.blob)
        self.assertEqual(response.code, 401)
        self.assertEqual(
            self.header(response, "WWW-Authenticate"),
            'Bearer realm="https://auth.registry-1.docker.io/token",'
            f'service="registry-1.docker.io",scope="{_SCOPE}"',
        )
        self.assertIn("UNAUTHORIZED", self.read(response).decode())
        self.assertNotIn("scope", self.header(self.get("/v2/"), "WWW-Authenticate") or "")

    def test_token(self) -> None:
        """A token that the realm gave is enough for its scope, and for the version check."""
        token = self.bearer(self.token())
        self.assertEqual(self.get(self.blob, token).code, 200)
        self.assertEqual(self.get("/v2/", token).code, 200)

    def test_other_scope(self) -> None:
        """A token for another repository is refused, and the challenge says why."""
        response = self.get(self.blob, self.bearer(self.token("repository:other:pull")))
        self.assertEqual(response.code, 401)
        self.assertIn('error="insufficient_scope"', self.header(response, "WWW-Authenticate") or "")

    def test_invalid(self) -> None:
        """A token that the realm never gave, has forgotten, or that is too old is refused."""
        forgotten, old = self.token(), self.token()
        del self.realm.issued[forgotten]
        self.clock.advance(3600)
        for token in ("made-up", forgotten, old):
            response = self.get(self.blob, self.bearer(token))
            self.assertIn('error="invalid_token"', self.header(response, "WWW-Authenticate") or "")
        self.assertEqual(self.get(self.blob, {"Authorization": "Basic Og=="}).code, 401)

    def test_given_realm(self) -> None:
        """A realm may be anywhere, the registry's own origin included."""
        realm = self.upstream.require_token(HUB, f"{HUB}/token", "a service", lifetime=60)
        response = self.get(f"{realm.url}?scope={quote(_SCOPE)}")
        token = json.loads(self.read(response))["access_token"]
        self.assertEqual(self.get(self.blob, self.bearer(token)).code, 200)
        self.assertEqual(self.get(realm.url, method="POST").code, 405)


class RedirectTests(UpstreamCase):
    """Registries whose blobs are elsewhere."""

    def setUp(self) -> None:
        """Redirects."""
        super().setUp()
        self.upstream.redirect_blobs(HUB, CDN, lifetime=60)

    def locate(self) -> str:
        """A fresh URL of the blob."""
        response = self.get(self.blob)
        self.assertEqual(response.code, 307)
        self.read(response)
        return self.header(response, "Location") or ""

    def test_followed(self) -> None:
        """The signed URL has the bytes, and ranges of them."""
        self.assertEqual(self.read(self.get(self.locate())), DATA)
        self.assertEqual(self.read(self.get(self.locate(), {"Range": "bytes=5-9"})), DATA[5:10])
        self.assertEqual(self.upstream.count("GET", self.blob), 2)
        self.assertEqual(self.upstream.count("GET", f"/data/{self.digest}"), 2)

    def test_expired(self) -> None:
        """A signature is good for a while, and each redirect has a new one."""
        first = self.locate()
        self.clock.advance(60)
        second = self.locate()
        self.assertEqual([self.get(url).code for url in (first, second)], [403, 200])
        self.assertEqual(self.get(f"{CDN}/data/{self.digest}").code, 403)

    def test_credential(self) -> None:
        """A credential that follows the redirect is refused, as by S3."""
        response = self.get(self.locate(), {"Authorization": "Bearer secret"})
        self.assertEqual(response.code, 400)

    def test_status(self) -> None:
        """The redirect's status can be chosen; manifests are not redirected."""
        self.upstream.redirect_blobs(HUB, CDN, status=302)
        self.upstream.add_manifest(HUB, REPOSITORY, b"{}", _MANIFEST, tag="latest")
        self.assertEqual(self.get(self.blob, method="HEAD").code, 302)
        self.assertEqual(self.get(_LATEST).code, 200)
