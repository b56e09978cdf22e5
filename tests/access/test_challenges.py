"""Tests for regproxy.access.challenges."""

from __future__ import annotations

import string
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.access.challenges import Challenge, parse_challenges

TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUES = st.text([chr(c) for c in range(0x20, 0x7F)] + ["\t", "\ufffd"], max_size=20)
TOKEN68 = st.builds(
    "".join,
    st.tuples(
        st.text(string.ascii_letters + string.digits + "-._~+/", min_size=1, max_size=20),
        st.sampled_from(["", "=", "=="]),
    ),
)
BLANKS = st.sampled_from(["", " ", "\t", "  "])
COMMAS = st.sampled_from([",", ", ", " ,", ", , ,", "\t,\t"])


@st.composite
def quoted(draw: st.DrawFn, value: str) -> str:
    """A quoted string for *value*, with more escapes than are needed."""
    escaped = ["\\" + c if c in '"\\' or draw(st.integers(0, 9)) == 0 else c for c in value]
    return '"' + "".join(escaped) + '"'


@st.composite
def challenges(draw: st.DrawFn) -> tuple[str, Challenge]:
    """A challenge as it is written, and what it says."""
    scheme = draw(TOKENS)
    expected = Challenge(scheme.lower())
    if draw(st.booleans()):
        bare = draw(st.one_of(st.just(""), TOKEN68))
        return (f"{scheme} {bare}" if bare else scheme), expected
    parameters: dict[str, str] = {}
    written = []
    for name in draw(st.lists(TOKENS, min_size=1, max_size=4, unique_by=str.lower)):
        value = draw(st.one_of(TOKENS, VALUES))
        parameters[name.lower()] = value
        is_token = bool(value) and not set(value) & set(' \t"(),/:;<=>?@[\\]{}\ufffd')
        plain = is_token and draw(st.booleans())
        right = value if plain else draw(quoted(value))
        written.append(f"{name}{draw(BLANKS)}={draw(BLANKS)}{right}")
    return f"{scheme} {draw(COMMAS).join(written)}", Challenge(scheme.lower(), parameters)


@st.composite
def headers(draw: st.DrawFn) -> tuple[str, list[Challenge]]:
    """A header with several challenges, and what they say."""
    several = draw(st.lists(challenges(), max_size=4))
    separator = draw(COMMAS)
    text = separator.join(written for written, _ in several)
    lead = draw(st.sampled_from(["", ",", " , "]))
    return lead + text + draw(BLANKS), [challenge for _, challenge in several]


class RoundTripTests(SynchronousTestCase):
    """Whatever RFC 9110 lets a server write is read as it is meant."""

    @given(headers())
    def test_one_header(self, header: tuple[str, list[Challenge]]) -> None:
        """All challenges of a header are read, in order."""
        text, expected = header
        self.assertEqual(parse_challenges([text]), expected)

    @given(st.lists(headers(), max_size=3))
    def test_several_headers(self, several: list[tuple[str, list[Challenge]]]) -> None:
        """Headers are read one after the other."""
        found = parse_challenges([text for text, _ in several])
        self.assertEqual(found, [one for _, expected in several for one in expected])

    @given(
        headers(), st.sampled_from([', ="x"', ", realm=", ' realm="open', ", (", '"', ", x=y:z"])
    )
    def test_malformed_end(self, header: tuple[str, list[Challenge]], end: str) -> None:
        """What stands before a malformed place is read all the same, but for the last one."""
        text, expected = header
        found = parse_challenges([text + end])
        self.assertEqual(found[: max(0, len(expected) - 1)], expected[:-1])


class ArbitraryTests(SynchronousTestCase):
    """Anything may come from the network."""

    @given(st.lists(st.text(max_size=200), max_size=3))
    def test_any_text(self, values: list[str]) -> None:
        """No header is too broken to be read past."""
        for challenge in parse_challenges(values):
            self.assertEqual(challenge.scheme, challenge.scheme.lower())
            self.assertTrue(challenge.scheme)

    @given(st.text('Bearer realm="\\, =/x', max_size=60))
    def test_nearly_right(self, text: str) -> None:
        """Nor is one that is nearly right."""
        for challenge in parse_challenges([text]):
            self.assertTrue(all(challenge.parameters))

    def test_long(self) -> None:
        """A header of any length and shape is read in no time."""
        for piece in ('a="', "a ", "a=b,", "a,", "\\", '"', "=", " ", 'a="\\"', "a b= ", "a=\t"):
            for head in ("", "Bearer ", 'Bearer realm="'):
                parse_challenges([head + piece * (100_000 // len(piece))])

    def test_cut_off(self) -> None:
        """What stands behind eight kilobytes is not read."""
        text = 'Basic realm="x", ' + " " * 9000 + 'Bearer realm="y"'
        self.assertEqual(parse_challenges([text]), [Challenge("basic", {"realm": "x"})])


class ExampleTests(SynchronousTestCase):
    """Headers as they are seen."""

    def assert_parsed(self, text: str, *expected: tuple[str, Mapping[str, str]]) -> None:
        """*text* holds exactly these challenges."""
        found = [
            (challenge.scheme, dict(challenge.parameters)) for challenge in parse_challenges([text])
        ]
        self.assertEqual(found, [(scheme, dict(parameters)) for scheme, parameters in expected])

    def test_registry(self) -> None:
        """A registry's, with a comma inside the scope."""
        self.assert_parsed(
            'Bearer realm="https://auth.test/token?a=b,c",service="r.test",'
            'scope="repository:a/b:pull,push",error="invalid_token"',
            (
                "bearer",
                {
                    "realm": "https://auth.test/token?a=b,c",
                    "service": "r.test",
                    "scope": "repository:a/b:pull,push",
                    "error": "invalid_token",
                },
            ),
        )

    def test_rfc(self) -> None:
        """The example of RFC 9110, section 11.6.1."""
        self.assert_parsed(
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            ("basic", {"realm": "simple"}),
            ("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
        )

    def test_bare_values(self) -> None:
        """Schemes with nothing, or one bare value, before and behind others."""
        self.assert_parsed(
            'Negotiate, NTLM TlRMTVNTUAAC==, Bearer realm="x", Kerberos a/b+c, Basic realm=y',
            ("negotiate", {}),
            ("ntlm", {}),
            ("bearer", {"realm": "x"}),
            ("kerberos", {}),
            ("basic", {"realm": "y"}),
        )

    def test_case(self) -> None:
        """Schemes and names are the same in any case; values are not."""
        self.assert_parsed('BEARER Realm="X",SERVICE=y', ("bearer", {"realm": "X", "service": "y"}))

    def test_missing_comma(self) -> None:
        """Parameters that only a blank separates are read, too."""
        self.assert_parsed(
            'Bearer realm="x" service="y"', ("bearer", {"realm": "x", "service": "y"})
        )

    def test_twice(self) -> None:
        """Of a parameter that comes twice the first counts."""
        self.assert_parsed('Bearer realm="x",realm="y"', ("bearer", {"realm": "x"}))

    def test_malformed(self) -> None:
        """Only what comes before a malformed place is read."""
        self.assert_parsed('Bearer realm="x", service="open', ("bearer", {"realm": "x"}))
        self.assert_parsed("Bearer realm=https://x/", ("bearer", {}))
        self.assert_parsed('realm="x"')
        self.assert_parsed('="x"')
        self.assert_parsed("")
        self.assert_parsed(" , ,")
