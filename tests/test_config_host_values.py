"""Tests for :mod:`regproxy.config_host_values`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config_host_values import (
    permits,
    read_address,
    read_domain,
    read_host,
    read_network,
    read_pattern,
)
from regproxy.config_mistakes import Mistake, describe
from regproxy.front.connect import TunnelPolicy
from regproxy.front.name_constraints import name_constraints
from regproxy.model.hosts import parse_host


class ValuesTestCase(SynchronousTestCase):
    """Reads values one by one."""

    def accepts(self, read: Callable[[object], str], cases: Iterable[tuple[str, str]]) -> None:
        """Compare what is read, and that it is read again as it is."""
        for text, expected in cases:
            self.assertEqual(read(text), expected)
            self.assertEqual(read(expected), expected)

    def refuses(self, read: Callable[[object], str], cases: Iterable[tuple[object, str]]) -> None:
        """Compare what is offered for a value; what is offered would be accepted."""
        for value, meant in cases:
            with self.assertRaises(Mistake, msg=str(value)) as caught:
                read(value)
            self.assertEqual(caught.exception.found, describe(value))
            self.assertEqual(caught.exception.meant, meant, str(value))
            if meant:
                read(meant)


class HostTests(ValuesTestCase):
    """Hosts with or without a port."""

    def test_accepts(self) -> None:
        """A host comes back in its one spelling."""
        self.accepts(
            read_host,
            (
                ("Proxy.Corp.", "proxy.corp"),
                ("proxy:5000", "proxy:5000"),
                ("proxy_1", "proxy_1"),
                ("10.1.2.3:80", "10.1.2.3:80"),
                ("[FD00::05]", "[fd00::5]"),
                ("[fd00::5]:443", "[fd00::5]:443"),
            ),
        )

    def test_refuses(self) -> None:
        """Anything else is refused; an IPv6 address is offered its brackets."""
        self.refuses(
            read_host,
            (
                (5, ""),
                ("", ""),
                ("a b", ""),
                ("https://proxy.corp", ""),
                ("*.corp", ""),
                ("proxy.corp:0", ""),
                ("proxy.corp:70000", ""),
                ("10.1.2.300", ""),
                ("fd00::05", "[fd00::5]"),
            ),
        )


class AddressTests(ValuesTestCase):
    """IP addresses."""

    def test_accepts(self) -> None:
        """An address comes back in its one spelling."""
        self.accepts(read_address, (("10.1.2.3", "10.1.2.3"), ("FD00:0::05", "fd00::5")))

    def test_refuses(self) -> None:
        """Names, networks and ports are refused."""
        self.refuses(
            read_address,
            (
                (True, ""),
                (167772161, ""),
                ("", ""),
                ("quay.io", ""),
                ("10.1", ""),
                ("010.1.2.3", ""),
                ("10.0.0.0/8", ""),
                ("fe80::1%eth0", ""),
                ("10.1.2.3:443", "10.1.2.3"),
                ("[fd00::5]", "fd00::5"),
            ),
        )


class NetworkTests(ValuesTestCase):
    """IP addresses and networks."""

    def test_accepts(self) -> None:
        """Either comes back in its one spelling."""
        self.accepts(
            read_network,
            (
                ("10.1.2.3", "10.1.2.3"),
                ("10.0.0.0/8", "10.0.0.0/8"),
                ("FD00::/8", "fd00::/8"),
                ("fd00::05", "fd00::5"),
            ),
        )

    def test_refuses(self) -> None:
        """Anything else is refused, with what was meant."""
        self.refuses(
            read_network,
            (
                (5, ""),
                ("", ""),
                ("corp.example", ""),
                ("10.1.2.3/8", "10.0.0.0/8"),
                ("10.1.2.3:80", "10.1.2.3"),
                ("[fd00::5]", "fd00::5"),
                ("10.0.0.0/33", ""),
                ("fe80::1%eth0", ""),
            ),
        )


class DomainTests(ValuesTestCase):
    """What a certificate authority may be bound to."""

    def test_accepts(self) -> None:
        """Domains, addresses and networks come back in their one spelling."""
        self.accepts(
            read_domain,
            (
                ("Corp.Example.", "corp.example"),
                ("corp", "corp"),
                ("10.1.2.3", "10.1.2.3"),
                ("10.0.0.0/8", "10.0.0.0/8"),
                ("0.0.0.0/0", "0.0.0.0/0"),
                ("FD00::/8", "fd00::/8"),
                ("fd00::05", "fd00::5"),
            ),
        )

    @given(st.text(st.sampled_from("*.:/[]%a1f0-"), max_size=12))
    def test_constraints(self, text: str) -> None:
        """What is accepted can stand in a certificate."""
        try:
            domain = read_domain(text)
        except Mistake:
            return
        self.assertIsNotNone(name_constraints([domain]))

    def test_refuses(self) -> None:
        """What means something else in a certificate is refused, with what was meant."""
        self.refuses(
            read_domain,
            (
                (5, ""),
                ("", ""),
                ("*", ""),
                (".", ""),
                ("*.corp.example", "corp.example"),
                (".corp.example", "corp.example"),
                ("corp.example:443", "corp.example"),
                ("[fd00::5]", "fd00::5"),
                ("https://corp.example", ""),
                ("corp.example/8", ""),
                ("10.1.2.3/8", "10.0.0.0/8"),
                ("fd00::5/8", "fd00::/8"),
                ("10.0.0.0/33", ""),
                ("10.0.0.0/", ""),
                ("10.0.0.0/255.0.0.0", ""),
                ("fe80::%1/64", ""),
                ("10.1", ""),
            ),
        )

    def test_permits(self) -> None:
        """A domain covers itself and what is below, a network its addresses, whatever the port."""
        domains = ("corp.example", "quay.io", "10.0.0.0/8", "fd00::5")
        for text, expected in (
            ("quay.io", True),
            ("cdn.quay.io:443", True),
            ("a.b.corp.example", True),
            ("xquay.io", False),
            ("io", False),
            ("10.255.0.1:5000", True),
            ("11.0.0.1", False),
            ("[fd00::5]:5000", True),
            ("[fd00::6]", False),
            ("[::ffff:10.0.0.1]", False),
        ):
            self.assertIs(permits(domains, parse_host(text)), expected, text)
        self.assertFalse(permits(("3",), parse_host("10.1.2.3")))


class PatternTests(ValuesTestCase):
    """What may be tunnelled to, as far as a :class:`TunnelPolicy` understands it."""

    def test_accepts(self) -> None:
        """A pattern stays as it is written."""
        for text in (
            "example.com:443",
            "Example.COM.:443",
            "localhost:22",
            "a_b.corp:1",
            "*.example.com:443",
            "*.com:*",
            "*:443",
            "*:*",
            "10.1.2.3:65535",
            "10.0.0.0/8:443",
            "0.0.0.0/0:*",
            "[fd00::5]:443",
            "[fd00::/8]:*",
            "[::/0]:1",
        ):
            self.assertEqual(read_pattern(text), text)
            TunnelPolicy.of((text,))

    def test_refuses(self) -> None:
        """What could match nothing, or something else than it seems to, is refused."""
        self.refuses(
            read_pattern,
            (
                (443, ""),
                (["example.com:443"], ""),
                ("", ""),
                (":443", ""),
                ("*:", ""),
                ("example.com", "example.com:443"),
                ("*.example.com", "*.example.com:443"),
                ("*", "*:443"),
                ("10.0.0.0/8", "10.0.0.0/8:443"),
                ("[fd00::5]", "[fd00::5]:443"),
                ("example.com:0", ""),
                ("example.com:65536", ""),
                ("example.com:0443", ""),
                ("example.com:443-450", ""),
                ("example.com:https", ""),
                ("example.com:443:443", ""),
                ("https://example.com:443", ""),
                ("example.com/a:443", ""),
                ("a.*.com:443", ""),
                ("*example.com:443", ""),
                ("*.*.com:443", ""),
                ("*.:443", ""),
                ("*.10.1.2.3:443", ""),
                ("*.[fd00::5]:443", ""),
                (".example.com:443", ""),
                ("exa mple.com:443", ""),
                ("10.1.2.300:443", ""),
                ("10.1.2.3/8:443", "10.0.0.0/8:443"),
                ("10.0.0.0/33:443", ""),
                ("10.0.0.0/255.0.0.0:443", ""),
                ("[10.0.0.0/8]:443", "10.0.0.0/8:443"),
                ("[10.1.2.3]:443", "10.1.2.3:443"),
                ("[fd00::5/8]:*", "[fd00::/8]:*"),
                ("fd00::/8:443", "[fd00::/8]:443"),
                ("[fd00::]/8:443", "[fd00::/8]:443"),
                ("[fd00::5:443", "[fd00::5]:443"),
                ("[[fd00::5]]:443", "[fd00::5]:443"),
                ("[fe80::1%eth0]:443", ""),
            ),
        )

    @given(st.text(st.sampled_from("*.:/[]%a1f0-"), max_size=12))
    def test_any_text(self, text: str) -> None:
        """Any text is a pattern or a mistake, and what is offered instead is a pattern."""
        try:
            TunnelPolicy.of((read_pattern(text),))
        except Mistake as mistake:
            if mistake.meant:
                read_pattern(mistake.meant)

    @given(st.text(max_size=12))
    def test_any_characters(self, text: str) -> None:
        """No text breaks a reader."""
        for read in (read_host, read_address, read_network, read_domain, read_pattern):
            try:
                read(text)
            except Mistake as mistake:
                if mistake.meant:
                    read(mistake.meant)
