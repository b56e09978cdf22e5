"""Where connections come from and go to: IPv6 on both sides, and balancers that tell whence."""

from __future__ import annotations

import socket

from regproxy.model.mediatypes import DOCKER_MANIFEST
from tests.real.case import RealCase
from tests.real.library import library
from tests.real.processes import free_port
from tests.real.proxy import Settings, words
from tests.real.rawhttp import fetch
from tests.real.registries import Registry


class SixTests(RealCase):
    """IPv6 from end to end."""

    def test_pull(self) -> None:
        """Clients, the proxy and its upstream talk over IPv6; the log has the client's address."""
        registry = Registry.start(self.directory / "six", library().storage, host="::1")
        self.addCleanup(registry.process.stop)
        port = free_port()
        proxy = self.start_proxy(
            Settings(
                {"registry-a.test": registry.url},
                default_registry="registry-a.test",
                listeners=[{"endpoint": rf"tcp6:{port}:interface=\:\:1"}],
            )
        )
        # No client here reads an image's name that begins with an address in brackets.
        blob = library().images["small"].layers[0].blob
        url = f"http://[::1]:{port}/v2/registry-a.test/team/app"
        for word in ("MISS", "HIT"):
            manifest = fetch(f"{url}/manifests/small", headers={"Accept": DOCKER_MANIFEST})
            self.assertEqual(manifest.status, 200)
            layer = fetch(f"{url}/blobs/{blob.digest}")
            self.assertEqual((layer.status, layer.digest), (200, blob.digest))
            proxy.wait_for_fills()
            log = proxy.access_log()[-2:]
            self.assertEqual({line["client"] for line in log}, {"::1"})
            self.assertEqual(words(log), [word, word])
            registry.process.stop()


class BalancerTests(RealCase):
    """A load balancer that speaks the PROXY protocol."""

    def test_client_address(self) -> None:
        """The log has the address of the client behind the balancer, on plain and TLS listeners."""
        port = free_port()
        registry = self.start_registry()
        proxy = self.start_proxy_for(
            registry, listeners=[{"endpoint": f"haproxy:tcp:{port}:interface=127.0.0.1"}]
        )
        blob = library().images["small"].layers[0].blob
        path = f"/v2/registry-a.test/team/app/blobs/{blob.digest}"
        for source in ("TCP4 192.0.2.9 192.0.2.1", "TCP6 2001:db8::9 2001:db8::1"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(
                    f"PROXY {source} 40000 5000\r\nGET {path} HTTP/1.1\r\nHost: proxy\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
            self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer[:200])
            self.assertTrue(answer.endswith(b"\r\n\r\n" + answer[-blob.size :]))
            proxy.wait_for_fills()
        clients = [line["client"] for line in proxy.access_log()]
        self.assertEqual(clients, ["192.0.2.9", "2001:db8::9"])

    def test_no_header(self) -> None:
        """Who does not say for whom it asks is hung up on; the process lives on."""
        port = free_port()
        proxy = self.start_proxy_for(
            self.start_registry(),
            listeners=[{"endpoint": f"haproxy:tcp:{port}:interface=127.0.0.1"}],
        )
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: proxy\r\n\r\n")
            self.assertEqual(connection.recv(100), b"")
        self.assertEqual(fetch(f"{proxy.url}/v2/").status, 200)
