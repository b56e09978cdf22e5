"""What the answers say, byte by byte and header by header."""

from __future__ import annotations

import json
import re
import socket
from typing import BinaryIO

from tests.real.case import RealCase
from tests.real.images import ACCEPT, Format, sha256
from tests.real.library import library
from tests.real.proxy import counted, words
from tests.real.rawhttp import Answer, fetch

_LINK = re.compile(r'^<([^>]+)>; *rel="?next"?$')


class AnswersCase(RealCase):
    """One upstream, one regproxy, and plain HTTP."""

    def setUp(self) -> None:
        """Starts both."""
        super().setUp()
        self.registry = self.start_registry()
        self.proxy = self.start_proxy_for(self.registry)
        self.base = f"{self.proxy.url}/v2/registry-a.test/team/app"
        self.image = library().images["small"]
        self.blob = self.image.layers[1].blob

    def error(self, target: str) -> tuple[int, str]:
        """Status and OCI error code of an answer."""
        answer = fetch(self.proxy.url + target, headers=ACCEPT)
        return answer.status, answer.error_code()


class ManifestTests(AnswersCase):
    """Manifests by tag and by digest."""

    def assert_manifest(self, answer: Answer, *, whole: bool = True) -> None:
        """The answer is the image's manifest, or has the headers of it."""
        self.assertEqual(answer.status, 200)
        headers = answer.headers
        self.assertEqual(headers["docker-content-digest"], self.image.digest)
        self.assertEqual(headers["content-type"], Format.DOCKER.manifest)
        self.assertEqual(headers["content-length"], str(len(self.image.data)))
        self.assertEqual(headers["etag"], f'"{self.image.digest}"')
        self.assertEqual(answer.body, self.image.data if whole else b"")

    def test_headers(self) -> None:
        """GET and HEAD, cold and warm, by tag and by digest: the same headers."""
        for reference in ("small", self.image.digest):
            url = f"{self.base}/manifests/{reference}"
            for _ in range(2):
                answer = fetch(url, method="HEAD", headers=ACCEPT)
                self.assert_manifest(answer, whole=False)
            for _ in range(2):
                self.assert_manifest(fetch(url, headers=ACCEPT))
                answer = fetch(url, method="HEAD", headers=ACCEPT)
                self.assert_manifest(answer, whole=False)

    def test_cold_head_fills_nothing(self) -> None:
        """A HEAD becomes one HEAD upstream, and nothing is stored."""
        fetch(f"{self.base}/manifests/small", method="HEAD", headers=ACCEPT)
        fetch(f"{self.base}/blobs/{self.blob.digest}", method="HEAD")
        asked = [each.method for each in self.registry.requests()]
        self.assertEqual(asked, ["HEAD", "HEAD"])
        self.assertEqual(self.proxy.stored(), [])

    def test_not_modified(self) -> None:
        """If-None-Match with the ETag, alone, weak or in a list, is answered with 304."""
        url = f"{self.base}/manifests/small"
        tag = fetch(url, headers=ACCEPT).headers["etag"]
        for condition in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = fetch(url, headers={**ACCEPT, "If-None-Match": condition})
            self.assertEqual((answer.status, answer.size), (304, 0), condition)
            self.assertEqual(answer.headers["etag"], tag)
        other = fetch(url, headers={**ACCEPT, "If-None-Match": '"other"'})
        self.assertEqual(other.status, 200)

    def test_accept(self) -> None:
        """A tag of two platforms is an index to those who accept one."""
        index = library().images["multi"]
        accept = {"Accept": f"{Format.OCI.index}, {Format.OCI.manifest}"}
        for _ in range(2):
            answer = fetch(f"{self.base}/manifests/multi", headers=accept)
            self.assertEqual((answer.status, answer.body), (200, index.data))
            self.assertEqual(answer.headers["content-type"], Format.OCI.index)

    def test_cache_status(self) -> None:
        """Cache-Status says miss and stored, then hit; the log says it in its own words."""
        said = []
        for what in ("manifests/small", f"blobs/{self.blob.digest}"):
            for _ in range(2):
                answer = fetch(f"{self.base}/{what}", headers=ACCEPT)
                said.append(answer.headers["cache-status"])
                self.proxy.wait_for_fills()
        self.assertEqual(said, ["regproxy; fwd=uri-miss; stored", "regproxy; hit"] * 2)
        log = [line["cache"] for line in self.proxy.access_log() if line["cache"] != "-"]
        self.assertEqual(log, ["MISS", "HIT", "MISS", "HIT"])


class BlobTests(AnswersCase):
    """Blobs, whole and in part."""

    def test_headers(self) -> None:
        """GET and HEAD, cold and warm, tell length, digest and ranges."""
        url = f"{self.base}/blobs/{self.blob.digest}"
        for method in ("HEAD", "GET", "GET", "HEAD"):
            answer = fetch(url, method=method)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.headers["content-length"], str(self.blob.size))
            self.assertEqual(answer.headers["docker-content-digest"], self.blob.digest)
            self.assertEqual(answer.headers["accept-ranges"], "bytes")
            self.assertNotIn("content-encoding", answer.headers)
            if method == "GET":
                self.assertEqual(answer.digest, self.blob.digest)

    def test_ranges(self) -> None:
        """One range is 206 with exactly those bytes, cold and warm."""
        url = f"{self.base}/blobs/{self.blob.digest}"
        size, content = self.blob.size, self.blob.path.read_bytes()
        wanted = {
            "bytes=0-0": (0, 1),
            "bytes=1000-": (1000, size),
            "bytes=100000-599999": (100_000, 600_000),
            "bytes=-7": (size - 7, size),
            f"bytes={size - 1}-{size + 100}": (size - 1, size),
            f"bytes=-{size * 2}": (0, size),
        }
        for _ in range(2):
            for header, (start, stop) in wanted.items():
                answer = fetch(url, headers={"Range": header})
                self.assertEqual(answer.status, 206, header)
                told = answer.headers["content-range"]
                self.assertEqual(told, f"bytes {start}-{stop - 1}/{size}", header)
                self.assertEqual(answer.digest, sha256(content[start:stop]), header)

    def test_unsatisfiable_ranges(self) -> None:
        """A range outside the blob is 416 and tells the size."""
        url = f"{self.base}/blobs/{self.blob.digest}"
        fetch(url)
        for header in (f"bytes={self.blob.size}-", "bytes=9-3", "bytes=-0"):
            answer = fetch(url, headers={"Range": header})
            self.assertEqual(answer.status, 416, header)
            self.assertEqual(answer.headers["content-range"], f"bytes */{self.blob.size}")

    def test_other_ranges(self) -> None:
        """Several ranges, or those of another unit, are answered with the whole."""
        url = f"{self.base}/blobs/{self.blob.digest}"
        for header in ("bytes=0-1,4-5", "lines=1-2"):
            answer = fetch(url, headers={"Range": header})
            self.assertEqual((answer.status, answer.digest), (200, self.blob.digest), header)

    def test_not_modified(self) -> None:
        """A blob that the client has is not sent again."""
        url = f"{self.base}/blobs/{self.blob.digest}"
        fetch(url)
        self.proxy.wait_for_fills()
        answer = fetch(url, headers={"If-None-Match": f'"{self.blob.digest}"'})
        self.assertEqual((answer.status, answer.size), (304, 0))


class ConnectionTests(AnswersCase):
    """What HTTP/1.1 allows a client to do with a connection and its headers."""

    def test_pipelined(self) -> None:
        """Requests sent one behind the other are answered in their order."""
        base = "/v2/registry-a.test/team/app"
        targets = [f"{base}/blobs/{layer.blob.digest}" for layer in self.image.layers]
        targets += [f"{base}/manifests/{self.image.digest}", "/v2/"]
        requests = [f"GET {target} HTTP/1.1\r\nHost: x\r\n" for target in targets]
        requests[-1] += "Connection: close\r\n"
        with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=20.0) as client:
            client.sendall("".join(f"{request}\r\n" for request in requests).encode())
            with client.makefile("rb") as stream:
                bodies = [_read_answer(stream) for _ in targets]
                self.assertEqual(stream.read(), b"")
        wanted = [*(layer.blob.digest for layer in self.image.layers), self.image.digest]
        self.assertEqual([sha256(body) for body in bodies[:-1]], wanted)
        self.assertEqual(bodies[-1], b"{}")

    def test_empty_credential(self) -> None:
        """The empty Basic credential that podman sends to mirrors counts as none."""
        url = f"{self.base}/manifests/small"
        for _ in range(2):
            fetch(url, headers={**ACCEPT, "Authorization": "Basic Og=="})
        self.assertEqual(words(self.proxy.access_log()), ["MISS", "HIT"])


class OtherPathsTests(AnswersCase):
    """The version check, lists, and what is refused."""

    def test_version_check(self) -> None:
        """``/v2/`` answers 200, with a registry's name behind it too."""
        for target in ("/v2/", "/v2", "/v2/registry-a.test/"):
            answer = fetch(self.proxy.url + target)
            self.assertEqual(answer.status, 200, target)
            version = answer.headers["docker-distribution-api-version"]
            self.assertEqual(version, "registry/2.0")
        answer = fetch(f"{self.proxy.tls_url}/v2/", trust=self.proxy.certificates.trust())
        self.assertEqual(answer.status, 200)

    def test_tags(self) -> None:
        """The tags are listed under the name that this client used."""
        for name in ("registry-a.test/team/app", "team/app"):
            answer = fetch(f"{self.proxy.url}/v2/{name}/tags/list")
            self.assertEqual(answer.status, 200)
            listed = json.loads(answer.body)
            self.assertEqual(listed["name"], name)
            self.assertEqual(set(listed["tags"]), set(library().images))
        self.assertEqual(set(counted(self.proxy.access_log())), {"RELAY"})

    def test_pages_of_the_catalog(self) -> None:
        """Following the Links through the proxy lists every name by which this client can pull."""
        for prefix in ("registry-a.test/", ""):
            names: list[str] = []
            target = f"/v2/{prefix}_catalog?n=1"
            while target:
                answer = fetch(self.proxy.url + target)
                self.assertEqual(answer.status, 200, target)
                (name,) = json.loads(answer.body)["repositories"]
                names.append(name)
                link = _LINK.match(answer.headers.get("link", ""))
                target = "" if link is None else link[1].removeprefix(self.proxy.url)
            self.assertEqual(names, [f"{prefix}library/app", f"{prefix}team/app"])

    def test_unknown(self) -> None:
        """What the upstream does not know is 404 with the registry's code."""
        base = "/v2/registry-a.test/team/app"
        self.assertEqual(self.error(f"{base}/manifests/no"), (404, "MANIFEST_UNKNOWN"))
        nothing = sha256(b"nothing")
        self.assertEqual(self.error(f"{base}/blobs/{nothing}"), (404, "BLOB_UNKNOWN"))
        self.assertEqual(self.error(f"{base}/manifests/{nothing}"), (404, "MANIFEST_UNKNOWN"))

    def test_unknown_registry(self) -> None:
        """A registry that is not configured is 404, and the answer says which ones are."""
        answer = fetch(f"{self.proxy.url}/v2/registry-z.test/team/app/manifests/small")
        self.assertEqual((answer.status, answer.error_code()), (404, "NAME_UNKNOWN"))
        self.assertIn(b"registry-a.test", answer.body)
        target = "/v2/team/app/manifests/small?ns=registry-z.test"
        self.assertEqual(self.error(target), (404, "NAME_UNKNOWN"))

    def test_malformed(self) -> None:
        """Malformed names and digests are 400, and upstream hears nothing of them."""
        base = "/v2/registry-a.test/team"
        hexes = "a" * 63
        self.assertEqual(self.error(f"{base}/APP/manifests/small")[0], 400)
        self.assertEqual(self.error(f"{base}/app/manifests/.small")[0], 400)
        self.assertEqual(self.error(f"{base}/app/blobs/sha256:{hexes}"), (400, "DIGEST_INVALID"))
        self.assertEqual(self.error(f"{base}/..%2f..%2fetc/manifests/small")[0], 400)
        self.assertEqual(self.error("/v2/team/app/manifests/small?ns=a/b")[0], 400)
        self.assertEqual(self.error("/elsewhere")[0], 404)
        self.assertEqual(self.registry.requests(), [])


def _read_answer(stream: BinaryIO) -> bytes:
    """The body of the next answer on a connection."""
    length = 0
    while (line := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return stream.read(length)
