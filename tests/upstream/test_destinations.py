"""Tests for regproxy.upstream.destinations, and for agents that keep to it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import DIRECT, OutgoingProxy, ProxyRules
from regproxy.upstream.connecting import make_agent, pinning
from regproxy.upstream.destinations import Destinations
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.tls import Trust, UpstreamTLS
from tests.upstream.resolver import FixedResolver

UPSTREAM = HostPort("registry.test", 80)
NAMES = {
    "public.test": ["8.8.8.8", "2606:4700::1"],
    "private.test": ["10.0.0.7"],
    "ula.test": ["fd00::7"],
    "loopback.test": ["127.0.0.1"],
    "mixed.test": ["8.8.8.8", "10.0.0.7"],
    "linklocal.test": ["169.254.169.254"],
    "metadata.test": ["fd00:ec2::254"],
    "alibaba.test": ["100.100.100.200"],
    "any.test": ["0.0.0.0"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "multicast.test": ["224.0.0.1"],
}
NOT_PUBLIC = sorted(NAMES.keys() - {"public.test"})


class DestinationsCase(SynchronousTestCase):
    """A registry whose upstream's name resolves as a test says."""

    def make(
        self,
        *own: str,
        allowed: Sequence[str] = (),
        upstream: HostPort = UPSTREAM,
        proxies: ProxyRules = DIRECT,
        pinned: Sequence[str] = (),
    ) -> None:
        """Makes the agent; nothing is looked up yet."""
        self.reactor: Any = MemoryReactorClock()
        self.resolver = FixedResolver({**NAMES, "registry.test": list(own)})
        self.reactor.installNameResolver(self.resolver)
        reactor = pinning(self.reactor, {upstream.name: pinned} if pinned else {})
        self.destinations = Destinations(
            "registry.test",
            upstream,
            [ip_network(each) for each in allowed],
            reactor,
            is_proxied=proxies is not DIRECT,
        )
        agent = make_agent(
            reactor,
            connections=1,
            connect_timeout=5,
            tls=UpstreamTLS(Trust(), upstream.name),
            destinations=self.destinations,
            proxies=proxies,
        )
        self.exchange = Exchange(agent, self.reactor)

    def ask(self, url: str) -> list[str]:
        """Where it is connected to for a URL, whatever its scheme."""
        before = len(self.reactor.tcpClients)
        sending = self.exchange.send("GET", url, {}, Deadline.after(self.reactor, 5))
        waiting = Deferred.fromCoroutine(sending)
        tried = [attempt[0] for attempt in self.reactor.tcpClients[before:]]
        self.waiting = waiting
        if not tried:
            raise self.failureResultOf(waiting).value
        waiting.cancel()
        self.failureResultOf(waiting)
        return tried

    def refused(self, url: str) -> str:
        """Why a URL is not connected to."""
        before = len(self.reactor.tcpClients)
        error = self.assertRaises(RegistryError, self.ask, url)
        self.assertEqual((error.status, error.code), (502, "UNKNOWN"))
        self.assertEqual(len(self.reactor.tcpClients), before)
        return str(error.message)


class UpstreamTests(DestinationsCase):
    """What the operator configured."""

    def test_anywhere(self) -> None:
        """Upstream's own host and port are connected to at whatever address."""
        for names in NAMES.values():
            self.make(*names)
            self.assertIn(self.ask("http://registry.test/")[0], [*names, "127.0.0.1"])

    def test_literal(self) -> None:
        """So is an address that is configured itself, the metadata service's for one."""
        for name in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"):
            self.make(upstream=HostPort(name, 5000))
            url = f"http://{HostPort(name, 5000)}/"
            self.assertEqual(self.ask(url), [name])
        self.assertEqual(self.resolver.asked, [])

    def test_other_port(self) -> None:
        """Another port of its host is somewhere that it leads to."""
        self.make("8.8.8.8")
        self.assertEqual(self.ask("http://registry.test/"), ["8.8.8.8"])
        self.assertEqual(self.ask("https://registry.test:8443/"), ["8.8.8.8"])
        self.resolver.names["registry.test"] = ["127.0.0.1"]
        self.refused("http://registry.test:8500/")

    def test_no_address(self) -> None:
        """A name without addresses is 502."""
        self.make()
        self.assertIn("name not found", self.refused("http://registry.test/"))


class PublicTests(DestinationsCase):
    """An upstream at public addresses."""

    def test_public(self) -> None:
        """It leads to other public hosts."""
        self.make("1.1.1.1")
        self.assertEqual(self.ask("https://public.test/"), ["8.8.8.8"])
        self.assertEqual(self.ask("http://public.test:8080/"), ["8.8.8.8"])
        self.assertEqual(self.ask("http://9.9.9.9/"), ["9.9.9.9"])

    def test_not_inwards(self) -> None:
        """It leads to nothing else, whether by name or by address, http or https."""
        self.make("1.1.1.1")
        for scheme in ("http", "https"):
            for name in NOT_PUBLIC:
                self.refused(f"{scheme}://{name}/")
            for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[fe80::1]"):
                self.refused(f"{scheme}://{address}/")

    def test_message(self) -> None:
        """The refusal says what resolved to what, and the key that would allow it."""
        self.make("1.1.1.1")
        self.assertEqual(
            self.refused("http://private.test/"),
            "registry.test leads to private.test, which resolves to 10.0.0.7, a private address: "
            'refused unless allowed_addresses of registries."registry.test" has it, such as '
            '"10.0.0.7"',
        )

    def test_allowed(self) -> None:
        """What the operator allows is led to, by address and by network, and nothing beside it."""
        self.make("1.1.1.1", allowed=["10.0.0.0/24", "fd00::7"])
        self.assertEqual(self.ask("http://private.test/"), ["10.0.0.7"])
        self.assertEqual(self.ask("http://ula.test/"), ["fd00::7"])
        self.assertEqual(self.ask("http://mixed.test/")[0], "8.8.8.8")
        self.refused("http://10.0.1.7/")
        self.refused("http://loopback.test/")

    def test_singly(self) -> None:
        """Link-local and metadata addresses are allowed one by one, and by no network."""
        self.make("1.1.1.1", allowed=["0.0.0.0/0", "::/0"])
        self.ask("http://private.test/")
        for name in ("linklocal", "metadata", "alibaba", "any", "multicast"):
            self.refused(f"http://{name}.test/")
        self.make("1.1.1.1", allowed=["169.254.169.254"])
        self.assertEqual(self.ask("http://linklocal.test/"), ["169.254.169.254"])

    def test_asks_itself(self) -> None:
        """Where nothing is known of upstream yet, its name is looked up first."""
        self.make("1.1.1.1")
        self.refused("http://private.test/")
        self.assertEqual(self.resolver.asked, ["registry.test", "private.test"])
        self.refused("http://private.test/")
        self.assertEqual(self.resolver.asked[2:], ["private.test"])

    def test_unknown(self) -> None:
        """An upstream that cannot be looked up leads to public hosts alone."""
        self.make()
        self.refused("http://private.test/")
        self.assertEqual(self.ask("http://public.test/"), ["8.8.8.8"])

    def test_own_machine(self) -> None:
        """A public address that turns out to be the proxy's own is hung up on."""
        self.make("1.1.1.1")
        sending = self.exchange.send(
            "GET", "http://public.test/", {}, Deadline.after(self.reactor, 5)
        )
        waiting = Deferred.fromCoroutine(sending)
        transport = self.accept("8.8.8.8")
        error: Any = self.failureResultOf(waiting).value
        self.assertIn("8.8.8.8, the proxy's own address", error.message)
        self.assertTrue(transport.disconnecting or transport.aborting)

    def accept(self, own: str) -> Any:
        """Answers the last attempt, from this machine."""
        address, port, factory, *_ = self.reactor.tcpClients[-1]
        peer = IPv4Address("TCP", address, port)
        transport = StringTransport(IPv4Address("TCP", own, 40000), peer)
        factory.buildProtocol(peer).makeConnection(transport)
        return transport


class InnerTests(DestinationsCase):
    """An upstream that the operator put at an address that is not public."""

    def test_private(self) -> None:
        """A private one leads to private and public hosts, and not to this machine."""
        self.make("192.168.1.1")
        self.ask("http://registry.test/")
        self.assertEqual(self.ask("http://private.test/"), ["10.0.0.7"])
        self.assertEqual(self.ask("http://ula.test/"), ["fd00::7"])
        self.assertEqual(self.ask("http://public.test/"), ["8.8.8.8"])
        for name in ("loopback", "mapped", "linklocal", "metadata", "alibaba", "any"):
            self.refused(f"http://{name}.test/")

    def test_loopback(self) -> None:
        """One on this machine leads to this machine and to private hosts."""
        self.make("127.0.0.1", "::1")
        self.assertEqual(self.ask("http://loopback.test:9000/"), ["127.0.0.1"])
        self.assertEqual(self.ask("http://mapped.test/"), ["127.0.0.1"])
        self.assertEqual(self.ask("http://private.test/"), ["10.0.0.7"])
        for name in ("linklocal", "metadata", "alibaba", "any"):
            self.refused(f"http://{name}.test/")

    def test_link_local(self) -> None:
        """One at a link-local address leads to no other, nor inwards."""
        self.make("169.254.1.1")
        self.ask("http://registry.test/")
        for name in ("linklocal", "private", "loopback"):
            self.refused(f"http://{name}.test/")

    def test_mixed(self) -> None:
        """One that has a public address as well counts as public."""
        self.make("10.0.0.1", "8.8.8.8")
        self.refused("http://private.test/")

    def test_rebinding(self) -> None:
        """One that was ever seen at a public address counts as public from then on."""
        self.make("8.8.8.8")
        self.ask("http://registry.test/")
        self.resolver.names["registry.test"] = ["10.0.0.1"]
        self.assertEqual(self.ask("http://registry.test/"), ["10.0.0.1"])
        self.refused("http://private.test/")

    def test_moving_out(self) -> None:
        """And one that was inside ends to be as soon as it is seen outside."""
        self.make("10.0.0.1")
        self.ask("http://registry.test/")
        self.ask("http://private.test/")
        self.resolver.names["registry.test"] = ["8.8.8.8"]
        self.ask("http://registry.test/")
        self.refused("http://private.test/")

    def test_pinned(self) -> None:
        """Addresses that are configured for upstream's host tell where it is."""
        self.make("8.8.8.8", pinned=["10.0.0.1"])
        self.assertEqual(self.ask("http://registry.test/"), ["10.0.0.1"])
        self.assertEqual(self.ask("http://private.test/"), ["10.0.0.7"])
        self.assertEqual(self.resolver.asked, ["private.test"])

    def test_rebinding_destination(self) -> None:
        """It is the address that was checked which is connected to: one look-up, not two."""
        self.make("1.1.1.1")
        self.ask("http://registry.test/")
        self.resolver.held = True
        sending = self.exchange.send(
            "GET", "http://public.test/", {}, Deadline.after(self.reactor, 5)
        )
        waiting = Deferred.fromCoroutine(sending)
        self.resolver.release()
        self.assertEqual(self.resolver.asked[-1:], ["public.test"])
        self.assertEqual(self.reactor.tcpClients[-1][0], "8.8.8.8")
        waiting.cancel()
        self.failureResultOf(waiting)


class ProxiedTests(DestinationsCase):
    """Behind an outgoing proxy, names are looked up over there."""

    PROXIES = ProxyRules.everywhere(OutgoingProxy("10.9.9.9", 3128))

    def test_names(self) -> None:
        """They are passed on, and nothing is looked up here."""
        self.make(proxies=self.PROXIES)
        for url in ("https://registry.test/", "http://registry.test/", "https://private.test/"):
            self.assertEqual(self.ask(url), ["10.9.9.9"])
        self.assertEqual(self.resolver.asked, [])

    def test_literals(self) -> None:
        """Addresses, and names of this machine, are judged all the same."""
        self.make(proxies=self.PROXIES, allowed=["10.0.0.0/24"])
        for scheme in ("http", "https"):
            for host in ("127.0.0.1", "169.254.169.254", "10.1.0.1", "localhost", "[::1]"):
                self.refused(f"{scheme}://{host}/")
            for host in ("8.8.8.8", "10.0.0.7"):
                self.assertEqual(self.ask(f"{scheme}://{host}/"), ["10.9.9.9"])
        self.make(proxies=self.PROXIES, upstream=HostPort("10.1.1.1", 443))
        for url in ("https://10.1.1.1/", "https://10.0.0.1/"):
            self.assertEqual(self.ask(url), ["10.9.9.9"])

    def test_exceptions(self) -> None:
        """What needs no proxy is connected to here, and judged, upstream not looked up."""
        rules = ProxyRules.from_environment(
            {"HTTPS_PROXY": "http://10.9.9.9:3128", "NO_PROXY": "private.test,public.test"}
        )
        self.make(proxies=rules, upstream=HostPort("registry.test", 443))
        self.refused("https://private.test/")
        self.assertEqual(self.ask("https://public.test/"), ["8.8.8.8"])
        self.assertEqual(self.resolver.asked, ["private.test", "public.test"])
