"""Tests for regproxy.upstream.refusals, through what clients are told."""

from __future__ import annotations

import json
from collections.abc import Mapping

from regproxy.model.errors import RegistryError, blob_unknown
from regproxy.testing import Fault
from regproxy.upstream.refusals import refusal
from tests.upstream.case import REGISTRY, REPOSITORY, STORAGE, UpstreamCase


def oci_error(code: object, message: object) -> bytes:
    """An error as registries word it."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


class RefusalTests(UpstreamCase):
    """A registry that does not give what it was asked for."""

    def refusal(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> RegistryError:
        """What comes of such an answer to the request for a blob."""
        self.scripted.script(Fault(status=status, body=body, headers=headers or {}))
        refusal = self.blob_refused()
        self.assert_nothing_left()
        return refusal

    def test_statuses(self) -> None:
        """Refusals keep their status; what says nothing of the content is 502."""
        for status, told in [
            (400, 400),
            (401, 401),
            (402, 402),
            (403, 403),
            (404, 404),
            (405, 405),
            (410, 404),
            (416, 416),
            (429, 429),
            (451, 451),
            (500, 502),
            (501, 502),
            (503, 502),
            (504, 502),
            (599, 502),
            (201, 502),
            (204, 502),
            (206, 502),
        ]:
            refusal = self.refusal(status)
            self.assertEqual(refusal.status, told, status)
            self.assertEqual(refusal.message, f"registry.test answered {status}")

    def test_codes(self) -> None:
        """Each refusal has the code that clients know it by."""
        for status, code in [
            (401, "UNAUTHORIZED"),
            (403, "DENIED"),
            (404, "BLOB_UNKNOWN"),
            (429, "TOOMANYREQUESTS"),
            (418, "UNKNOWN"),
            (500, "UNKNOWN"),
        ]:
            self.assertEqual(self.refusal(status).code, code)

    def test_own_code(self) -> None:
        """A 404 and other refusals keep the registry's own code and message."""
        body = oci_error("NAME_UNKNOWN", "repository name not known to registry")
        for status in (404, 410, 400):
            refusal = self.refusal(status, body)
            self.assertEqual(refusal.code, "NAME_UNKNOWN")
            self.assertEqual(
                refusal.message, "registry.test: repository name not known to registry"
            )

    def test_own_code_of_others(self) -> None:
        """Where a status has but one code, a registry's other one is not believed."""
        for status, code in [
            (401, "UNAUTHORIZED"),
            (403, "DENIED"),
            (429, "TOOMANYREQUESTS"),
            (500, "UNKNOWN"),
        ]:
            refusal = self.refusal(status, oci_error("NAME_UNKNOWN", "no"))
            self.assertEqual((refusal.code, refusal.message), (code, "registry.test: no"))

    def test_manifest(self) -> None:
        """A manifest that is not there has its own code, and an answer to HEAD no body to read."""
        self.scripted.script(Fault(status=404, body=b""), times=None)
        for asking in (
            self.upstream.head_manifest(REPOSITORY, "v1", "*/*", self.deadline()),
            self.upstream.get_manifest(REPOSITORY, "v1", "*/*", 1000, self.deadline()),
        ):
            refusal = self.refused(asking)
            self.assertEqual((refusal.status, refusal.code), (404, "MANIFEST_UNKNOWN"))
        self.assert_nothing_left()

    def test_challenges(self) -> None:
        """A 401 brings the registry's challenges, also those that mean nothing to the proxy."""
        challenge = 'Basic realm="x, y", Negotiate abc=='
        refusal = self.refusal(401, headers={"WWW-Authenticate": challenge})
        self.assertEqual(refusal.headers, (("WWW-Authenticate", challenge),))
        self.assertEqual(self.refusal(401).headers, ())

    def test_retry_after(self) -> None:
        """A 429 says when to come back, if the registry does."""
        for value in ("30", "Wed, 21 Oct 2026 07:28:00 GMT"):
            refusal = self.refusal(429, headers={"Retry-After": value})
            self.assertEqual(refusal.headers, (("Retry-After", value),))
        self.assertEqual(self.refusal(429).headers, ())

    def test_bodies_without_error(self) -> None:
        """A body that is no OCI error is left out, whatever it is."""
        for body in (
            b"<html><h1>404 Not Found</h1></html>",
            b"\xff\xfe",
            b"{",
            b"null",
            b"[]",
            b'{"errors": []}',
            b'{"errors": null}',
            b'{"errors": {"code": "X"}}',
            b'{"errors": ["denied"]}',
            b'{"errors": [null]}',
            b'{"errors": [{"code": 7, "message": ["x"]}]}',
            b"[" * 50_000,
            b"9" * 50_000,
            oci_error("MANIFEST_UNKNOWN", "x" * 70_000),
        ):
            refusal = self.refusal(404, body)
            self.assertEqual(
                (refusal.code, refusal.message), ("BLOB_UNKNOWN", "registry.test answered 404")
            )

    def test_bad_codes(self) -> None:
        """A code that is none is left out, and its message kept."""
        codes: list[object] = ["", "not found", "name_unknown", "X\n", "X" * 65, "É", 7, None, []]
        for code in codes:
            refusal = self.refusal(404, oci_error(code, "gone"))
            self.assertEqual(
                (refusal.code, refusal.message), ("BLOB_UNKNOWN", "registry.test: gone")
            )

    def test_messages(self) -> None:
        """A message is one short line, without control characters or text that runs backwards."""
        for message, told in [
            ("no\r\nX-Header: 1\n\nbody", "no X-Header: 1 body"),
            ("\x1b[31mred\x07\x00\x7f", "[31mred"),
            ("a\u2028b\u202ec\u200bd\ud800e", "a b c d e"),
            ("  much \t room  ", "much room"),
            ("größe", "größe"),
            ("x" * 10_000, "x" * 300),
        ]:
            refusal = self.refusal(404, oci_error("NAME_UNKNOWN", message))
            self.assertEqual(refusal.message, f"registry.test: {told}")
            self.assertEqual(json.loads(refusal.body())["errors"][0]["message"], refusal.message)
        self.assertEqual(
            self.refusal(404, oci_error("NAME_UNKNOWN", "\n")).message,
            "registry.test answered 404",
        )

    def test_slow_body(self) -> None:
        """An error that does not come is told without its text after five seconds."""
        self.scripted.hold(self.blob, 10)
        self.scripted.script(Fault(status=404))
        waiting = self.start(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline()))
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.error(waiting).message, "registry.test answered 404")
        self.assert_nothing_left()

    def test_cut_body(self) -> None:
        """So is one that breaks off."""
        self.scripted.script(Fault(status=403, cut_at=10))
        self.assertEqual(self.blob_refused().message, "registry.test answered 403")
        self.assert_nothing_left()


class StorageTests(UpstreamCase):
    """Another origin, to which the registry redirects, refuses."""

    def setUp(self) -> None:
        """Redirects blobs."""
        super().setUp()
        self.scripted.redirect_blobs(REGISTRY, STORAGE, lifetime=60)

    def refusal(self, status: int, body: bytes = b"<Error/>") -> RegistryError:
        """What comes of storage's answer to the request for a blob."""
        self.scripted.script(
            Fault(status=status, body=body, headers={"Retry-After": "9"}), f"/data/{self.digest}"
        )
        refusal = self.blob_refused()
        self.assert_nothing_left()
        return refusal

    def test_links(self) -> None:
        """A link that storage does not honour is the registry's fault, not the client's."""
        for status in (400, 401, 403, 404, 405, 410, 500, 503):
            refusal = self.refusal(status)
            self.assertEqual((refusal.status, refusal.headers), (502, ()))
            self.assertEqual(
                refusal.message, f"registry.test: storage at storage.test answered {status}"
            )

    def test_challenge(self) -> None:
        """No client is ever asked for a credential by storage, nor the proxy for a token."""
        challenge = 'Bearer realm="https://evil.test/token"'
        self.scripted.script(
            Fault(status=401, headers={"WWW-Authenticate": challenge}), f"/data/{self.digest}"
        )
        refusal = self.blob_refused()
        self.assertEqual((refusal.status, refusal.headers), (502, ()))
        self.assertNotIn("evil.test", str(self.urls))

    def test_relayed(self) -> None:
        """What is passed on for a client with a credential of its own is judged the same way."""
        for status, told in [(401, 502), (403, 502), (416, 416), (429, 429)]:
            self.scripted.script(Fault(status=status), f"/data/{self.digest}")
            answer = self.result(
                self.upstream.relay(
                    "GET", self.blob, {}, REPOSITORY, "Bearer client", self.deadline()
                )
            )
            self.assertTrue(answer.elsewhere)
            error = self.result(refusal(answer, "registry.test", blob_unknown, self.deadline()))
            self.assertEqual(error.status, told)

    def test_busy(self) -> None:
        """Storage that is asked too often says so to the client, who can wait."""
        refusal = self.refusal(429)
        self.assertEqual((refusal.status, refusal.headers), (429, (("Retry-After", "9"),)))

    def test_other_registry(self) -> None:
        """A registry to which another one redirects is believed that there is no such thing."""
        for status in (404, 410):
            refusal = self.refusal(status, oci_error("MANIFEST_UNKNOWN", "no such tag"))
            self.assertEqual((refusal.status, refusal.code), (404, "MANIFEST_UNKNOWN"))
        for status in (401, 403, 500):
            self.assertEqual(self.refusal(status, oci_error("DENIED", "no")).status, 502)
