"""Name constraints: what they permit, and what they leave out."""

from __future__ import annotations

from ipaddress import ip_network

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.name_constraints import (
    describe,
    name_constraints,
    permits,
    same_constraints,
)
from regproxy.model.hosts import HostPort


def dns(*names: str) -> list[x509.DNSName]:
    """Domains as they stand in a certificate."""
    return [x509.DNSName(name) for name in names]


def networks(*texts: str) -> list[x509.IPAddress]:
    """Networks as they stand in a certificate."""
    return [x509.IPAddress(ip_network(text)) for text in texts]


class NameConstraintTests(SynchronousTestCase):
    """From a list to an extension, and back to a verdict."""

    def made(self, *permitted: str) -> x509.NameConstraints:
        """The extension for a list that is not empty."""
        made = name_constraints(permitted)
        assert made is not None
        return made

    def assert_permits(self, listed: tuple[str, ...], good: str, bad: str) -> None:
        """Of two lists of names, separated by spaces, the first alone is permitted."""
        made = self.made(*listed)
        for name in good.split():
            self.assertTrue(permits(made, HostPort(name, 443)), name)
        for name in bad.split():
            self.assertFalse(permits(made, HostPort(name)), name)

    def test_none(self) -> None:
        """No list, no extension."""
        self.assertIsNone(name_constraints(()))
        self.assertEqual(describe(None), "every name")

    def test_domains(self) -> None:
        """Domains permit what is below them, and no address at all."""
        made = self.made("example.com", "Corp.TEST.")
        self.assertEqual(made.permitted_subtrees, dns("example.com", "corp.test"))
        self.assertEqual(made.excluded_subtrees, networks("0.0.0.0/0", "::/0"))
        self.assert_permits(
            ("example.com", "corp.test"),
            "example.com a.b.example.com corp.test",
            "badexample.com com example.com.evil.test 10.0.0.1 ::1",
        )

    def test_networks(self) -> None:
        """Networks permit their addresses; the other family and every name are excluded."""
        made = self.made("10.0.0.0/8", "192.0.2.1")
        self.assertEqual(made.permitted_subtrees, networks("10.0.0.0/8", "192.0.2.1/32"))
        self.assertEqual(made.excluded_subtrees, [*dns(""), *networks("::/0")])
        self.assert_permits(
            ("10.0.0.0/8", "192.0.2.1"), "10.1.2.3 192.0.2.1", "192.0.2.2 ::1 example.com"
        )
        self.assert_permits(("fd00::/8",), "fd00::1", "fe80::1 10.0.0.1 example.com")

    def test_everything_listed(self) -> None:
        """Where each kind is listed, none is excluded as a whole."""
        made = self.made("example.com", "10.0.0.0/8", "::1")
        self.assertIsNone(made.excluded_subtrees)
        self.assert_permits(
            ("example.com", "10.0.0.0/8", "::1"), "a.example.com 10.0.0.1 ::1", "b.test 1.1.1.1 ::2"
        )

    def test_of_others(self) -> None:
        """Constraints that another program wrote: a leading dot leaves the domain itself out."""
        made = x509.NameConstraints(dns(".Example.com"), dns("bad.example.com"))
        self.assertTrue(permits(made, HostPort("a.example.com")))
        for name in ("example.com", "bad.example.com", "x.bad.example.com"):
            self.assertFalse(permits(made, HostPort(name)), name)
        # Nothing is said of addresses.
        self.assertTrue(permits(made, HostPort("10.0.0.1")))
        only_excluded = x509.NameConstraints(None, networks("10.0.0.0/8"))
        self.assertTrue(permits(only_excluded, HostPort("example.com")))
        self.assertFalse(permits(only_excluded, HostPort("10.9.9.9")))
        self.assertEqual(describe(only_excluded), "every name but 10.0.0.0/8")

    def test_nonsense(self) -> None:
        """What is neither domain nor address nor network is refused."""
        for text in ("", "a b", "example.com:443", "10.0.0.1/8", "300.1.1.1", "*.example.com"):
            self.assertRaises(ValueError, name_constraints, [text])

    def test_same(self) -> None:
        """The order does not matter, what is listed does."""
        one = self.made("a.test", "10.0.0.0/8")
        self.assertTrue(same_constraints(one, self.made("10.0.0.0/8", "A.test")))
        self.assertFalse(same_constraints(one, self.made("a.test")))
        self.assertFalse(same_constraints(one, None))
        self.assertTrue(same_constraints(None, None))
        self.assertEqual(describe(one), "10.0.0.0/8, a.test")
