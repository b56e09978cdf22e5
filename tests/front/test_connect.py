"""What a CONNECT leads to: the registry inside, a tunnel, or a refusal."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.front.connect import TunnelPolicy
from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort, parse_host
from regproxy.upstream.addresses import Reach
from tests.front.connecting import CONNECT_TIMEOUT, ESTABLISHED, AnyChannel, ConnectCase


class PolicyTests(SynchronousTestCase):
    """Where patterns lead."""

    def reach(self, tunnel: bool | tuple[str, ...], target: str) -> Reach:
        """What a client may reach."""
        host = parse_host(target)
        assert host.port is not None
        return TunnelPolicy.of(tunnel).reach(host, host.port)

    def assert_reach(
        self, tunnel: bool | tuple[str, ...], target: str, *, public: bool, named: bool = False
    ) -> None:
        """Asserts which addresses of the target are reached."""
        self.assertEqual(self.reach(tunnel, target), Reach(public=public, named=named))
        host = parse_host(target)
        allowed = TunnelPolicy.of(tunnel).allows(HostPort(host.name), host.port or 0)
        self.assertEqual(allowed, public or named)

    def test_false(self) -> None:
        """Nothing."""
        self.assert_reach(False, "host.test:443", public=False)
        self.assert_reach((), "host.test:443", public=False)

    def test_true(self) -> None:
        """Public hosts at the ports of the web; mail, for one, has to be named."""
        for port in (443, 80):
            self.assert_reach(True, f"host.test:{port}", public=True)
        for port in (22, 25, 465, 5000, 8443):
            self.assert_reach(True, f"host.test:{port}", public=False)

    def test_host(self) -> None:
        """A host by its name, whatever its case, at one port or all."""
        self.assert_reach(("Host.test:443",), "host.TEST.:443", public=False, named=True)
        self.assert_reach(("host.test:443",), "host.test:444", public=False)
        self.assert_reach(("host.test:443",), "other.test:443", public=False)
        self.assert_reach(("host.test:*",), "host.test:22", public=False, named=True)

    def test_wildcards(self) -> None:
        """What is below a name, and not the name itself nor what only ends like it."""
        patterns = ("*.host.test:443",)
        self.assert_reach(patterns, "a.b.host.test:443", public=True)
        self.assert_reach(patterns, "host.test:443", public=False)
        self.assert_reach(patterns, "myhost.test:443", public=False)
        self.assert_reach(("*:*",), "anything.test:25", public=True)
        self.assert_reach(("*:443",), "8.8.8.8:443", public=True)

    def test_networks(self) -> None:
        """Addresses, for every host that resolves to them."""
        patterns = ("10.0.0.0/8:443", "[fd00::/8]:443", "192.168.0.1:443", "[fe80::1]:*")
        reach = self.reach(patterns, "host.test:443")
        self.assertEqual((reach.public, reach.named), (False, False))
        self.assertEqual(
            [str(network) for network in reach.networks],
            ["10.0.0.0/8", "fd00::/8", "192.168.0.1/32", "fe80::1/128"],
        )
        self.assertEqual(len(self.reach(patterns, "host.test:80").networks), 1)

    def test_together(self) -> None:
        """Patterns add up."""
        self.assert_reach(("*:443", "git.test:443"), "git.test:443", public=True, named=True)


class TargetTests(ConnectCase):
    """What is refused."""

    def test_nonsense(self) -> None:
        """What is no host and port."""
        for target in (
            "",
            "/",
            "host",
            "host:0",
            "host:65536",
            "host:http",
            "a b:1",
            "[::1",
            "::1",
        ):
            connecting = self.proxy.connect(AnyChannel(), target, Headers())
            error = self.failureResultOf(connecting, RegistryError).value
            self.assertEqual(error.status, 400, target)

    def test_without_port(self) -> None:
        """A target has a port, also that of a registry."""
        self.connect("quay.test")
        self.assertIn("quay.test:443", self.refused(400, "UNSUPPORTED"))

    def test_not_allowed(self) -> None:
        """The refusal names the key and a pattern."""
        self.connect("host.test:25")
        message = self.refused(403, "DENIED")
        self.assertIn("[connect] tunnel", message)
        self.assertIn('"host.test:25"', message)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_private(self) -> None:
        """A name that leads inside, which a wildcard does not mean."""
        self.connect("inside.test:443")
        self.assertIn("10.0.0.2, a private address", self.refused(403, "DENIED"))
        self.assertEqual(self.reactor.tcpClients, [])

    def test_metadata(self) -> None:
        """Addresses are no way around it."""
        for target in ("169.254.169.254:443", "[::ffff:127.0.0.1]:443", "[fd00:ec2::254]:443"):
            connecting = self.proxy.connect(AnyChannel(), target, Headers())
            error = self.failureResultOf(connecting, RegistryError).value
            self.assertEqual((error.status, error.code), (403, "DENIED"), target)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_port_of_a_registry(self) -> None:
        """A registry at one port does not answer for others of its host."""
        self.connect("port.test:443")
        self.refused(502, "UNKNOWN")

    def test_unreachable(self) -> None:
        """502 says what failed."""
        self.connect("host.test:443")
        factory, connector = self.reactor.tcpClients[0][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.settle()
        self.assertIn("connecting to host.test:443", self.refused(502, "UNKNOWN"))

    def test_too_slow(self) -> None:
        """504 at the deadline."""
        self.connect("host.test:443")
        self.reactor.advance(CONNECT_TIMEOUT)
        self.settle()
        self.refused(504, "UNKNOWN")
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)


class ForbiddenTests(ConnectCase):
    """The default."""

    tunnel = False

    def test_refused(self) -> None:
        """No open relay, and nothing is looked up."""
        self.connect("host.test:443")
        self.refused(403, "DENIED")
        self.assertEqual(self.reactor.nameResolver.asked, [])


class TunnelTests(ConnectCase):
    """Hosts that are no registry."""

    def test_passes(self) -> None:
        """Bytes go through, early ones too; one line in the log says how many."""
        self.connect("host.test:443", b"early")
        self.client.send(b" and late")
        self.settle()
        self.assertEqual(self.client.received, b"")
        self.reactor.advance(1.5)
        target = self.accept()
        self.assertEqual(self.client.received, ESTABLISHED)
        self.assertEqual(target.received, b"early and late")
        self.assertEqual(self.connections.active, 1)
        target.send(b"answer")
        self.settle()
        self.assertEqual(self.client.received, ESTABLISHED + b"answer")
        self.client.finish()
        self.settle()
        self.assertTrue(target.finished)
        target.finish()
        self.settle()
        (entry,) = self.log
        self.assertEqual((entry.method, entry.way, entry.status), ("CONNECT", "connect", 200))
        self.assertEqual((entry.reference, entry.client), ("host.test:443", "8.8.4.4"))
        self.assertEqual((entry.received, entry.sent, entry.seconds), (14, 6, 1.5))
        self.assertEqual(entry.note, "")
        self.assert_quiet()

    def test_named(self) -> None:
        """A host that is named, and a network, may be private."""
        self.connect("git.test:22")
        target = self.accept()
        self.assertEqual(target.transport.getPeer(), IPv4Address("TCP", "10.0.0.1", 22))
        self.assertEqual(self.client.received, ESTABLISHED)

    def test_network(self) -> None:
        """The same for a host that resolves into a network that is named."""
        self.connect("lab.test:443")
        self.assertEqual(self.accept().transport.getPeer().host, "172.16.0.9")

    def test_client_leaves_before(self) -> None:
        """Nothing is connected for a client that has left."""
        self.connect("host.test:443")
        self.client.transport.hang_up(ConnectionDone())
        self.settle()
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assert_quiet()

    def test_target_leaves_at_once(self) -> None:
        """The client is told, and hung up on."""
        self.connect("host.test:443")
        target = self.accept()
        target.transport.hang_up(ConnectionDone())
        self.settle()
        self.assertEqual(self.client.received, ESTABLISHED)
        self.assertIsNotNone(self.client.closed)
        self.assertEqual(len(self.log), 1)
        self.assert_quiet()

    def test_flood(self) -> None:
        """A client that sends much before it is connected is not read for ever."""
        self.connect("host.test:443")
        for _ in range(10):
            self.client.send(b"x" * 65_536)
        self.settle()
        self.assertFalse(self.client.transport.reading)
        self.assertEqual(len(self.accept().received), 655_360)

    def test_drain(self) -> None:
        """Tunnels go with all other connections."""
        self.connect("host.test:443")
        target = self.accept()
        self.connections.abort_all()
        self.settle()
        self.assertTrue(self.client.aborted)
        self.assertTrue(target.aborted)
        self.assert_quiet()
