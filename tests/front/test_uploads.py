"""Pushes through the proxy."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.front.sealing import Seals
from regproxy.front.uploads import PURPOSE, Uploads
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.model.route import Reached, WayIn, parse_route
from regproxy.testing import BEFORE_HEADERS, Fault, MemoryAnswer
from tests.front.proxy import ALPINE, CORP, DATA, HUB, QUAY
from tests.front.pushing import BODY, PassingCase

KEY = bytes(range(32))
DAY = 86_400.0
MINE = {"Authorization": "Bearer mine"}
PROXY = "http://proxy.test:5000"
MANIFEST = {"Content-Type": OCI_MANIFEST}


class UploadCase(PassingCase):
    """All registries take pushes, but one through the proxy."""

    def setUp(self) -> None:
        """Lets registries take pushes."""
        super().setUp()
        self.seals = Seals(lambda: KEY, PURPOSE, self.clock, DAY)
        for origin in (HUB, QUAY):
            self.upstream.accept_pushes(origin)
        rooms = self.proxy.rooms
        self.uploads = Uploads(
            self.passing,
            rooms.manifests.freshness,
            self.proxy.index,
            rooms.lookup,
            {"docker.io", "quay.io"},
            self.seals,
        )

    async def serve(self, client: Client, deadline: Deadline) -> None:
        """Passes a push on."""
        rooms = self.proxy.rooms
        route = parse_route(client.target, rooms.lookup, self.reached)
        upstream = rooms.upstreams[route.registry]
        await self.uploads.answer(client, route, upstream, deadline)

    def location(self, answer: MemoryAnswer) -> str:
        """The target that an answer's Location is, which is an absolute URL at the proxy."""
        location = answer.header("Location") or ""
        self.assertTrue(location.startswith(f"{PROXY}/v2/"), location)
        return location.removeprefix(PROXY)

    def push(self, repository: str, data: bytes = BODY, query: str = "") -> Digest:
        """Pushes a blob in two chunks, as clients do; fails unless every step succeeds."""
        digest = Digest.of(data)
        answer = self.pass_on("POST", f"/v2/{repository}/blobs/uploads/{query}", MINE, b"")
        for piece in (data[:1000], data[1000:]):
            self.assertEqual(answer.status, 202, answer.body)
            answer = self.pass_on("PATCH", self.location(answer), MINE, chunks=[piece])
        self.assertEqual(answer.status, 202, answer.body)
        target = self.location(answer)
        target += f"{'&' if '?' in target else '?'}digest={quote(str(digest))}"
        answer = self.pass_on("PUT", target, MINE, b"")
        self.assertEqual(answer.status, 201, answer.body)
        self.pushed = self.location(answer)
        return digest


class UploadTest(UploadCase):
    """Blobs."""

    def test_mirror(self) -> None:
        """A blob is pushed in chunks; the credential goes with each step."""
        digest = self.push("alpine")
        self.assertEqual(self.pushed, f"/v2/alpine/blobs/{digest}")
        steps = [(request.method, request.path) for request in self.upstream.requests]
        session = "/v2/library/alpine/blobs/uploads/session-1"
        self.assertEqual(
            steps,
            [
                ("POST", "/v2/library/alpine/blobs/uploads/"),
                ("PATCH", session),
                ("PATCH", session),
                ("PUT", session),
            ],
        )
        self.assertEqual(
            {request.header("Authorization") for request in self.upstream.requests},
            {"Bearer mine"},
        )
        self.assertEqual(
            self.upstream.requests[-1].query, f"_state=of-session-1&digest={quote(str(digest))}"
        )

    def test_prefix(self) -> None:
        """On the path-prefix way in every URL has the prefix."""
        digest = self.push("quay.io/coreos/etcd")
        self.assertEqual(self.pushed, f"/v2/quay.io/coreos/etcd/blobs/{digest}")
        self.assertEqual(
            {urlsplit(request.url).netloc for request in self.upstream.requests}, {"quay.io"}
        )

    def test_namespace(self) -> None:
        """On the namespace way in every URL has the ns, which upstream never sees."""
        digest = self.push("coreos/etcd", query="?ns=quay.io")
        self.assertEqual(self.pushed, f"/v2/coreos/etcd/blobs/{digest}?ns=quay.io")
        self.assertFalse([r for r in self.upstream.requests if "ns=" in r.query])

    def test_reached(self) -> None:
        """Where the host is the registry, URLs have its name and the registry's own paths."""
        self.reached = Reached(WayIn.INTERCEPTION, "quay.io")
        self.start()
        answer = self.pass_on("POST", "/v2/coreos/etcd/blobs/uploads/", {"Host": "quay.io"}, b"")
        location = answer.header("Location") or ""
        self.assertTrue(location.startswith("http://quay.io/v2/coreos/etcd/blobs/uploads/"))
        answer = self.pass_on("GET", location.removeprefix("http://quay.io"), {"Host": "quay.io"})
        self.assertEqual(answer.status, 204)

    def test_absolute(self) -> None:
        """A registry that names its uploads by absolute URLs is no different."""
        self.upstream.accept_pushes(HUB, f"{HUB}/v2/{{repository}}/blobs/uploads/{{session}}?a=1")
        self.push("alpine")

    def test_outside(self) -> None:
        """Nor is one whose uploads are outside of /v2/."""
        location = f"{HUB}/artifacts-uploads/{{session}}?upload_id=1"
        uploads = self.upstream.accept_pushes(HUB, location)
        self.upstream.add_page(f"{HUB}/artifacts-uploads/session-1", b"")
        self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        self.assertEqual(len(uploads.sessions), 1)
        answer = self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        self.pass_on("PATCH", self.location(answer), MINE, b"x")
        self.assertEqual(
            self.upstream.requests[-1].url, f"{HUB}/artifacts-uploads/session-2?upload_id=1"
        )

    def test_elsewhere(self) -> None:
        """Uploads at another origin are sent there, without the registry's credential."""
        self.upstream.accept_pushes(HUB, "https://up.example/{session}?signature=x%2By")
        self.push("alpine")
        elsewhere = self.upstream.requests[1:]
        self.assertEqual({urlsplit(r.url).netloc for r in elsewhere}, {"up.example"})
        self.assertEqual({r.header("Authorization") for r in elsewhere}, {None})
        self.assertEqual(elsewhere[0].query, "signature=x%2By")

    def test_http_behind_tls(self) -> None:
        """A registry that takes its own URL for a plain one is asked by TLS all the same."""
        plain = HUB.replace("https", "http")
        location = f"{plain}/v2/{{repository}}/blobs/uploads/{{session}}"
        self.upstream.accept_pushes(HUB, location)
        self.push("alpine")
        self.assertEqual({urlsplit(r.url).scheme for r in self.upstream.requests}, {"https"})

    def test_own_name(self) -> None:
        """A registry that goes by the name that clients use is still asked at its upstream."""
        for scheme in ("http", "https"):
            self.upstream.requests.clear()
            location = f"{scheme}://docker.io/v2/{{repository}}/blobs/uploads/{{session}}?a=b"
            self.upstream.accept_pushes(HUB, location)
            self.push("alpine")
            asked = {urlsplit(each.url)[:2] for each in self.upstream.requests}
            self.assertEqual(asked, {tuple(urlsplit(HUB)[:2])})

    def test_downgrade(self) -> None:
        """An upload that would leave https for another host's http is refused."""
        self.upstream.accept_pushes(HUB, "http://other.example/{session}")
        answer = self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        self.assertIn("plain http", self.assert_error(answer, 502, "UNKNOWN"))
        self.assertEqual(self.upstream.connections, 0)

    def test_monolithic(self) -> None:
        """A blob in one PUT goes up as it comes."""
        answer = self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        target = f"{self.location(answer)}&digest={Digest.of(BODY)}"
        answer = self.pass_on("PUT", target, MINE, BODY)
        self.assertEqual(answer.status, 201)

    def test_headers(self) -> None:
        """What a registry says of an upload is said to the client, and the other way round."""
        answer = self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        self.assertEqual(answer.header("OCI-Chunk-Min-Length"), "1024")
        self.assertEqual(answer.header("Docker-Upload-UUID"), "session-1")
        self.assertIn("/uploads/session-1?state=", self.location(answer))
        headers = {"Content-Range": "0-9", "Content-Type": "application/octet-stream"}
        answer = self.pass_on("PATCH", self.location(answer), headers, bytes(10))
        self.assertEqual(answer.header("Range"), "0-9")
        for name, value in headers.items():
            self.assertEqual(self.upstream.requests[-1].header(name), value)

    def test_status_and_cancel(self) -> None:
        """An upload can be asked about, and given up."""
        target = self.location(self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b""))
        answer = self.pass_on("GET", target, MINE)
        self.assertEqual((answer.status, answer.header("Range")), (204, "0-0"))
        target = self.location(answer)
        self.assertEqual(self.pass_on("DELETE", target, MINE).status, 204)
        self.assert_error(self.pass_on("GET", target, MINE), 404, "BLOB_UPLOAD_UNKNOWN")

    def test_refusals(self) -> None:
        """What a registry refuses is told in its own words and headers."""
        challenge = 'Bearer realm="https://auth.docker.io/token",scope="a:b:push"'
        self.upstream.script(Fault(status=401, headers={"WWW-Authenticate": challenge}))
        answer = self.pass_on("POST", "/v2/alpine/blobs/uploads/", body=b"")
        self.assert_error(answer, 401, "UNAUTHORIZED")
        self.assertEqual(answer.header("WWW-Authenticate"), challenge)
        self.assertEqual(len(self.upstream.requests), 1)

    def test_slow_commit(self) -> None:
        """A registry may take minutes to put a blob together, longer than any answer to a pull."""
        target = self.location(self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b""))
        self.upstream.script(Fault(latency=600.0))
        answer = self.connect().request("PUT", f"{target}&digest={Digest.of(b'')}", MINE, b"")
        self.clock.pump([10.0] * 61)
        self.assertEqual(answer.status, 201)

    def test_slow_start(self) -> None:
        """What moves nothing has the time of any other question: 504 comes before clients go."""
        self.upstream.script(Fault(latency=600.0), times=3)
        for method, target in (
            ("POST", "/v2/alpine/blobs/uploads/"),
            ("DELETE", self.blob),
            ("DELETE", f"/v2/{ALPINE}/manifests/latest"),
        ):
            answer = self.connect().request(method, target, MINE, b"")
            self.clock.pump([1.0] * 30)
            self.assert_error(answer, 504, "UNKNOWN")


class SealTest(UploadCase):
    """URLs of uploads that are not what the proxy gave."""

    def setUp(self) -> None:
        """Starts an upload."""
        super().setUp()
        self.started = self.pass_on("POST", "/v2/alpine/blobs/uploads/", MINE, b"")
        self.target = self.location(self.started)
        self.upstream.requests.clear()

    def assert_unknown(self, target: str) -> None:
        """Asserts that a target is refused and that nobody is asked."""
        answer = self.pass_on("PATCH", target, MINE, b"x")
        self.assert_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")
        self.assertEqual(self.upstream.requests, [])

    def test_changed(self) -> None:
        """A state that was changed, cut or left out is unknown."""
        path, _, state = self.target.partition("?state=")
        for other in (path, f"{path}?state=", f"{path}?state={state[:-3]}", f"{path}?state=x"):
            self.assert_unknown(other)
        self.assert_unknown(f"{path}?state=A{state[1:]}" if state[0] != "A" else f"{path}?state=B")

    def test_foreign(self) -> None:
        """A state is worth nothing for another repository or registry."""
        state = self.target.partition("?")[2]
        for name in ("busybox", "quay.io/library/alpine"):
            self.assert_unknown(f"/v2/{name}/blobs/uploads/session-1?{state}")

    def test_other_way_in(self) -> None:
        """It holds on every way in to the same repository."""
        state = self.target.partition("?")[2]
        target = f"/v2/docker.io/library/alpine/blobs/uploads/session-1?{state}"
        self.assertEqual(self.pass_on("GET", target, MINE).status, 204)

    def test_old(self) -> None:
        """After a day it is unknown."""
        self.clock.advance(DAY)
        self.assert_unknown(self.target)

    def test_nothing_shown(self) -> None:
        """The registry's own URL, which may be signed, is not to be seen."""
        everything = str(list(self.started.headers.getAllRawHeaders()))
        self.assertNotIn("_state", everything)
        self.assertNotIn("registry-1", everything)


class MountTest(UploadCase):
    """Blobs that the registry has in another repository."""

    def mount(self, target: str, source: str) -> str:
        """The query that upstream gets."""
        digest = self.upstream.add_blob(HUB, "library/base", b"base")
        separator = "&" if "?" in target else "?"
        query = f"{separator}mount={quote(str(digest))}&from={quote(source, safe='')}"
        self.answer = self.pass_on("POST", f"{target}{query}", MINE, b"")
        return self.upstream.requests[-1].query.replace(quote(str(digest)), "D")

    def test_mirror(self) -> None:
        """The source is named as docker.io knows it."""
        query = self.mount("/v2/alpine/blobs/uploads/", "base")
        self.assertEqual(query, "mount=D&from=library%2Fbase")
        self.assertEqual(self.answer.status, 201)
        self.assertEqual(self.location(self.answer), f"/v2/alpine/blobs/{Digest.of(b'base')}")

    def test_prefix(self) -> None:
        """The prefix is taken off the source, too."""
        target = "/v2/quay.io/coreos/etcd/blobs/uploads/"
        self.assertEqual(self.mount(target, "quay.io/base/image"), "mount=D&from=base%2Fimage")

    def test_namespace(self) -> None:
        """With ns, the source is the registry's own name for it."""
        target = "/v2/coreos/etcd/blobs/uploads/?ns=quay.io"
        self.assertEqual(self.mount(target, "base/image"), "mount=D&from=base%2Fimage")

    def test_prefix_and_namespace(self) -> None:
        """With both, either spelling will do."""
        target = "/v2/quay.io/coreos/etcd/blobs/uploads/?ns=quay.io"
        for source in ("base/image", "quay.io/base/image"):
            self.assertEqual(self.mount(target, source), "mount=D&from=base%2Fimage")

    def test_reached(self) -> None:
        """Where the host is the registry, the source is, too."""
        self.reached = Reached(WayIn.INTERCEPTION, "quay.io")
        self.start()
        query = self.mount("/v2/coreos/etcd/blobs/uploads/", "base/image")
        self.assertEqual(query, "mount=D&from=base%2Fimage")

    def test_other_registry(self) -> None:
        """What another registry has is not mounted: the client uploads it."""
        for source in ("docker.io/library/base", "nowhere.example/x", "UPPER", "a b"):
            self.assertEqual(self.mount("/v2/quay.io/coreos/etcd/blobs/uploads/", source), "")
            self.assertEqual(self.answer.status, 202)

    def test_without_source(self) -> None:
        """A mount from wherever the registry finds it is passed on."""
        self.pass_on("POST", "/v2/alpine/blobs/uploads/?mount=sha256%3Aab", MINE, b"")
        self.assertEqual(self.upstream.requests[-1].query, "mount=sha256%3Aab")


class PolicyTest(UploadCase):
    """What is not offered."""

    def test_denied(self) -> None:
        """A registry that takes no pushes here answers 405 and names the key."""
        self.upstream.accept_pushes(CORP)
        for method, target in (
            ("POST", "/v2/corp/team/app/blobs/uploads/"),
            ("GET", "/v2/corp/team/app/blobs/uploads/x"),
            ("PUT", "/v2/corp/team/app/manifests/1"),
            ("DELETE", f"/v2/corp/team/app/blobs/{self.digest}"),
        ):
            answer = self.pass_on(method, target, body=b"x" if method in ("POST", "PUT") else None)
            message = self.assert_error(answer, 405, "UNSUPPORTED")
            self.assertIn('push = "relay"', message)
            self.assertIn('[registries."registry.corp:5000"]', message)
        self.assertEqual(self.upstream.requests, [])

    def test_methods(self) -> None:
        """Methods that mean nothing for what is asked are refused."""
        for method, target in (
            ("POST", "/v2/alpine/manifests/latest"),
            ("PUT", self.blob),
            ("DELETE", "/v2/alpine/tags/list"),
            ("PATCH", "/v2/"),
        ):
            self.assert_error(self.pass_on(method, target, body=b"x"), 405, "UNSUPPORTED")
        self.assertEqual(self.upstream.requests, [])


class ForgettingTest(UploadCase):
    """What is cached of what changes."""

    def setUp(self) -> None:
        """Caches an image."""
        super().setUp()
        self.old, _ = self.proxy.add_manifest(DATA)
        self.assertEqual(self.pull(), self.old)
        self.assertEqual(self.pull(), self.old)

    def pull(self, tag: str = "latest") -> Digest:
        """The digest that a pull of a tag gets."""
        answer = self.proxy.ask(f"/v2/{ALPINE}/manifests/{tag}")
        self.assertEqual(answer.status, 200, answer.body)
        return Digest.parse(answer.header("Docker-Content-Digest") or "")

    def manifest(self, layer: bytes) -> bytes:
        """A manifest of which upstream's docker.io has all blobs."""
        _, data = self.proxy.add_manifest(layer, repository="library/other", tag="x")
        return data

    def test_push(self) -> None:
        """A tag that was pushed is what the next pull gets, though it was fresh."""
        data = self.manifest(b"new")
        answer = self.pass_on("PUT", f"/v2/{ALPINE}/manifests/latest", {**MINE, **MANIFEST}, data)
        self.assertEqual(answer.status, 201)
        self.assertEqual(self.location(answer), f"/v2/{ALPINE}/manifests/{Digest.of(data)}")
        self.assertEqual(self.pull(), Digest.of(data))
        count = len(self.upstream.requests)
        self.assertEqual(self.pull(), Digest.of(data))
        self.assertEqual(len(self.upstream.requests), count)

    def test_lost_answer(self) -> None:
        """A push that may have succeeded has upstream asked, which says what became of it."""
        self.upstream.script(Fault(cut_at=BEFORE_HEADERS), method="PUT")
        target = f"/v2/{ALPINE}/manifests/latest"
        answer = self.pass_on("PUT", target, MANIFEST, self.manifest(b"new"))
        self.assert_error(answer, 502, "UNKNOWN")
        before = self.upstream.count("HEAD", "/manifests/latest")
        for _ in range(2):
            self.assertEqual(self.pull(), self.old)
            self.assertEqual(self.upstream.count("HEAD", "/manifests/latest"), before + 1)
            self.clock.advance(0.001)

    def test_refused_push(self) -> None:
        """A push that upstream refuses changes nothing: nobody strips a tag without a right to."""
        for fault in (Fault(status=401, body=b""), Fault(status=403, body=b"")):
            for method in ("PUT", "DELETE"):
                self.upstream.script(fault, method=method)
                target = f"/v2/{ALPINE}/manifests/latest"
                self.pass_on(method, target, MANIFEST, b"{}" if method == "PUT" else None)
        asked = len(self.upstream.requests)
        self.assertEqual(self.pull(), self.old)
        self.assertEqual(len(self.upstream.requests), asked)

    def test_upstream_down(self) -> None:
        """A push that reaches nobody leaves what is stored to be served stale."""
        self.upstream.script(Fault(connect_failure=ConnectionRefusedError()), times=None)
        target = f"/v2/{ALPINE}/manifests/latest"
        answer = self.pass_on("PUT", target, MANIFEST, self.manifest(b"new"))
        self.assert_error(answer, 502, "UNKNOWN")
        self.assertEqual(self.pull(), self.old)

    def test_pull_meanwhile(self) -> None:
        """A pull from before the end of a push does not bring the old image back."""
        data = self.manifest(b"new")
        answer = self.pass_on("PUT", f"/v2/{ALPINE}/manifests/1", MANIFEST, data)
        self.clock.advance(400.0)
        self.upstream.hold("/manifests/latest")
        waiting = self.proxy.ask(f"/v2/{ALPINE}/manifests/latest")
        answer = self.connect().request("PUT", f"/v2/{ALPINE}/manifests/latest", MANIFEST, data)
        self.proxy.settle()
        self.assertEqual((waiting.status, answer.status), (0, 0))
        # The pull has its answer from before the push, and the push succeeds after it.
        self.clock.advance(1.0)
        joined = self.proxy.client().request("GET", f"/v2/{ALPINE}/manifests/latest")
        self.upstream.release("/manifests/latest")
        self.proxy.settle()
        self.assertEqual((waiting.status, answer.status, joined.status), (200, 201, 200))
        self.assertEqual(self.pull(), Digest.of(data))

    def test_tags_in_the_query(self) -> None:
        """Tags that are given to a manifest pushed by its digest are forgotten, too."""
        data = self.manifest(b"new")
        target = f"/v2/{ALPINE}/manifests/{Digest.of(data)}?tag=latest&tag=.bad"
        self.assertEqual(self.pass_on("PUT", target, MANIFEST, data).status, 201)
        self.assertEqual(self.upstream.requests[-1].query, "tag=latest&tag=.bad")
        before = self.upstream.count("GET", "/manifests/latest")
        self.pull()
        self.assertEqual(self.upstream.count("GET", "/manifests/latest"), before + 1)

    def test_delete_tag(self) -> None:
        """A tag that was deleted is not there any more."""
        answer = self.pass_on("DELETE", f"/v2/{ALPINE}/manifests/latest", MINE)
        self.assertEqual(answer.status, 202)
        answer = self.proxy.ask(f"/v2/{ALPINE}/manifests/latest")
        self.assert_error(answer, 404, "MANIFEST_UNKNOWN")

    def test_delete_manifest(self) -> None:
        """A manifest that was deleted is not there any more, by digest or by tag."""
        target = f"/v2/{ALPINE}/manifests/{self.old}"
        self.assert_whole(self.proxy.ask(target), self.proxy.ask(target).body)
        self.assertEqual(self.pass_on("DELETE", target, MINE).status, 202)
        self.assert_error(self.proxy.ask(target), 404, "MANIFEST_UNKNOWN")
        answer = self.proxy.ask(f"/v2/{ALPINE}/manifests/latest")
        self.assert_error(answer, 404, "MANIFEST_UNKNOWN")

    def test_delete_blob(self) -> None:
        """A blob that was deleted is not there any more, though it is stored."""
        self.fill()
        self.assertEqual(self.pass_on("DELETE", self.blob, MINE).status, 202)
        self.assert_error(self.proxy.ask(self.blob), 404, "BLOB_UNKNOWN")
        self.upstream.add_blob(HUB, ALPINE, DATA)
        self.assert_whole(self.proxy.ask(self.blob))
