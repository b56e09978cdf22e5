"""Tests for regproxy.upstream.addresses."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, NoRouteError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort
from regproxy.upstream.addresses import CheckedEndpoint, Kind, Reach, check_addresses, classify
from tests.upstream.resolver import FixedResolver

HOST = HostPort("host.test", 443)
PUBLIC = Reach(public=True)
OWN = "8.8.4.4"


class ClassificationTests(SynchronousTestCase):
    """What an address is."""

    def assert_kind(self, kind: Kind, *texts: str) -> None:
        """Asserts that all of these are of one kind."""
        for text in texts:
            self.assertIs(classify(ip_address(text)), kind, text)

    def test_public(self) -> None:
        """Addresses of the internet, and those right beside the special ones."""
        self.assert_kind(Kind.PUBLIC, "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0")
        self.assert_kind(Kind.PUBLIC, "100.63.255.255", "100.128.0.0", "172.15.255.255")
        self.assert_kind(Kind.PUBLIC, "172.32.0.0", "169.253.255.255", "223.255.255.255")
        self.assert_kind(Kind.PUBLIC, "2606:4700::1111", "2a00:1450::1", "2001:4860::8888")

    def test_not_public(self) -> None:
        """Every range that means something else."""
        self.assert_kind(Kind.LOOPBACK, "127.0.0.1", "127.255.255.255", "::1")
        self.assert_kind(Kind.PRIVATE, "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1")
        self.assert_kind(Kind.PRIVATE, "100.64.0.1", "100.100.100.201", "fc00::1", "fdff::1")
        self.assert_kind(Kind.PRIVATE, "fec0::1", "64:ff9b:1::808:808")
        self.assert_kind(Kind.UNSPECIFIED, "0.0.0.0", "0.1.2.3", "::")
        self.assert_kind(Kind.MULTICAST, "224.0.0.1", "239.255.255.250", "ff02::1")
        self.assert_kind(Kind.RESERVED, "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1")
        self.assert_kind(Kind.RESERVED, "2001:db8::1", "100::1", "4000::1", "5f00::1", "3fff::1")

    def test_metadata(self) -> None:
        """The services that hand out a cloud machine's credentials."""
        self.assert_kind(Kind.LINK_LOCAL, "169.254.169.254", "fe80::a9fe:a9fe")
        self.assert_kind(Kind.METADATA, "100.100.100.200", "168.63.129.16", "192.0.0.192")
        self.assert_kind(Kind.METADATA, "fd00:ec2::254", "fd20:ce::254", "fd00:42::42")

    def test_embedded(self) -> None:
        """IPv6 forms of an IPv4 address are what it is."""
        self.assert_kind(Kind.LOOPBACK, "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::")
        self.assert_kind(Kind.LOOPBACK, "::127.0.0.1", "::ffff:0:7f00:1")
        self.assert_kind(Kind.PRIVATE, "::ffff:10.0.0.1", "2002:a00:1::1", "64:ff9b::a00:1")
        self.assert_kind(Kind.LINK_LOCAL, "::ffff:169.254.169.254", "2002:a9fe:a9fe:8000::5")
        self.assert_kind(Kind.PUBLIC, "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1")
        # No route leads there on purpose; with Teredo the address says too little.
        self.assert_kind(Kind.RESERVED, "::8.8.8.8", "::ffff:0:808:808", "2001::f7f7:f7f7")

    def test_scope(self) -> None:
        """A zone does not hide a link-local address."""
        self.assert_kind(Kind.LINK_LOCAL, "fe80::1%eth0")

    @given(st.ip_addresses(v=4, network="0.0.0.0/0"))
    def test_standard_library(self, address: Any) -> None:
        """Whatever Python holds for private, loopback and so on is never public."""
        if classify(address) is Kind.PUBLIC:
            self.assertTrue(address.is_global, address)
            self.assertFalse(address.is_multicast or address.is_reserved, address)


class CheckTests(SynchronousTestCase):
    """Which of a host's addresses are left."""

    def check(self, reach: Reach, *texts: str, host: HostPort = HOST) -> list[str]:
        """The addresses that may be connected to."""
        found = check_addresses(host, [ip_address(text) for text in texts], reach)
        return [str(address) for address in found]

    def refused(self, reach: Reach, *texts: str, host: HostPort = HOST) -> str:
        """The message of a refusal."""
        error = self.assertRaises(RegistryError, self.check, reach, *texts, host=host)
        self.assertEqual((error.status, error.code), (403, "DENIED"))
        return str(error.message)

    def test_public(self) -> None:
        """All public addresses, in their order, each once."""
        self.assertEqual(
            self.check(PUBLIC, "8.8.8.8", "2606:4700::1", "8.8.8.8"), ["8.8.8.8", "2606:4700::1"]
        )

    def test_message(self) -> None:
        """A refusal says what resolved to what, and which patterns allow it."""
        message = self.refused(PUBLIC, "10.0.0.1")
        for part in (
            "host.test, which resolves to 10.0.0.1, a private address",
            "[connect] tunnel",
            '"host.test:443" or "10.0.0.1:443"',
        ):
            self.assertIn(part, message)
        message = self.refused(PUBLIC, "fd00:ec2::254", host=HostPort("fd00:ec2::254", 80))
        self.assertIn('such as "[fd00:ec2::254]:80"', message)
        self.assertNotIn("resolves", message)

    def test_mixed(self) -> None:
        """One private address refuses the public ones too."""
        self.refused(PUBLIC, "8.8.8.8", "192.168.0.1")

    def test_mapped(self) -> None:
        """An IPv4-mapped address is the IPv4 address, for patterns and for the connection."""
        reach = Reach(networks=[ip_network("10.0.0.0/8")])
        self.assertEqual(self.check(reach, "::ffff:10.0.0.1"), ["10.0.0.1"])
        self.refused(PUBLIC, "::ffff:10.0.0.1")

    def test_named(self) -> None:
        """A host that is named is reached wherever it is."""
        self.assertEqual(self.check(Reach(named=True), "127.0.0.1", "8.8.8.8")[0], "127.0.0.1")

    def test_networks(self) -> None:
        """A network names its addresses; public ones outside are left out, others refuse all."""
        reach = Reach(networks=[ip_network("10.0.0.0/8")])
        self.assertEqual(self.check(reach, "8.8.8.8", "10.0.0.1"), ["10.0.0.1"])
        self.assertIn("resolves to 8.8.8.8", self.refused(reach, "8.8.8.8"))
        self.refused(reach, "10.0.0.1", "192.168.0.1")

    def test_nothing(self) -> None:
        """Without a rule nothing is reached."""
        self.refused(Reach(), "8.8.8.8")


class _Quiet(Factory):
    protocol = Protocol
    noisy = False


class EndpointCase(SynchronousTestCase):
    """A reactor whose connections the test makes and refuses."""

    def setUp(self) -> None:
        """Knows a few names."""
        self.reactor: Any = MemoryReactorClock()
        self.resolver = FixedResolver(
            {
                "host.test": ["8.8.8.8", "8.8.8.9", "2606:4700::1"],
                "one.test": ["8.8.8.8"],
                "private.test": ["10.0.0.1"],
                "many.test": [f"8.8.7.{number}" for number in range(200)],
            }
        )
        self.reactor.installNameResolver(self.resolver)

    def connect(
        self, host: str = "host.test", reach: Reach = PUBLIC, port: int = 443
    ) -> Deferred[IProtocol]:
        """Begins."""
        return CheckedEndpoint(self.reactor, host, port, reach, 10).connect(_Quiet())

    @property
    def tried(self) -> list[str]:
        """The addresses that were connected to so far."""
        return [attempt[0] for attempt in self.reactor.tcpClients]

    def accept(self, number: int, own: str = OWN) -> StringTransport:
        """Answers an attempt."""
        address, port, factory, _, _ = self.reactor.tcpClients[number]
        family: Any = IPv6Address if ":" in address else IPv4Address
        transport = StringTransport(family("TCP", own, 40000), family("TCP", address, port))
        factory.buildProtocol(transport.getPeer()).makeConnection(transport)
        return transport

    def refuse(self, number: int, error: Exception | None = None) -> None:
        """Fails an attempt."""
        factory, connector = self.reactor.tcpClients[number][2], self.reactor.connectors[number]
        factory.clientConnectionFailed(connector, Failure(error or ConnectionRefusedError()))

    def failure(self, connecting: Deferred[IProtocol], status: int) -> str:
        """The message of a failure, after which nothing is left to run."""
        error = self.failureResultOf(connecting, RegistryError).value
        self.assertEqual(error.status, status, error.message)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return str(error.message)


class EndpointTests(EndpointCase):
    """Connecting to what was checked."""

    def test_connects(self) -> None:
        """The name is resolved once, and its address connected to."""
        connecting = self.connect()
        self.assertNoResult(connecting)
        transport = self.accept(0)
        protocol: Any = self.successResultOf(connecting)
        self.assertIs(protocol.transport, transport)
        self.assertEqual((self.resolver.asked, self.tried), (["host.test"], ["8.8.8.8"]))
        self.assertEqual(self.reactor.tcpClients[0][1], 443)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_address(self) -> None:
        """An address is not looked up."""
        self.connect("2606:4700::1")
        self.assertEqual((self.resolver.asked, self.tried), ([], ["2606:4700::1"]))

    def test_refused(self) -> None:
        """Nothing is connected to when an address is private."""
        self.assertIn("10.0.0.1", self.failure(self.connect("private.test"), 403))
        self.failure(self.connect("::ffff:127.0.0.1"), 403)
        self.failure(self.connect("169.254.169.254"), 403)
        self.assertEqual(self.tried, [])

    def test_unknown(self) -> None:
        """A name without addresses."""
        self.assertIn(
            "unknown.test cannot be resolved", self.failure(self.connect("unknown.test"), 502)
        )

    def test_next(self) -> None:
        """The other family is next, at once when an address refuses, else after 250 ms."""
        connecting = self.connect()
        self.refuse(0)
        self.assertEqual(self.tried, ["8.8.8.8", "2606:4700::1"])
        self.reactor.advance(0.24)
        self.assertEqual(len(self.tried), 2)
        self.reactor.advance(0.01)
        self.assertEqual(self.tried[2], "8.8.8.9")
        transport = self.accept(1)
        protocol: Any = self.successResultOf(connecting)
        self.assertIs(protocol.transport, transport)
        self.assertTrue(self.reactor.connectors[2].stoppedConnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_all_fail(self) -> None:
        """The last failure is told."""
        connecting = self.connect()
        self.refuse(0)
        self.refuse(1)
        self.assertNoResult(connecting)
        self.refuse(2, NoRouteError(string="no route"))
        self.assertIn("connecting to host.test:443: ", self.failure(connecting, 502))

    def test_late_failure(self) -> None:
        """The last one to begin may fail before the first one connects."""
        connecting = self.connect()
        self.reactor.pump([0.25, 0.25])
        self.refuse(2)
        self.refuse(1)
        self.assertNoResult(connecting)
        self.accept(0)
        self.successResultOf(connecting)

    def test_bounded_attempts(self) -> None:
        """A name with hundreds of addresses does not have them all scanned."""
        connecting = self.connect("many.test")
        for number in range(8):
            self.refuse(number)
        self.failure(connecting, 502)
        self.assertEqual(len(self.tried), 8)

    def test_deadline(self) -> None:
        """One deadline for all; what runs is given up."""
        connecting = self.connect()
        self.reactor.pump([0.25] * 40)
        self.assertIn("connecting to host.test:443", self.failure(connecting, 504))
        self.assertTrue(all(each.stoppedConnecting for each in self.reactor.connectors))

    def test_slow_resolver(self) -> None:
        """The deadline covers the look-up, whose late answer leads nowhere."""
        self.resolver.held = True
        connecting = self.connect()
        self.reactor.advance(10)
        self.failure(connecting, 504)
        self.resolver.release()
        self.assertEqual(self.tried, [])

    def test_cancelled(self) -> None:
        """Whoever asked may leave, in both phases."""
        self.resolver.held = True
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting)
        self.resolver.release()
        self.assertEqual(self.tried, [])
        self.resolver.held = False
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_this_machine(self) -> None:
        """A public address that is the proxy's own is none to pass clients on to."""
        connecting = self.connect("one.test")
        transport = self.accept(0, own="8.8.8.8")
        self.assertIn("8.8.8.8, the proxy's own address", self.failure(connecting, 403))
        self.assertTrue(transport.disconnecting or transport.disconnected)

    def test_this_machine_named(self) -> None:
        """Unless it is named."""
        connecting = self.connect("10.0.0.1", Reach(networks=[ip_network("10.0.0.1")]))
        self.accept(0, own="10.0.0.1")
        self.successResultOf(connecting)
