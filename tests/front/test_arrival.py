"""Tests of how requests reach the proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.front.arrival import Arrival, arrive
from regproxy.model.errors import RegistryError
from regproxy.model.hosts import HostPort
from regproxy.model.route import Reached, WayIn

HERE = IPv4Address("TCP", "192.0.2.1", 5000)


@define
class Hosts:
    """Two registries, one of them once more behind another port, and a name of the proxy's."""

    default_registry: str = "docker.io"

    def find(self, name: str) -> str | None:
        """See RegistryLookup."""
        raise AssertionError(name)

    def known(self) -> Sequence[str]:
        """See RegistryLookup."""
        raise AssertionError

    def hosted(self, host: HostPort) -> str | None:
        """See HostLookup."""
        if host.name == "quay.io":
            return "quay.io"
        known = ("registry.corp:5000", "registry.corp:5001")
        return str(host) if str(host) in known else None

    def is_own(self, host: HostPort) -> bool:
        """See HostLookup."""
        return host.name == "proxy.corp"


@define
class Channel:
    """What a connection knows."""

    connect_target: HostPort | None = None
    server_name: str | None = None
    address: Any = HERE
    arrived: Any = None

    def getHost(self) -> Any:
        """See ITransport."""
        return self.address


class Asked:
    """A request."""

    def __init__(self, uri: str, host: str | None, channel: Channel, *, secure: bool) -> None:
        self.uri = uri.encode("latin-1")
        self.requestHeaders = Headers({} if host is None else {"Host": [host]})
        self.channel = channel
        self.secure = secure

    def isSecure(self) -> bool:
        """See Request."""
        return self.secure


class ArrivalTests(SynchronousTestCase):
    """The way that each kind of request took."""

    def arrive(
        self,
        uri: str,
        host: str | None = None,
        *,
        tunnel: HostPort | None = None,
        name: str | None = None,
        secure: bool = False,
        address: Any = HERE,
    ) -> Arrival:
        """How a request arrives."""
        channel = Channel(tunnel, name, address)
        return arrive(cast(Any, Asked(uri, host, channel, secure=secure)), Hosts())

    def refused(self, status: int, *args: Any, **more: Any) -> None:
        """Asserts that a request is refused."""
        with self.assertRaises(RegistryError, msg=args) as caught:
            self.arrive(*args, **more)
        self.assertEqual(caught.exception.status, status, args)

    def test_no_registry(self) -> None:
        """Any other host is the proxy; without one its address stands for it."""
        for host, address, origin in [
            ("proxy:5000", HERE, "http://proxy:5000"),
            ("Proxy.:5000", HERE, "http://proxy:5000"),
            ("192.0.2.1:5000", HERE, "http://192.0.2.1:5000"),
            ("[2001:DB8::0]", HERE, "http://[2001:db8::]"),
            (None, HERE, "http://192.0.2.1:5000"),
            ("", HERE, "http://192.0.2.1:5000"),
            (None, IPv6Address("TCP", "2001:db8::1", 80), "http://[2001:db8::1]:80"),
            (None, UNIXAddress("/run/s"), "http://localhost"),
        ]:
            found = self.arrive("/v2/?a=b", host, address=address)
            self.assertEqual(found, Arrival(origin, "/v2/?a=b"))
        found = self.arrive("/v2/", "proxy.corp", name="proxy.corp", secure=True)
        self.assertEqual(found, Arrival("https://proxy.corp", "/v2/"))

    def test_interception(self) -> None:
        """A registry's host means the registry, by its ports too."""
        for host, registry in [
            ("quay.io", "quay.io"),
            ("QUAY.IO.:443", "quay.io"),
            ("registry.corp:5001", "registry.corp:5001"),
        ]:
            found = self.arrive("/v2/", host)
            self.assertEqual(found.reached, Reached(WayIn.INTERCEPTION, registry))
        self.assertIsNone(self.arrive("/v2/", "registry.corp:5002").reached)

    def test_forward(self) -> None:
        """A whole URL comes before the Host; what is neither registry nor proxy is foreign."""
        found = self.arrive("http://Quay.io/v2/?n=1", "elsewhere")
        reached = Reached(WayIn.FORWARD, "quay.io")
        self.assertEqual(found, Arrival("http://quay.io", "/v2/?n=1", reached))
        found = self.arrive("HTTP://example.com:8080?x")
        origin = "http://example.com:8080"
        self.assertEqual(found, Arrival(origin, "/?x", None, HostPort("example.com", 8080)))
        for own in ("proxy.corp", "proxy.corp:5000", "192.0.2.1:5000"):
            found = self.arrive(f"http://{own}/ca.crt", own)
            self.assertEqual(found, Arrival(f"http://{own}", "/ca.crt"))
        for uri in (
            "https://example.com/",
            "http://",
            "http:///v2/",
            "http://user@quay.io/",
            "http://a b/",
            "http://127.1/",
        ):
            self.refused(400, uri, "x")

    def test_tunnel(self) -> None:
        """Inside a CONNECT its target decides; a Host that means another one is refused."""
        corp = HostPort("registry.corp", 5000)
        for host in ("registry.corp:5000", "registry.corp"):
            found = self.arrive("/v2/", host, tunnel=corp, secure=True)
            self.assertEqual(found.reached, Reached(WayIn.CONNECT, "registry.corp:5000"))
            self.assertEqual(found.origin, f"https://{host}")
        for host in ("registry.corp:5001", "quay.io", "proxy.corp"):
            self.refused(421, "/v2/", host, tunnel=corp, secure=True)
        self.refused(421, "/v2/", "registry.corp:5000", tunnel=corp, name="quay.io", secure=True)

    def test_server_name(self) -> None:
        """The name in a ClientHello must not mean another registry than the Host."""
        for host in ("quay.io", "quay.io:8443", "registry.corp:5000"):
            name = host.partition(":")[0]
            found = self.arrive("/v2/", host, name=name, secure=True)
            self.assertIsNotNone(found.reached)
        self.assertIsNone(self.arrive("/", "localhost", name="proxy.corp", secure=True).reached)
        for name, host in [("quay.io", "proxy.corp"), ("proxy.corp", "quay.io")]:
            self.refused(421, "/v2/", host, name=name, secure=True)

    def test_again(self) -> None:
        """A further request on the connection is judged by its own Host and target."""
        channel = Channel()
        for uri, host, expected in [
            ("/v2/a", "quay.io", "http://quay.io /v2/a quay.io"),
            ("/v2/b", "quay.io", "http://quay.io /v2/b quay.io"),
            ("http://registry.corp:5001/x", "quay.io", "http://registry.corp:5001 /x"),
            ("/v2/c", "quay.io", "http://quay.io /v2/c quay.io"),
            ("/v2/c", "proxy.corp", "http://proxy.corp /v2/c"),
            ("/v2/c", "quay.io", "http://quay.io /v2/c quay.io"),
            ("/v2/c", None, "http://192.0.2.1:5000 /v2/c"),
        ]:
            found = arrive(cast(Any, Asked(uri, host, channel, secure=False)), Hosts())
            said = f"{found.origin} {found.target}"
            if found.reached is not None and found.reached.way is WayIn.INTERCEPTION:
                said += f" {found.reached.registry}"
            self.assertEqual(said, expected)

    def test_no_host(self) -> None:
        """Who names no host inside a connection is taken at the connection's word."""
        corp = HostPort("registry.corp", 5000)
        for host in (None, ""):
            found = self.arrive("/v2/", host, tunnel=corp, secure=True)
            self.assertEqual(found.reached, Reached(WayIn.CONNECT, "registry.corp:5000"))
            found = self.arrive("/v2/", host, name="quay.io", secure=True)
            self.assertEqual(found.reached, Reached(WayIn.INTERCEPTION, "quay.io"))

    def test_trailing_dot(self) -> None:
        """A trailing dot is no difference, in a ClientHello either."""
        for host in ("quay.io", "quay.io."):
            found = self.arrive("/v2/", host, name="quay.io.", secure=True)
            self.assertIsNotNone(found.reached)

    def test_malformed(self) -> None:
        """A Host that is none is refused."""
        for host in ("a b", "quay.io/v2", "a,b", "quay.io:99999", "x\xe9", "user@quay.io"):
            self.refused(400, "/v2/", host)

    def test_neither_path_nor_url(self) -> None:
        """A target that would become a part of upstream's host is refused."""
        for uri in ("@evil.test/", ":80/", ".evil.test/", "v2/", "?x", "#x", "http:/v2/", "*"):
            for host in ("quay.io", "proxy.corp", None):
                self.refused(400, uri, host)
