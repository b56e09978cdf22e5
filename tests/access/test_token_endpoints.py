"""Tests for regproxy.access.tokens: what token endpoints may answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from twisted.internet.defer import Deferred

from regproxy.access.tokens import AnonymousTokens
from regproxy.model.errors import RegistryError
from regproxy.testing import BEFORE_HEADERS, Fault
from tests.upstream.case import REGISTRY, REPOSITORY, SECONDS, UpstreamCase

REALM = "https://auth.registry.test/token"
CHALLENGE = f'Bearer realm="{REALM}"'
SCOPE = f"repository:{REPOSITORY}:pull"


class EndpointTests(UpstreamCase):
    """What the token endpoint may answer."""

    def setUp(self) -> None:
        """Tokens of one registry."""
        super().setUp()
        self.tokens = AnonymousTokens(self.exchange, self.clock, REGISTRY, SECONDS)

    def fetch(self) -> Deferred[str | None]:
        """What is sent after asking for a token."""
        return self.start(self.tokens.answer([CHALLENGE], SCOPE, None, self.deadline()))

    def endpoint(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Deferred[str | None]:
        """The same from an endpoint that answers so."""
        self.scripted.add_page(REALM, body, status=status, headers=headers)
        return self.fetch()

    def failed(self, waiting: Deferred[str | None]) -> RegistryError:
        """Why no token came; no connection is left."""
        error = self.error(waiting)
        self.assert_nothing_left()
        return error

    def test_refused(self) -> None:
        """An endpoint that has nothing for anonymous clients leaves the registry's 401 to tell."""
        for status in (400, 401, 403, 404):
            self.assertIsNone(self.successResultOf(self.endpoint(b'{"details": "no"}', status)))
            self.assert_nothing_left()

    def test_refused_to_client(self) -> None:
        """The client gets the registry's own 401."""
        self.scripted.require_token(REGISTRY, REALM)
        self.scripted.add_page(REALM, b"{}", status=401)
        refusal = self.blob_refused()
        self.assertEqual((refusal.status, refusal.code), (401, "UNAUTHORIZED"))
        self.assertIn(f'Bearer realm="{REALM}"', refusal.headers[0][1])
        self.assertEqual(refusal.message, "registry.test: authentication required")
        self.assert_nothing_left()

    def test_limited(self) -> None:
        """A limited rate is told as that, with the time to come back."""
        error = self.failed(self.endpoint(b"slow down", 429, {"Retry-After": "7"}))
        self.assertEqual((error.status, error.headers), (429, (("Retry-After", "7"),)))
        self.assertIn("auth.registry.test: too many token requests", error.message)

    def test_broken(self) -> None:
        """An endpoint that is broken is 502, not a 401."""
        for status in (500, 502, 503, 204, 302, 418):
            error = self.failed(self.endpoint(b"<html>", status))
            self.assertEqual(error.status, 502)
            self.assertIn(f"auth.registry.test: token endpoint answered {status}", error.message)

    def test_garbage(self) -> None:
        """So is one that answers what is no token."""
        for body in (
            b"",
            b"<html>",
            b"\xff\xfe",
            b"[" * 60_000,
            b"null",
            b"[]",
            b'"token"',
            b"{}",
            b'{"token": ""}',
            b'{"token": null}',
            b'{"token": 7}',
            b'{"token": ["t"]}',
            b'{"token": "a\\r\\nX: y"}',
            b'{"token": "a\\u0000"}',
            '{"token": "é"}'.encode(),
        ):
            error = self.failed(self.endpoint(body))
            self.assertEqual(error.status, 502, body[:50])
            self.assertIn("auth.registry.test: token answer", error.message)

    def test_huge(self) -> None:
        """An answer that is far too large is 502, and not read."""
        error = self.failed(self.endpoint(b'{"token": "' + b"t" * 10_000_000))
        self.assertEqual(error.status, 502)
        self.assertTrue(self.last.aborted)

    def test_slow(self) -> None:
        """An endpoint that does not answer, or never to the end, is 504."""
        for place in (BEFORE_HEADERS, 5):
            self.scripted.hold("/token", place)
            waiting = self.endpoint(b'{"token": "t"}')
            self.clock.advance(24.9)
            self.assertNoResult(waiting)
            self.clock.advance(0.1)
            self.assertEqual(self.failed(waiting).status, 504)

    def test_unreachable(self) -> None:
        """An endpoint that cannot be reached is 502, and the next request tries again."""
        self.scripted.script(Fault(connect_failure=OSError("unreachable")))
        self.assertEqual(self.failed(self.endpoint(b'{"token": "t"}')).status, 502)
        self.assertEqual(self.successResultOf(self.fetch()), "Bearer t")

    def test_names(self) -> None:
        """The token is in ``token``, or as OAuth2 has it."""
        for body in (
            b'{"token": "t"}',
            b'{"access_token": "t"}',
            b'{"token": "t", "access_token": "u"}',
            b'{"token": "", "access_token": "t"}',
        ):
            self.assertEqual(self.successResultOf(self.endpoint(body)), "Bearer t")

    def life(self, fields: Mapping[str, object]) -> float:
        """For how many seconds a token is used whose answer says *fields*."""
        self.tokens = AnonymousTokens(self.exchange, self.clock, REGISTRY, SECONDS)
        body = json.dumps({"token": "t", **fields}).encode()
        self.assertEqual(self.successResultOf(self.endpoint(body)), "Bearer t")
        since = self.clock.seconds()
        while self.tokens.authorization(SCOPE) is not None:
            self.clock.advance(1)
            if self.clock.seconds() - since >= 2000:
                break
        return self.clock.seconds() - since

    def test_lives(self) -> None:
        """A token is used for four fifths of its life; 60 s when nothing sensible is said."""
        self.assertEqual(self.life({"expires_in": 300}), 240)
        self.assertEqual(self.life({"expires_in": 100.0}), 80)
        lives: list[object] = [0, -5, "300", None, True, [], 1e400, float("nan"), 10**30]
        for nonsense in lives:
            self.assertEqual(self.life({"expires_in": nonsense}), 48, nonsense)
        self.assertEqual(self.life({}), 48)

    def issued(self, ago: float) -> str:
        """The moment so many seconds ago."""
        return datetime.fromtimestamp(self.clock.seconds() - ago, UTC).isoformat()

    def test_issued_at(self) -> None:
        """A token that is old already has less of its life before it."""
        self.assertEqual(self.life({"expires_in": 300, "issued_at": self.issued(100)}), 160)
        nanoseconds = self.issued(50).replace("+00:00", ".000000001Z")
        self.assertEqual(self.life({"expires_in": 300, "issued_at": nanoseconds}), 200)
        naive = self.issued(50).removesuffix("+00:00")
        self.assertEqual(self.life({"expires_in": 300, "issued_at": naive}), 200)

    def test_skewed(self) -> None:
        """A clock that is off, there or here, kills no token on arrival and makes none immortal."""
        for ago in (-100_000, -1, 150, 300, 100_000):
            fields = {"expires_in": 300, "issued_at": self.issued(ago)}
            self.assertEqual(self.life(fields), 240, ago)
        for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "now", "", 7):
            self.assertEqual(self.life({"expires_in": 300, "issued_at": text}), 240, text)

    def test_bounded(self) -> None:
        """Scopes that anybody can think up do not fill the memory."""
        tokens = AnonymousTokens(self.exchange, self.clock, REGISTRY, SECONDS, kept=3)
        self.scripted.add_page(REALM, b'{"token": "t", "expires_in": 100000}')
        for number in range(5):
            scope = f"repository:r{number}:pull"
            self.result(tokens.answer([CHALLENGE], scope, None, self.deadline()))
        known = [tokens.authorization(f"repository:r{number}:pull") for number in range(5)]
        self.assertEqual(known, [None, None, "Bearer t", "Bearer t", "Bearer t"])
