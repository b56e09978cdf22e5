"""Tests for regproxy.access.tokens, through the registry that asks for them."""

from __future__ import annotations

from urllib.parse import parse_qs

from twisted.internet.defer import Deferred

from regproxy.access.tokens import AnonymousTokens
from regproxy.testing import Fault
from tests.upstream.case import DATA, REGISTRY, REPOSITORY, SECONDS, UpstreamCase

REALM = "https://auth.registry.test/token"
SCOPE = f"repository:{REPOSITORY}:pull"


class DanceTests(UpstreamCase):
    """401, token, again: as public registries want it."""

    def setUp(self) -> None:
        """Tokens are required, and live for 300 s."""
        super().setUp()
        self.realm = self.scripted.require_token(REGISTRY, REALM, "registry.test", 300)

    def pull(self) -> None:
        """Gets the blob."""
        self.assertEqual(self.read(self.get_blob()), DATA)

    @property
    def tokens_asked(self) -> int:
        """Requests to the token endpoint."""
        return self.scripted.count("GET", "/token")

    def test_dance(self) -> None:
        """The first request costs a challenge and a token, for what the challenge names."""
        self.pull()
        refused, token, again = self.scripted.requests
        self.assertEqual(token.url.partition("?")[0], REALM)
        self.assertEqual(token.query, "service=registry.test&scope=repository:team/app:pull")
        for request in (refused, token):
            self.assertIsNone(request.header("Authorization"))
        self.assertEqual(again.header("Authorization"), "Bearer token-1")
        self.assertEqual((refused.method, refused.url), (again.method, again.url))
        self.assert_nothing_left()

    def test_head(self) -> None:
        """HEAD dances with HEAD, and its token is a GET."""
        self.result(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline()))
        methods = [request.method for request in self.scripted.requests]
        self.assertEqual(methods, ["HEAD", "GET", "HEAD"])

    def test_reuse(self) -> None:
        """The token is kept for its scope."""
        self.pull()
        self.pull()
        self.result(self.upstream.head_blob(REPOSITORY, self.digest, self.deadline()))
        self.assertEqual((self.tokens_asked, len(self.scripted.requests)), (1, 5))

    def test_scopes(self) -> None:
        """Another repository has a token of its own."""
        self.pull()
        other = self.scripted.add_blob(REGISTRY, "team/other", DATA)
        answer = self.result(self.upstream.get_blob("team/other", other, 0, self.deadline()))
        self.assertEqual(self.read(answer), DATA)
        self.assertEqual(
            [scopes for scopes, _ in self.realm.issued.values()],
            [frozenset({SCOPE}), frozenset({"repository:team/other:pull"})],
        )
        self.pull()
        self.assertEqual(self.tokens_asked, 2)

    def test_shared(self) -> None:
        """All who need the same token at the same time wait for one request."""
        self.scripted.hold("/token")
        waiting = [
            self.start(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline()))
            for _ in range(20)
        ]
        self.scripted.release("/token")
        self.clock.advance(0)
        for one in waiting:
            self.assertEqual(self.read(self.successResultOf(one)), DATA)
        self.assertEqual(self.tokens_asked, 1)
        self.assert_nothing_left()

    def test_leaving(self) -> None:
        """One who has no more time does not take the token from the others."""
        self.scripted.script(Fault(latency=10), "/token")
        hasty, patient = (
            self.start(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline(seconds)))
            for seconds in (5, 20)
        )
        self.clock.advance(5)
        self.assertEqual(self.error(hasty).status, 504)
        self.clock.advance(5)
        self.assertEqual(self.read(self.successResultOf(patient)), DATA)
        self.assertEqual(self.tokens_asked, 1)

    def test_expiry(self) -> None:
        """A token is renewed in the last fifth of its life, before the registry refuses it."""
        self.pull()
        self.clock.advance(239)
        self.pull()
        self.assertEqual(self.tokens_asked, 1)
        self.clock.advance(1)
        self.pull()
        self.assertEqual(self.tokens_asked, 2)

    def test_refused_token(self) -> None:
        """A token that the registry no longer takes is dropped, and fetched once."""
        self.pull()
        self.realm.issued.clear()
        self.scripted.requests.clear()
        self.pull()
        self.assertEqual(
            [request.header("Authorization") for request in self.scripted.requests],
            ["Bearer token-1", None, "Bearer token-1"],
        )
        self.assertEqual(self.tokens_asked, 1)

    def test_refused_by_many(self) -> None:
        """Many who find the same token refused fetch one new one."""
        self.pull()
        self.realm.issued["spent"] = self.realm.issued.pop("token-1")
        self.scripted.hold(self.blob)
        waiting = [
            self.start(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline()))
            for _ in range(5)
        ]
        self.scripted.release(self.blob)
        self.clock.advance(0)
        for one in waiting:
            self.assertEqual(self.read(self.successResultOf(one)), DATA)
        self.assertEqual(self.tokens_asked, 2)

    def test_no_loop(self) -> None:
        """A registry that takes no token is not asked for ever: its 401 is the answer."""
        self.scripted.add_page(REALM, b'{"token": "useless"}')
        for _ in range(2):
            self.scripted.requests.clear()
            refusal = self.blob_refused()
            self.assertEqual(refusal.status, 401)
            self.assertIn(REALM, dict(refusal.headers)["WWW-Authenticate"])
            self.assertEqual(len(self.scripted.requests), 3)
        self.assert_nothing_left()

    def test_token_of_another(self) -> None:
        """A token that came while a request was under way without one is used, not fetched."""
        self.scripted.hold(self.blob)
        slow = self.start(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline()))
        other = self.scripted.add_blob(REGISTRY, REPOSITORY, b"other")
        self.result(self.upstream.head_blob(REPOSITORY, other, self.deadline()))
        self.scripted.release(self.blob)
        self.clock.advance(0)
        self.assertEqual(self.read(self.successResultOf(slow)), DATA)
        self.assertEqual(self.tokens_asked, 1)


class ChallengeTests(UpstreamCase):
    """Which challenges are answered, and how."""

    def challenge(self, *values: str) -> Deferred[str | None]:
        """What is sent in answer to a 401 with these challenges."""
        tokens = AnonymousTokens(self.exchange, self.clock, REGISTRY, SECONDS)
        return self.start(tokens.answer(values, SCOPE, None, self.deadline()))

    def answer(self, *values: str) -> str | None:
        """The same, which is there at once."""
        self.scripted.add_page(REALM, b'{"token": "t"}')
        return self.successResultOf(self.challenge(*values))

    def test_not_for_us(self) -> None:
        """Where no token helps nothing is sent and nothing asked."""
        for values in (
            (),
            ("",),
            ('Basic realm="registry"',),
            ("Negotiate", "NTLM"),
            ("Bearer",),
            ('Bearer realm="", service="x"',),
            ('Bearer service="x"',),
        ):
            self.assertIsNone(self.answer(*values), values)
        self.assertEqual(self.scripted.requests, [])

    def test_basic_registry(self) -> None:
        """A registry that wants a login tells the client itself."""
        challenge = 'Basic realm="Registry, please log in"'
        self.scripted.script(Fault(status=401, headers={"WWW-Authenticate": challenge}))
        refusal = self.blob_refused()
        self.assertEqual(refusal.status, 401)
        self.assertEqual(refusal.headers, (("WWW-Authenticate", challenge),))
        self.assertEqual(len(self.scripted.requests), 1)
        self.assert_nothing_left()

    def test_among_others(self) -> None:
        """The Bearer challenge is found in any place, and passed over without a realm."""
        for values in (
            ('Basic realm="a, b", bearer REALM="https://auth.registry.test/token"',),
            ("Negotiate", f'Bearer realm="{REALM}"'),
            ('Bearer error="x"', f'Bearer realm="{REALM}"'),
        ):
            self.assertEqual(self.answer(*values), "Bearer t", values)

    def test_query(self) -> None:
        """Service and scope go behind whatever query the realm has, and are escaped."""
        for realm, service, url in [
            (REALM, "s", f"{REALM}?service=s&scope={SCOPE}"),
            (f"{REALM}?a=b%2F", "s", f"{REALM}?a=b%2F&service=s&scope={SCOPE}"),
            (f"{REALM}?", "s", f"{REALM}?&service=s&scope={SCOPE}"),
            (f"{REALM}#f", "s", f"{REALM}?service=s&scope={SCOPE}"),
            (REALM, "a&b=c d#+\xe9", f"{REALM}?service=a%26b%3Dc%20d%23%2B%C3%A9&scope={SCOPE}"),
            (REALM, "", f"{REALM}?scope={SCOPE}"),
        ]:
            self.assertEqual(self.answer(f'Bearer realm="{realm}",service="{service}"'), "Bearer t")
            self.assertEqual(self.last.url, url)
            self.assertEqual(parse_qs(self.last.query)["scope"], [SCOPE])

    def test_scope(self) -> None:
        """What is asked for is what is needed, whatever more the challenge suggests."""
        self.answer(f'Bearer realm="{REALM}",scope="repository:other/secret:pull,push"')
        self.assertEqual(parse_qs(self.last.query)["scope"], [SCOPE])

    def test_realms(self) -> None:
        """A realm that is no https URL is refused by a registry on https."""
        for realm, why in [
            ("http://auth.registry.test/token", "plain http"),
            ("HTTP://auth.registry.test/token", "plain http"),
            ("ftp://auth.registry.test/token", "not http"),
            ("file:///etc/passwd", "not http"),
            ("https:///token", "not http"),
            ("https://user:secret@auth.registry.test/token", "user name"),
            ("https://auth.registry.test/a b", "no URL"),
            ("https://auth.registry.test/\x7f", "no URL"),
            ("https://auth.registry.test/\ufffd", "no URL"),
            ("https://auth.registry.test:99999/", "no URL"),
            ("https://auth.registry.test:x/", "no URL"),
            ("https://[::1/", "no URL"),
        ]:
            error = self.error(self.challenge(f'Bearer realm="{realm}"'))
            self.assertEqual(error.status, 502)
            self.assertTrue(error.message.startswith("registry.test names as its token realm"))
            self.assertIn(why, error.message)
        self.assertEqual(self.scripted.requests, [])

    def test_plain_registry(self) -> None:
        """A registry on plain http may have its realm there."""
        self.scripted.add_page("http://auth.test/token", b'{"token": "t"}')
        tokens = AnonymousTokens(self.exchange, self.clock, "http://registry.test:5000", SECONDS)
        challenge = 'Bearer realm="http://auth.test/token"'
        got = self.result(tokens.answer([challenge], SCOPE, None, self.deadline()))
        self.assertEqual(got, "Bearer t")
