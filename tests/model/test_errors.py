"""Tests for :mod:`regproxy.model.errors`."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model import errors
from regproxy.model.errors import NotFound, RegistryError, shown


class RegistryErrorTests(SynchronousTestCase):
    """Errors carry all that an answer needs."""

    def test_body(self) -> None:
        """The body is OCI error JSON; a detail is there when it was given."""
        self.assertEqual(
            json.loads(RegistryError(404, "X_Y", "no", {"a": [1]}).body()),
            {"errors": [{"code": "X_Y", "message": "no", "detail": {"a": [1]}}]},
        )
        self.assertEqual(
            json.loads(RegistryError(404, "X_Y", "no").body()),
            {"errors": [{"code": "X_Y", "message": "no"}]},
        )

    def test_body_of_any_text(self) -> None:
        """Control characters, lone surrogates and strange details break no body."""
        for message in ("a\r\nb\x00", "\ud800", '"\\'):
            body = RegistryError(400, "X", message, detail=object()).body()
            self.assertEqual(json.loads(body)["errors"][0]["message"], message)

    def test_text_for_logs(self) -> None:
        """An error says status, code and message."""
        self.assertEqual(str(errors.denied("not yours")), "403 DENIED: not yours")

    def test_can_be_raised(self) -> None:
        """A traceback can be attached, as raising does."""

        def refuse() -> None:
            raise errors.blob_unknown("gone") from ValueError("why")

        error = self.assertRaises(RegistryError, refuse)
        self.assertIsInstance(error.__cause__, ValueError)
        self.assertIsNotNone(error.__traceback__)

    def test_factories(self) -> None:
        """Each factory has its status, code and headers."""
        for error, status, code, headers in (
            (errors.not_found("m"), 404, "UNSUPPORTED", ()),
            (errors.name_invalid("m"), 400, "NAME_INVALID", ()),
            (errors.digest_invalid("m"), 400, "DIGEST_INVALID", ()),
            (errors.unsupported("m"), 405, "UNSUPPORTED", (("Allow", "GET, HEAD"),)),
            (errors.unsupported("m", 400), 400, "UNSUPPORTED", ()),
            (errors.name_unknown("m"), 404, "NAME_UNKNOWN", ()),
            (errors.manifest_unknown("m"), 404, "MANIFEST_UNKNOWN", ()),
            (errors.blob_unknown("m"), 404, "BLOB_UNKNOWN", ()),
            (errors.denied("m"), 403, "DENIED", ()),
            (
                errors.unauthorized("m", ["Bearer a", "Basic b"]),
                401,
                "UNAUTHORIZED",
                (("WWW-Authenticate", "Bearer a"), ("WWW-Authenticate", "Basic b")),
            ),
            (
                errors.too_many_requests("m", "60"),
                429,
                "TOOMANYREQUESTS",
                (("Retry-After", "60"),),
            ),
            (errors.too_many_requests("m", None), 429, "TOOMANYREQUESTS", ()),
            (errors.upstream_failed("m"), 502, "UNKNOWN", ()),
            (errors.upstream_too_slow("m"), 504, "UNKNOWN", ()),
            (errors.body_too_large("m"), 413, "SIZE_INVALID", ()),
        ):
            self.assertEqual(
                (error.status, error.code, error.message, error.headers),
                (status, code, "m", headers),
            )

    def test_range_not_satisfiable(self) -> None:
        """A 416 says the size in Content-Range when it is known."""
        known = errors.range_not_satisfiable(10)
        self.assertEqual(known.status, 416)
        self.assertEqual(known.headers, (("Content-Range", "bytes */10"),))
        self.assertEqual(errors.range_not_satisfiable(None).headers, ())

    def test_not_found_is_told_apart(self) -> None:
        """A path that means nothing can be told from content that is not there."""
        self.assertIsInstance(errors.not_found("m"), NotFound)
        self.assertNotIsInstance(errors.name_unknown("m"), NotFound)


class ShownTests(SynchronousTestCase):
    """Text from the network is harmless in a message."""

    @given(st.text(max_size=500))
    def test_one_short_printable_line(self, text: str) -> None:
        """Any text becomes visible ASCII of bounded length."""
        result = shown(text)
        self.assertTrue(result.isascii() and result.isprintable())
        self.assertLess(len(result), 1100)
