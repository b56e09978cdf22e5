"""Tests for :mod:`regproxy.config_hosts`, through the configuration that has such an index."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config import Config
from regproxy.config_hosts import same_place
from regproxy.config_tables import Registry
from regproxy.model.hosts import HostPort, parse_host


def config_of(*registries: Registry, names: Iterable[str] = ()) -> Config:
    """A configuration of these registries alone."""
    return Config(registries={each.name: each for each in registries}, names=tuple(names))


class HostedTests(SynchronousTestCase):
    """A host means the registry that clients take it for, or nothing."""

    def check(self, config: Config, *expected: tuple[str, str | None]) -> None:
        """Compare what hosts mean; what means a registry is not the proxy's own."""
        for text, registry in expected:
            host = parse_host(text)
            self.assertEqual(config.hosted(host), registry, text)
            if registry is not None:
                self.assertFalse(config.is_own(host), text)

    def test_name(self) -> None:
        """A name without a port means its registry on every port."""
        self.check(
            config_of(Registry("quay.io")),
            ("quay.io", "quay.io"),
            ("Quay.IO.", "quay.io"),
            ("quay.io:443", "quay.io"),
            ("quay.io:80", "quay.io"),
            ("quay.io:8443", "quay.io"),
            ("cdn.quay.io", None),
            ("io", None),
            ("xquay.io", None),
        )

    def test_port(self) -> None:
        """A name with a port means its registry on that port alone."""
        self.check(
            config_of(Registry("r.corp:5000")),
            ("r.corp:5000", "r.corp:5000"),
            ("R.corp.:5000", "r.corp:5000"),
            ("r.corp", None),
            ("r.corp:443", None),
            ("r.corp:5001", None),
        )

    def test_port_left_out(self) -> None:
        """Clients leave out 443 and 80, so a name with one of them is found without."""
        self.check(
            config_of(Registry("a.corp:443"), Registry("b.corp:80")),
            ("a.corp:443", "a.corp:443"),
            ("a.corp", "a.corp:443"),
            ("a.corp:80", None),
            ("b.corp:80", "b.corp:80"),
            ("b.corp", "b.corp:80"),
            ("b.corp:443", None),
        )

    def test_several_ports(self) -> None:
        """On one host, the exact port wins; without one it is the bare name, 443, then 80."""
        ports = (Registry("r.corp:80"), Registry("r.corp:443"), Registry("r.corp:5000"))
        exact = (
            ("r.corp:5000", "r.corp:5000"),
            ("r.corp:443", "r.corp:443"),
            ("r.corp:80", "r.corp:80"),
        )
        self.check(config_of(*ports), *exact, ("r.corp", "r.corp:443"), ("r.corp:81", None))
        self.check(
            config_of(*ports, Registry("r.corp")),
            *exact,
            ("r.corp", "r.corp"),
            ("r.corp:81", "r.corp"),
        )

    def test_alias(self) -> None:
        """Aliases mean their registry as its name does."""
        self.check(
            config_of(Registry("r.corp:5000", aliases=("r.corp", "hub", "other.corp:5001"))),
            ("r.corp:5000", "r.corp:5000"),
            ("r.corp", "r.corp:5000"),
            ("r.corp:9", "r.corp:5000"),
            ("hub", "r.corp:5000"),
            ("hub:80", "r.corp:5000"),
            ("other.corp:5001", "r.corp:5000"),
            ("other.corp", None),
        )

    def test_upstream(self) -> None:
        """The host of an upstream means its registry on upstream's port, given or left out."""
        self.check(
            config_of(
                Registry("a", upstream="https://secure.corp"),
                Registry("b", upstream="http://plain.corp"),
                Registry("c", upstream="https://ported.corp:5000"),
                Registry("d", upstream="https://said.corp:443"),
                Registry("e", upstream="http://odd.corp:443"),
            ),
            ("secure.corp", "a"),
            ("secure.corp:443", "a"),
            ("secure.corp:80", None),
            ("secure.corp:5000", None),
            ("plain.corp", "b"),
            ("plain.corp:80", "b"),
            ("plain.corp:443", None),
            ("ported.corp:5000", "c"),
            ("ported.corp", None),
            ("ported.corp:443", None),
            ("said.corp", "d"),
            ("said.corp:443", "d"),
            ("odd.corp:443", "e"),
            ("odd.corp", None),
        )

    def test_name_before_upstream(self) -> None:
        """A name wins over the host of another registry's upstream; first come among upstreams."""
        self.check(
            config_of(
                Registry("mirror.corp", upstream="https://quay.io"),
                Registry("quay.io", upstream="https://origin.corp:5000"),
                Registry("second.corp", upstream="https://origin.corp:5000"),
            ),
            ("quay.io", "quay.io"),
            ("quay.io:443", "quay.io"),
            ("origin.corp:5000", "quay.io"),
            ("second.corp", "second.corp"),
        )

    def test_addresses(self) -> None:
        """Addresses mean registries as names do, IPv6 without its brackets."""
        self.check(
            config_of(
                Registry("10.1.2.3:5000"),
                Registry("[fd00::5]:5000", aliases=("[fd00::6]",)),
                Registry("r.corp", upstream="https://[fd00::7]"),
                Registry("s.corp", upstream="http://10.1.2.4:8080"),
            ),
            ("10.1.2.3:5000", "10.1.2.3:5000"),
            ("10.1.2.3", None),
            ("[FD00:0::5]:5000", "[fd00::5]:5000"),
            ("[fd00::5]", None),
            ("[fd00::6]", "[fd00::5]:5000"),
            ("[fd00::6]:1", "[fd00::5]:5000"),
            ("[fd00::7]", "r.corp"),
            ("[fd00::7]:443", "r.corp"),
            ("[fd00::7]:80", None),
            ("10.1.2.4:8080", "s.corp"),
            ("10.1.2.4", None),
        )
        self.assertEqual(
            config_of(Registry("[fd00::5]")).hosted(HostPort("fd00::5", 443)), "[fd00::5]"
        )

    def test_docker_hub(self) -> None:
        """Docker Hub is found at all of its hosts, and its web sites are not."""
        self.check(
            Config(),
            ("docker.io", "docker.io"),
            ("index.docker.io:443", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("auth.docker.io", None),
            ("hub.docker.com", None),
        )
        hub = evolve(Config().registries["docker.io"], aliases=())
        self.check(
            config_of(hub),
            ("registry-1.docker.io:443", "docker.io"),
            ("registry-1.docker.io:80", None),
            ("index.docker.io", None),
        )

    def test_evolve(self) -> None:
        """A changed copy knows its own hosts."""
        config = evolve(Config(), registries={"r.corp": Registry("r.corp")}, names=("p.corp",))
        self.check(config, ("r.corp", "r.corp"), ("quay.io", None))
        self.assertTrue(config.is_own(HostPort("p.corp")))

    @given(st.sampled_from(["quay.io", "r.corp", "p.corp", "u.corp"]), st.integers(1, 65_535))
    def test_never_both(self, name: str, port: int) -> None:
        """Nothing is both the proxy and a registry."""
        config = config_of(
            Registry("quay.io"),
            Registry("r.corp:443", upstream="http://p.corp:5000"),
            Registry("s.corp", upstream="https://u.corp:8443"),
            names=("p.corp", "r.corp:5000"),
        )
        for host in (HostPort(name, port), HostPort(name)):
            self.assertFalse(config.is_own(host) and config.hosted(host) is not None)


class OwnTests(SynchronousTestCase):
    """The proxy knows itself."""

    def check(self, config: Config, *expected: tuple[str, bool]) -> None:
        """Compare which hosts are the proxy's own; those are no registry."""
        for text, own in expected:
            host = parse_host(text)
            self.assertIs(config.is_own(host), own, text)
            if own:
                self.assertIsNone(config.hosted(host), text)

    def test_names(self) -> None:
        """Names mean the proxy on every port or on theirs, as those of registries do."""
        self.check(
            config_of(names=("p.corp", "q.corp:5000", "s.corp:443", "10.1.2.4", "[fd00::4]:5000")),
            ("p.corp", True),
            ("P.corp.:5000", True),
            ("q.corp:5000", True),
            ("q.corp", False),
            ("s.corp", True),
            ("s.corp:443", True),
            ("s.corp:80", False),
            ("10.1.2.4:5000", True),
            ("[fd00::4]:5000", True),
            ("[fd00::4]", False),
            ("quay.io", False),
        )

    def test_none(self) -> None:
        """Without names, every host but one is a stranger's."""
        self.check(Config(), ("quay.io", False), ("127.0.0.1:5000", False), ("localhost", False))

    def test_docker_proxy(self) -> None:
        """The name in the /etc/hosts of older set-ups is the proxy's, whatever else it may be."""
        for config in (
            Config(),
            config_of(Registry("docker.proxy"), Registry("r", upstream="https://docker.proxy")),
        ):
            self.check(config, ("docker.proxy", True), ("Docker.Proxy:443", True))

    def test_before_registries(self) -> None:
        """What both could mean is the proxy; an exact port is more than a bare name."""
        self.check(
            config_of(
                Registry("m.corp:5001"),
                Registry("n.corp"),
                Registry("r.corp", upstream="https://m.corp:5000"),
                names=("m.corp", "n.corp:5000"),
            ),
            ("m.corp", True),
            ("m.corp:5000", True),
            ("m.corp:5001", False),
            ("n.corp:5000", True),
            ("n.corp", False),
        )


class SamePlaceTests(SynchronousTestCase):
    """Names that cannot mean different things."""

    def test_same_place(self) -> None:
        """Ports that clients leave out are no difference; others are."""
        for one, other, same in (
            ("a", "a", True),
            ("a", "b", False),
            ("a", "a:443", True),
            ("a:80", "a:443", True),
            ("a", "a:5000", False),
            ("a:443", "a:5000", False),
            ("a:5000", "a:5000", True),
        ):
            self.assertIs(same_place(parse_host(one), parse_host(other)), same)
            self.assertIs(same_place(parse_host(other), parse_host(one)), same)
