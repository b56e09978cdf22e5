"""The pipeline: every way in, and every error as an OCI client reads it."""

from __future__ import annotations

import json

from regproxy.front.client import Client
from regproxy.testing import BEFORE_HEADERS, Fault
from tests.front.proxy import ALPINE, CORP, DATA, HEADERS_TIMEOUT, QUAY, ProxyCase


class WaysInTests(ProxyCase):
    """One blob of each registry through each way in."""

    def test_mirror(self) -> None:
        """Without more, docker.io is meant; its one-component names get library/."""
        self.assert_whole(self.proxy.ask(f"/v2/alpine/blobs/{self.digest}"))
        line = self.proxy.lines[0]
        self.assertEqual(
            (line["way"], line["registry"], line["repository"], line["reference"]),
            ("mirror", "docker.io", ALPINE, str(self.digest)),
        )
        self.assertEqual((line["method"], line["status"]), ("GET", "200"))
        self.assertEqual((line["bytes"], line["client"]), (str(len(DATA)), "127.0.0.1"))

    def test_namespace(self) -> None:
        """``ns`` names a registry, and is nothing that upstream hears of."""
        digest = self.upstream.add_blob(QUAY, "coreos/etcd", b"quay")
        answer = self.proxy.ask(f"/v2/coreos/etcd/blobs/{digest}?ns=quay.io")
        self.assert_whole(answer, b"quay")
        self.assertEqual(self.upstream.requests[0].url, f"{QUAY}/v2/coreos/etcd/blobs/{digest}")
        self.assertEqual(self.proxy.lines[0]["way"], "namespace")

    def test_prefix(self) -> None:
        """The first path component names a registry, whatever ``ns`` says."""
        digest = self.upstream.add_blob(QUAY, "coreos/etcd", b"quay")
        target = f"/v2/quay.io/coreos/etcd/blobs/{digest}"
        self.assert_whole(self.proxy.ask(target), b"quay")
        self.assert_whole(self.proxy.ask(f"{target}?ns=docker.io"), b"quay")
        self.assertEqual({line["registry"] for line in self.proxy.lines}, {"quay.io"})
        self.assertEqual({line["way"] for line in self.proxy.lines}, {"prefix"})

    def test_alias(self) -> None:
        """An alias makes a registry with a port usable as a prefix."""
        digest = self.upstream.add_blob(CORP, "team/app", b"corp")
        self.assert_whole(self.proxy.ask(f"/v2/corp/team/app/blobs/{digest}"), b"corp")
        target = f"/v2/team/app/blobs/{digest}?ns=registry.corp:5000"
        self.assert_whole(self.proxy.ask(target), b"corp")
        self.assertEqual([line["cache"] for line in self.proxy.lines], ["MISS", "HIT"])

    def test_same_digest_through_all(self) -> None:
        """One blob in several registries is transferred and stored once."""
        self.upstream.add_blob(QUAY, "a/b", DATA)
        self.upstream.add_blob(CORP, "c/d", DATA)
        for target in ("alpine", "quay.io/a/b", "corp/c/d"):
            self.assert_whole(self.proxy.ask(f"/v2/{target}/blobs/{self.digest}"))
        self.assertEqual(self.upstream.count("GET"), 1)

    def test_version_check(self) -> None:
        """``/v2/`` says that this is a registry, with and without a prefix, also with a login."""
        for target in ("/v2/", "/v2", "/v2/quay.io/", "/v2/?ns=quay.io"):
            answer = self.proxy.ask(target, {"Authorization": "Bearer x"})
            self.assert_whole(answer, b"{}")
            self.assertEqual(answer.header("Docker-Distribution-Api-Version"), "registry/2.0")
        self.assertEqual(self.proxy.head("/v2/").body, b"")
        self.assertEqual(self.upstream.requests, [])

    def test_health(self) -> None:
        """``/healthz`` answers on client listeners too."""
        self.assert_whole(self.proxy.ask("/healthz"), b"ok\n")


class RefusalTests(ProxyCase):
    """What is refused before anybody is asked."""

    def tearDown(self) -> None:
        """Nothing reached upstream, and each refusal has its line."""
        self.assertEqual(self.upstream.requests, [])
        self.assertEqual(len(self.proxy.lines), self.asked)

    def setUp(self) -> None:
        """Counts."""
        super().setUp()
        self.asked = 0

    def refused(self, target: str, status: int, code: str, method: str = "GET") -> str:
        """Asks, and asserts the refusal; its message."""
        self.asked += 1
        return self.assert_error(self.proxy.ask(target, method=method), status, code)

    def test_unknown_registry(self) -> None:
        """A registry that is not configured is 404, saying which ones are."""
        for target in (
            "/v2/ghcr.io/a/b/manifests/latest",
            "/v2/a/b/manifests/latest?ns=ghcr.io",
            f"/v2/localhost:5000/a/blobs/{self.digest}",
        ):
            message = self.refused(target, 404, "NAME_UNKNOWN")
            self.assertIn("docker.io, quay.io, registry.corp:5000", message)

    def test_malformed(self) -> None:
        """Names, tags and digests outside their grammar are 400."""
        self.refused("/v2/Alpine/manifests/latest", 400, "NAME_INVALID")
        self.refused("/v2/a/../b/manifests/latest", 400, "NAME_INVALID")
        self.refused("/v2/a%2fb/manifests/latest", 400, "NAME_INVALID")
        self.refused("/v2/a/manifests/.hidden", 400, "NAME_INVALID")
        self.refused("/v2/a/blobs/sha256:abc", 400, "DIGEST_INVALID")
        self.refused("/v2/a/blobs/md5:0123", 400, "DIGEST_INVALID")
        self.refused("/v2/a/manifests/x?ns=quay.io&ns=docker.io", 400, "NAME_INVALID")

    def test_elsewhere(self) -> None:
        """What is no path of a registry is 404 for every client, as JSON."""
        for target in ("/", "/v1/_ping", "/v2/a/b/nonsense", "http://quay.io/v1/"):
            self.refused(target, 404, "UNSUPPORTED")

    def test_push(self) -> None:
        """Methods that change something are 405, as are the steps of an upload."""
        upload = f"/v2/{ALPINE}/blobs/uploads/"
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            self.refused(upload, 405, "UNSUPPORTED", method)
            self.refused(f"/v2/{ALPINE}/manifests/latest", 405, "UNSUPPORTED", method)
        self.refused(upload + "some-id", 405, "UNSUPPORTED")
        answer = self.proxy.ask(upload, method="POST")
        self.asked += 1
        self.assertEqual(answer.header("Allow"), "GET, HEAD")

    def test_head_of_refusal(self) -> None:
        """HEAD gets the head of the same refusal, and no body."""
        answer = self.proxy.head("/v2/ghcr.io/a/manifests/latest")
        self.asked += 1
        self.assertEqual((answer.status, answer.body, answer.complete), (404, b"", True))


class UpstreamTroubleTests(ProxyCase):
    """What clients get when a registry refuses, breaks or is slow, and nothing is stored."""

    def setUp(self) -> None:
        """Has something of every kind to ask for."""
        super().setUp()
        self.proxy.add_manifest(b"layer")
        self.targets = [self.blob, f"/v2/{ALPINE}/manifests/latest", f"/v2/{ALPINE}/tags/list"]

    def assert_all(self, fault: Fault, status: int, code: str, *, wait: float = 0) -> list[str]:
        """Asserts that each kind of request gets this error; the messages."""
        self.upstream.script(fault, times=None)
        messages = []
        for target in self.targets:
            answer = self.proxy.client().request("GET", target)
            self.clock.pump([0.5] * int(wait * 2 + 20))
            messages.append(self.assert_error(answer, status, code))
            self.assertIsNone(answer.header("Cache-Status"))
            self.assertEqual(self.proxy.lines[-1]["status"], str(status))
            self.assertEqual(self.proxy.lines[-1]["cache"], "-")
        self.assertEqual(self.upstream.connections, 0)
        self.upstream.heal()
        self.assert_whole(self.proxy.ask(self.blob))
        return messages

    def test_down(self) -> None:
        """A registry that cannot be reached is 502, saying which and why."""
        fault = Fault(connect_failure=ConnectionRefusedError("connection refused"))
        for message in self.assert_all(fault, 502, "UNKNOWN"):
            self.assertIn("registry-1.docker.io", message)
            self.assertIn("refused", message)

    def test_silent(self) -> None:
        """One that says nothing is 504 within the deadline."""
        self.assert_all(Fault(silent=True), 504, "UNKNOWN", wait=HEADERS_TIMEOUT)

    def test_hung_up(self) -> None:
        """One that hangs up on the request is 502."""
        self.assert_all(Fault(cut_at=BEFORE_HEADERS), 502, "UNKNOWN")

    def test_broken(self) -> None:
        """A 5xx is 502: the proxy works, its upstream does not."""
        self.assert_all(Fault(status=503), 502, "UNKNOWN")

    def test_forbidden(self) -> None:
        """403 is passed on."""
        self.assert_all(Fault(status=403), 403, "DENIED")

    def test_too_many(self) -> None:
        """429 is passed on with its Retry-After."""
        self.upstream.script(Fault(status=429, headers={"Retry-After": "17"}), times=3)
        for target in self.targets:
            answer = self.proxy.ask(target)
            self.assert_error(answer, 429, "TOOMANYREQUESTS")
            self.assertEqual(answer.header("Retry-After"), "17")

    def test_unknown(self) -> None:
        """404 is passed on with the registry's own code."""
        body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "no such"}]}).encode()
        self.assert_all(Fault(status=404, body=body), 404, "NAME_UNKNOWN")

    def test_challenge(self) -> None:
        """401 is passed on with a challenge that the client can act on."""
        challenge = 'Basic realm="corp"'
        self.upstream.script(Fault(status=401, headers={"WWW-Authenticate": challenge}), times=3)
        for target in self.targets:
            answer = self.proxy.ask(target)
            self.assert_error(answer, 401, "UNAUTHORIZED")
            self.assertEqual(answer.header("WWW-Authenticate"), challenge)

    def test_anonymous_token(self) -> None:
        """The token that public registries want is fetched, and seen by nobody."""
        self.upstream.require_token("https://registry-1.docker.io")
        answer = self.proxy.ask(self.blob)
        self.assert_whole(answer)
        self.assertEqual(self.proxy.head(self.targets[1]).status, 200)
        self.assertEqual(self.upstream.count("GET", "/token"), 1)
        self.assertNotIn("token-1", self.proxy.log_text + str(answer.headers))

    def test_bug(self) -> None:
        """What nobody foresaw is 500 with nothing of it in the answer, and a traceback logged."""

        def broken(*_: object) -> None:
            raise LookupError("a secret of the code")

        self.patch(self.proxy.fills, "join", broken)
        message = self.assert_error(self.proxy.ask(self.blob), 500, "UNKNOWN")
        self.assertNotIn("secret", message)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_bug_in_a_refusal(self) -> None:
        """A bug on the way of an error is logged as well, and nobody waits for an answer."""

        def broken(*_: object) -> None:
            raise LookupError("a secret of the code")

        self.patch(Client, "refuse", broken)
        self.upstream.script(Fault(status=403))
        answer = self.proxy.ask(self.blob)
        self.assertEqual((answer.body, answer.disconnected), (b"", True))
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        (line,) = self.proxy.lines
        self.assertEqual(line["status"], "0")
        self.assertIn("bug", line["note"])
