"""Tests for regproxy.model.outgoing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import DIRECT, OutgoingProxy, ProxyRules, is_loopback, parse_proxy

PROXY = OutgoingProxy("proxy.corp", 3128)


class ProxyTests(SynchronousTestCase):
    """URLs of proxies."""

    def test_hosts(self) -> None:
        """A host of any kind, with its port or 80."""
        for url, host, port in (
            ("http://proxy.corp:3128", "proxy.corp", 3128),
            ("HTTP://Proxy.Corp/", "proxy.corp", 80),
            ("http://10.1.2.3:8080/", "10.1.2.3", 8080),
            ("http://[FD00::05]:8080", "fd00::5", 8080),
        ):
            self.assertEqual(parse_proxy(url), OutgoingProxy(host, port))

    def test_credentials(self) -> None:
        """User name and password may hold anything, percent-encoded."""
        for url, authorization in (
            ("http://me:secret@p:1", "Basic bWU6c2VjcmV0"),
            ("http://me:a%40b%3a%2F%C3%A9@p:1", "Basic bWU6YUBiOi/DqQ=="),
            ("http://me@p:1", "Basic bWU6"),
            ("http://me:a:b@p:1", "Basic bWU6YTpi"),
        ):
            self.assertEqual(parse_proxy(url).authorization, authorization)

    def test_hidden(self) -> None:
        """What names a proxy in logs has no credential in it."""
        proxy = parse_proxy("http://me:secret@p:1")
        for shown in (repr(proxy), str(proxy), repr(ProxyRules.everywhere(proxy)), f"{proxy}"):
            self.assertNotIn("bWU6", shown)
            self.assertNotIn("secret", shown)
        self.assertEqual(str(proxy), "p:1")

    def test_refused(self) -> None:
        """Anything else is refused, without being repeated."""
        for url in (
            "",
            "secret",
            "secret:3128",
            "https://secret",
            "socks5://secret:1080",
            "http://",
            "http://u:secret@",
            "http://u:secret@p:0",
            "http://u:secret@p:70000",
            "http://u:secret@p:port",
            "http://u:sec/ret@p",
            "http://u:sec?ret@p",
            "http://p/secret",
            "http://p secret",
            "http://p\nsecret",
            "http://[secret",
            "http://sécret",
        ):
            error = self.assertRaises(ValueError, parse_proxy, url)
            for word in ("secret", "sécret", "sec/", "sec?"):
                self.assertNotIn(word, str(error), url)

    @given(st.text(st.sampled_from("http:/@[]%a1.?# "), max_size=30))
    def test_any_text(self, text: str) -> None:
        """No text does anything else than to be read or refused."""
        try:
            proxy = parse_proxy(f"http://{text}")
        except ValueError:
            return
        self.assertTrue(1 <= proxy.port <= 65535)


class RulesTests(SynchronousTestCase):
    """Which proxy leads where."""

    def rules(self, **environ: str) -> ProxyRules:
        """What an environment says."""
        return ProxyRules.from_environment(environ)

    def assert_direct(self, rules: ProxyRules, *hosts: tuple[str, int]) -> None:
        """None of these https hosts has a proxy."""
        for name, port in hosts:
            self.assertIsNone(rules.choose("https", HostPort(name, port)), (name, port))

    def assert_proxied(self, rules: ProxyRules, *hosts: tuple[str, int]) -> None:
        """All of these https hosts have the proxy."""
        for name, port in hosts:
            self.assertEqual(rules.choose("https", HostPort(name, port)), PROXY, (name, port))

    def test_configured(self) -> None:
        """One that is configured leads everywhere, to this machine too."""
        rules = ProxyRules.everywhere(PROXY)
        self.assert_proxied(rules, ("quay.io", 443), ("localhost", 443), ("127.0.0.1", 443))
        self.assertEqual(rules.choose("http", HostPort("quay.io", 80)), PROXY)
        self.assertEqual(ProxyRules.everywhere(None), DIRECT)

    def test_schemes(self) -> None:
        """The environment has one for each scheme; lower case comes first, empty is none."""
        rules = self.rules(
            HTTP_PROXY="http://plain:1", https_proxy="http://low:2", HTTPS_PROXY="http://up:3"
        )
        self.assertEqual(rules.http, OutgoingProxy("plain", 1))
        self.assertEqual(rules.https, OutgoingProxy("low", 2))
        self.assertEqual(
            self.rules(https_proxy="", HTTPS_PROXY="up:3").https, OutgoingProxy("up", 3)
        )
        self.assertEqual(self.rules(HTTPS_PROXY=" ", NO_PROXY="a"), DIRECT)

    def test_unusable(self) -> None:
        """One that cannot be used is named by its variable and not repeated."""
        error = self.assertRaises(ValueError, self.rules, https_proxy="socks5://me:secret@p:1")
        self.assertEqual(error.args[0], "https_proxy")
        self.assertNotIn("secret", str(error.args))

    def test_loopback(self) -> None:
        """No proxy of the environment leads to this machine."""
        rules = self.rules(HTTPS_PROXY="http://proxy.corp:3128")
        self.assert_direct(
            rules, ("localhost", 443), ("a.localhost", 1), ("127.1.2.3", 1), ("::1", 5)
        )
        self.assert_proxied(rules, ("quay.io", 443), ("10.0.0.1", 443), ("localhost.corp", 443))

    def test_exceptions(self) -> None:
        """NO_PROXY has names, what is below them, addresses, networks and ports."""
        rules = self.rules(
            HTTPS_PROXY="proxy.corp:3128",
            NO_PROXY="corp.example, .below.example,*.star.example 10.0.0.0/8,192.0.2.7,"
            "[fd00::5]:5000,fd01::/16,port.example:5000,fd02::1,,nonsense/8,a b:c:d",
        )
        self.assert_direct(
            rules,
            ("corp.example", 443),
            ("r.corp.example", 443),
            ("R.Corp.Example.", 443),
            ("r.below.example", 443),
            ("r.star.example", 443),
            ("10.1.2.3", 443),
            ("192.0.2.7", 1),
            ("fd00::5", 5000),
            ("fd01::1", 1),
            ("fd02::1", 1),
            ("port.example", 5000),
        )
        self.assert_proxied(
            rules,
            ("xcorp.example", 443),
            ("below.example", 443),
            ("star.example", 443),
            ("11.0.0.1", 443),
            ("10.1", 443),
            ("192.0.2.8", 1),
            ("fd00::5", 443),
            ("port.example", 443),
            ("10.example", 443),
        )

    def test_ports(self) -> None:
        """A host without a port has that of its scheme."""
        rules = self.rules(HTTPS_PROXY="proxy.corp:3128", NO_PROXY="a.example:443")
        self.assertIsNone(rules.choose("https", HostPort("a.example")))
        self.assertEqual(rules.choose("https", HostPort("a.example", 80)), PROXY)

    def test_star(self) -> None:
        """An asterisk is everything."""
        rules = self.rules(HTTPS_PROXY="proxy.corp:3128", NO_PROXY="a,*")
        self.assert_direct(rules, ("quay.io", 443), ("10.0.0.1", 1))

    def test_is_loopback(self) -> None:
        """Names and addresses of this machine."""
        for name in ("localhost", "LOCALHOST.", "a.b.localhost", "127.9.9.9", "::1"):
            self.assertTrue(is_loopback(name), name)
        for name in ("localhost.example", "mylocalhost", "10.0.0.1", "::2", "0.0.0.0"):
            self.assertFalse(is_loopback(name), name)
