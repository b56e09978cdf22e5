"""Tests for :mod:`regproxy.endpoint_strings`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from regproxy.endpoint_strings import BadEndpoint, check_endpoint, with_backlog


def refusal(text: str) -> tuple[str, str]:
    """What was expected in place of a string, and what was probably meant."""
    try:
        check_endpoint(text)
    except BadEndpoint as bad:
        return bad.expected, bad.meant
    raise AssertionError(f"{text!r} was not refused")


class EndpointTests(SynchronousTestCase):
    """Endpoint strings are checked as far as that is possible without making the endpoint."""

    def test_accepts(self) -> None:
        """What Twisted takes is taken, and Twisted takes what is taken."""
        for text in (
            "tcp:5000",
            "tcp:0",
            "tcp:65535",
            "tcp:port=5000",
            "tcp:5000:127.0.0.1:100",
            "tcp:5000:interface=127.0.0.1",
            "tcp:5000:interface=",
            r"tcp:5000:interface=\:\::backlog=100",
            r"tcp6:5000:interface=fd00\:\:5",
            "tcp6:5000:100",
            "unix:/run/regproxy.sock",
            r"unix:/run/a\:b\=c:mode=660:lockfile=0",
            "unix:address=/run/a:mode=0600",
            "haproxy:tcp:5000",
            "haproxy:unix:/run/x",
        ):
            check_endpoint(text)
            serverFromString(MemoryReactor(), text)

    def test_systemd(self) -> None:
        """A socket of systemd's is named or numbered, whether it is there or not."""
        check_endpoint("systemd:domain=INET:name=regproxy")
        check_endpoint("systemd:INET6:index=0")
        for text in (
            "systemd:domain=INET",
            "systemd:domain=INET:index=0:name=a",
            "systemd:name=a",
            "systemd:domain=inet:name=a",
            "systemd:domain=INET:name=",
        ):
            refusal(text)

    def test_types_of_others(self) -> None:
        """A type that a plugin may add passes; the start decides."""
        check_endpoint("onion:80:hiddenServiceDir=/var/lib/tor")

    def test_refuses(self) -> None:
        """The refusal says what would do."""
        for text, expected in (
            ("", 'an endpoint such as "tcp:5000"'),
            ("tcp", 'an endpoint such as "tcp:5000"'),
            (":5000", 'an endpoint such as "tcp:5000"'),
            ("127.0.0.1:5000", 'an endpoint such as "tcp:5000"'),
            ("tcp:", "tcp with a port from 0 to 65535"),
            ("tcp:interface=127.0.0.1", "tcp with a port from 0 to 65535"),
            ("tcp:65536", "tcp with a port from 0 to 65535"),
            ("tcp:-1", "tcp with a port from 0 to 65535"),
            ("tcp: 5000", "tcp with a port from 0 to 65535"),
            ("tcp:5_000", "tcp with a port from 0 to 65535"),
            ("tcp:" + "9" * 5000, "tcp with a port from 0 to 65535"),
            ("tcp:\u0665", "tcp with a port from 0 to 65535"),
            ("tcp:80:backlog=x", "tcp with a backlog that is a number"),
            ("tcp:80:a:1:x", r"at most 3 parameters for tcp; colons in one as \:"),
            (
                "tcp:80:interface=localhost",
                r"tcp with an interface that is an IP address, its colons written as \:",
            ),
            (
                "tcp:80:interface=::1",
                r"interface only once; colons in a value are written as \:",
            ),
            (
                "tcp6:80:interface=127.0.0.1",
                r"tcp6 with an interface that is an IPv6 address, its colons written as \:",
            ),
            ("tcp:80\\", "an endpoint that does not end in a backslash"),
            ("unix:regproxy.sock", "unix with an absolute path"),
            ("unix:/run/x:mode=rw", "unix with a mode in octal digits"),
            ("unix:/run/x:lockfile=yes", "unix with a lockfile of 0 or 1"),
            ("stdio:", "an endpoint that takes connections"),
            ("haproxy:haproxy:tcp:80", "an endpoint that takes connections"),
            ("tls:a:tcp:443", "a plain endpoint, with tls = true beside it for TLS"),
        ):
            self.assertEqual(refusal(text), (expected, ""), text)

    def test_suggests(self) -> None:
        """Where it is likely what was meant, the refusal says it."""
        for text, meant in (
            ("5000", "tcp:5000"),
            ("haproxy:5000", "haproxy:tcp:5000"),
            ("tpc:5000:interface=127.0.0.1", "tcp:5000:interface=127.0.0.1"),
            ("TCP:5000", "tcp:5000"),
            ("haprox:tcp:5000", "haproxy:tcp:5000"),
            ("ssl:443:privateKey=key.pem", "tcp:443"),
            ("tcp:80:interfaces=127.0.0.1", "interface"),
        ):
            self.assertEqual(refusal(text)[1], meant)

    @given(
        st.sampled_from(["tcp", "tcp6", "unix", "haproxy:tcp", "haproxy:unix"]),
        st.lists(
            st.one_of(
                st.text(max_size=20).map(quoteStringArgument),
                st.integers(-10, 70_000).map(str),
                st.tuples(
                    st.sampled_from(
                        ["port", "interface", "backlog", "address", "mode", "lockfile", "x"]
                    ),
                    st.sampled_from(["1", "0", "660", "127.0.0.1", r"\:\:1", "/run/x", "a", ""]),
                ).map("=".join),
            ),
            max_size=5,
        ),
    )
    def test_nothing_bad_passes(self, kind: str, parameters: list[str]) -> None:
        """What is accepted makes an endpoint."""
        text = ":".join([kind, *parameters])
        try:
            check_endpoint(text)
        except BadEndpoint:
            return
        serverFromString(MemoryReactor(), text)
        serverFromString(MemoryReactor(), with_backlog(text, 1024))

    def test_backlog(self) -> None:
        """How many may wait is added where it can be, and was not said."""
        for text, expected in [
            ("tcp:5000", "tcp:5000:backlog=1024"),
            (r"tcp:5000:\:\:1", r"tcp:5000:\:\:1:backlog=1024"),
            ("haproxy:tcp:5000", "haproxy:tcp:5000:backlog=1024"),
            ("unix:/run/x:660", "unix:/run/x:660:backlog=1024"),
            ("tcp:5000:backlog=7", "tcp:5000:backlog=7"),
            ("tcp:5000:127.0.0.1:7", "tcp:5000:127.0.0.1:7"),
            ("tcp6:5000:7", "tcp6:5000:7"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
            ("another:x", "another:x"),
        ]:
            self.assertEqual(with_backlog(text, 1024), expected)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text at all is accepted or refused."""
        try:
            check_endpoint(text)
        except BadEndpoint as bad:
            self.assertTrue(bad.expected)
