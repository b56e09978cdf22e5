"""CONNECT, the forward proxy, and requests for hosts: curl, skopeo, and bare sockets."""

from __future__ import annotations

import json
import socket
import threading
import time

from attrs import evolve

from tests.real.case import RealCase
from tests.real.certificates import Certificates
from tests.real.clients import curl
from tests.real.images import ACCEPT, sha256
from tests.real.library import library
from tests.real.machine import PROXY_ADDRESS
from tests.real.machine_case import MachineCase
from tests.real.processes import CommandFailed, free_port
from tests.real.proxy import Proxy, Settings, counted
from tests.real.rawhttp import fetch
from tests.real.scripted import ScriptedHost

PRIVATE = "registry-a.test"
_SECONDS = 20.0


class ProxyingCase(RealCase):
    """A regproxy with a listener whose certificates are its own authority's."""

    def start(self, settings: Settings) -> Proxy:
        """Starts one, and fetches its authority."""
        self.minted_port = free_port()
        endpoint = f"tcp:{self.minted_port}:interface=127.0.0.1"
        listeners = [{"endpoint": endpoint, "tls": True}]
        proxy = self.start_proxy(evolve(settings, listeners=listeners))
        self.authority = self.directory / "ca.crt"
        self.authority.write_bytes(fetch(f"{proxy.url}/ca.crt").body)
        return proxy

    def start_host(self, name: str, certificates: Certificates | None = None) -> ScriptedHost:
        """A host that says what it was asked."""
        host = ScriptedHost(name, certificates)
        self.addCleanup(host.stop)
        return host

    def minted(self, host: str, path: str) -> tuple[str, ...]:
        """What has curl ask the minting listener for a host by name."""
        where = f"{host}:{self.minted_port}"
        resolve = ("--resolve", f"{where}:127.0.0.1")
        return ("--cacert", str(self.authority), *resolve, f"https://{where}{path}")


class TunnelTests(ProxyingCase):
    """Hosts that are no registry."""

    def setUp(self) -> None:
        """Starts a host to which tunnels are allowed, and one that only a wildcard matches."""
        super().setUp()
        certificates = Certificates.make(self.directory / "hosts")
        self.allowed = self.start_host("allowed", certificates)
        self.plain = self.start_host("plain")
        self.hidden = self.start_host("hidden", certificates)
        self.sink = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.sink.close)
        sink_port = self.sink.getsockname()[1]
        patterns = [f"127.0.0.1:{port}" for port in (self.allowed.port, self.plain.port, sink_port)]
        patterns += [f"localhost:{self.allowed.port}", f"*:{self.hidden.port}"]
        self.proxy = self.start(
            Settings(
                {PRIVATE: "http://127.0.0.1:1"},
                default_registry=PRIVATE,
                tables={"connect": {"tunnel": patterns}},
            )
        )
        self.trust = ("--cacert", str(self.allowed.trusted))

    def test_tunnel(self) -> None:
        """TLS goes through to the host, from either listener; the log counts bytes."""
        own = ("--proxy-cacert", str(self.proxy.certificates.authority))
        for proxy in (("--proxy", self.proxy.url), ("--proxy", self.proxy.tls_url, *own)):
            for name in ("127.0.0.1", "localhost"):
                got = curl(*proxy, *self.trust, f"https://{name}:{self.allowed.port}/x?y")
                wanted = (0, 200, 200, "allowed: GET /x?y")
                self.assertEqual(
                    (got.exit_status, got.status, got.connect_status, got.body), wanted
                )
        log = self.tunnels()
        for line in log:
            self.assertEqual(line["status"], "200")
            self.assertEqual((line["way"], line["registry"]), ("connect", "-"))
            self.assertGreater(int(line["bytes"]), 500)
            self.assertGreater(int(line["received"]), 200)
        self.assertEqual(
            [line["reference"] for line in log],
            [f"{name}:{self.allowed.port}" for name in ("127.0.0.1", "localhost")] * 2,
        )

    def test_refused(self) -> None:
        """No pattern names it: 403, and the message says which key would."""
        other = free_port()
        for host in (f"127.0.0.1:{other}", "made-up.test:443", "169.254.169.254:80"):
            got = curl("--proxy", self.proxy.url, f"https://{host}/")
            self.assertEqual((got.exit_status, got.connect_status), (56, 403), got)
            self.assertIn("403", got.error)
            answer = self.converse(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assertIn(b"HTTP/1.1 403 ", answer)
            self.assertIn("[connect] tunnel", _message(answer))

    def test_wildcard(self) -> None:
        """A wildcard leads to no loopback address, by name or as an address."""
        for name in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            got = curl("--proxy", self.proxy.url, "-k", f"https://{name}:{self.hidden.port}/")
            self.assertEqual((got.exit_status, got.connect_status), (56, 403), got)
        forward = f"http://localhost:{self.hidden.port}/"
        self.assertEqual(curl("--proxy", self.proxy.url, forward).status, 403)
        self.assertEqual(self.hidden.asked, [])

    def test_half_close(self) -> None:
        """A client that has said all it wants to say still gets the answer, and all of it."""
        size, reply = 3_000_000, b"z" * 2_000_000
        heard: list[int] = []

        def listen() -> None:
            connection, _ = self.sink.accept()
            with connection:
                heard.append(sum(map(len, iter(lambda: connection.recv(65536), b""))))
                connection.sendall(reply)

        thread = threading.Thread(target=listen)
        thread.start()
        host = f"127.0.0.1:{self.sink.getsockname()[1]}".encode()
        connect = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (host, host)
        # What comes right behind the CONNECT belongs to the tunnel.
        answer = self.converse(connect + bytes(size), half_close=True)
        thread.join(_SECONDS)
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        self.assertEqual((heard, body == reply), ([size], True))
        (line,) = self.tunnels()
        self.assertEqual((line["received"], line["bytes"]), (str(size), str(len(reply))))

    def test_forward(self) -> None:
        """A whole URL is asked of its host, by the same patterns, as a proxy should ask."""
        url = f"http://127.0.0.1:{self.plain.port}/x?y"
        got = curl("--proxy", self.proxy.url, "-H", "Connection: X-Own", "-H", "X-Own: 1", url)
        self.assertEqual((got.status, got.body), (200, "plain: GET /x?y"))
        (asked,) = self.plain.asked
        self.assertEqual(asked.headers["host"], f"127.0.0.1:{self.plain.port}")
        self.assertIn("regproxy", asked.headers["via"])
        self.assertEqual(asked.headers.keys() & {"x-own", "proxy-connection"}, set())
        got = curl("--proxy", self.proxy.url, "http://made-up.test/")
        self.assertEqual(got.status, 403)
        self.assertIn("[connect] tunnel", _message(got.body.encode()))
        # The proxy itself may be asked through itself.
        own = curl("--proxy", self.proxy.url, f"{self.proxy.url}/healthz")
        self.assertEqual((own.status, own.body), (200, "ok\n"))

    def tunnels(self) -> list[dict[str, str]]:
        """The log's lines about them."""
        return [line for line in self.proxy.access_log() if line["method"] == "CONNECT"]

    def converse(self, request: bytes, *, half_close: bool = False) -> bytes:
        """Sends bytes to the plain listener, and reads until the end or a whole refusal."""
        address = ("127.0.0.1", self.proxy.port)
        with socket.create_connection(address, timeout=_SECONDS) as connection:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(1 << 20):
                received += piece
                if not half_close and received.endswith(b"]}"):
                    break
            return received


class HostTests(ProxyingCase):
    """Registries by their hosts."""

    def setUp(self) -> None:
        """Starts one that is a registry, and two whose upstream says what it is asked."""
        super().setUp()
        self.registry = self.start_registry()
        self.web = self.start_host("web")
        pinned = f"http://made-up.test:{self.registry.port}"
        self.proxy = self.start(
            Settings(
                {
                    PRIVATE: self.registry.url,
                    "web.test": self.web.url,
                    "closed.test": self.web.url.replace("127.0.0.1", "localhost"),
                    "pinned.test": pinned,
                },
                default_registry=PRIVATE,
                keys={"names": ["proxy.test"]},
                registry_keys={
                    "closed.test": {"other_requests": "deny"},
                    "pinned.test": {"resolve": ["127.0.0.1"]},
                },
            )
        )

    def ask(self, host: str, path: str, *arguments: str) -> tuple[int, str]:
        """Status and body of a plain request for a host."""
        got = curl("-H", f"Host: {host}", *arguments, f"{self.proxy.url}{path}")
        return got.status, got.body

    def test_authority(self) -> None:
        """Both endpoints give one authority; what it signs convinces, for names and addresses."""
        admin = fetch(f"{self.proxy.admin_url}/ca.crt").body
        self.assertEqual(self.authority.read_bytes(), admin)
        self.assertEqual(self.ask("proxy.test", "/ca.crt"), (200, admin.decode()))
        for name in ("proxy.test", PRIVATE, "docker.proxy", "127.0.0.1"):
            got = curl(*self.minted(name, "/v2/"))
            self.assertEqual((got.exit_status, got.status, got.body), (0, 200, "{}"), name)
        got = curl(*self.minted("evil.test", "/v2/"))
        self.assertEqual((got.exit_status, got.status), (35, 0), got)

    def test_misdirected(self) -> None:
        """The name in TLS and the Host mean different registries: 421; a port is no difference."""
        for host, status in (("web.test", 421), (PRIVATE, 200), (f"{PRIVATE.upper()}.:443", 200)):
            got = curl("-H", f"Host: {host}", *self.minted(PRIVATE, "/v2/"))
            self.assertEqual((got.exit_status, got.status), (0, status), host)
        proxy = ("--proxy", self.proxy.url, "--cacert", str(self.authority))
        got = curl(*proxy, "-H", "Host: web.test", f"https://{PRIVATE}/v2/")
        self.assertEqual((got.connect_status, got.status), (200, 421))

    def test_tls_to_the_proxy(self) -> None:
        """TLS inside TLS: a client may ask the TLS listener for the CONNECT, too."""
        shown = ("--proxy-cacert", str(self.proxy.certificates.authority))
        proxy = ("--proxy", self.proxy.tls_url, *shown, "--cacert", str(self.authority))
        blob = library().images["medium"].layers[1].blob
        out = self.directory / "blob"
        got = curl(*proxy, "-o", str(out), f"https://{PRIVATE}/v2/team/app/blobs/{blob.digest}")
        self.assertEqual((got.connect_status, got.status), (200, 200), got)
        self.assertEqual(sha256(out.read_bytes()), blob.digest)

    def test_plain_inside_connect(self) -> None:
        """A registry is spoken to in TLS inside a CONNECT: what is not is told so."""
        got = curl("--proxytunnel", "--proxy", self.proxy.url, f"http://{PRIVATE}/v2/")
        self.assertEqual(got.status, 400)
        self.assertIn("expected TLS", _message(got.body.encode()))

    def test_other_requests(self) -> None:
        """What is no image is the host's own to answer, unless the operator does not want that."""
        self.assertEqual(self.ask("web.test", "/team/app?x=1"), (200, "web: GET /team/app?x=1"))
        self.assertEqual(self.ask("web.test", "/healthz"), (200, "web: GET /healthz"))
        self.assertEqual(self.ask("web.test", "/v1/search?q=a"), (200, "web: GET /v1/search?q=a"))
        self.assertEqual(self.ask("web.test", "/v1/users/")[0], 404)
        for path in ("/team/app", "/v1/search?q=a"):
            status, body = self.ask("closed.test", path)
            self.assertEqual(status, 403)
            self.assertIn('other_requests = "deny"', _message(body.encode()))
        asked = [each.line for each in self.web.asked]
        self.assertEqual(asked, ["GET /team/app?x=1", "GET /healthz", "GET /v1/search?q=a"])
        self.assertEqual(counted(self.proxy.access_log())["RELAY"], 3)

    def test_forward(self) -> None:
        """A registry without TLS, with HTTP_PROXY: its name in a URL brings what is stored."""
        variables = {"HTTP_PROXY": self.proxy.url}
        skopeo = evolve(self.skopeo(), variables=variables)
        image = library().images["small"]
        for _ in range(2):
            self.assert_pulled(skopeo.pull(f"{PRIVATE}/team/app:small"), image)
            self.proxy.wait_for_fills()
            self.registry.process.stop()
        log = [line for line in self.proxy.access_log() if line["cache"] != "-"]
        self.assertEqual({line["way"] for line in log}, {"forward"})
        self.assertEqual(set(counted(log)), {"MISS", "HIT"})
        # The upstream's own host means the registry, too.
        url = f"{self.registry.url}/v2/team/app/manifests/small"
        got = curl("--proxy", self.proxy.url, "-H", f"Accept: {ACCEPT['Accept']}", url)
        self.assertEqual((got.status, got.body), (200, image.data.decode()))

    def test_pinned(self) -> None:
        """An upstream whose name leads nowhere is asked at the addresses that resolve names."""
        image = library().images["small"]
        name = f"{self.proxy.host}/pinned.test/team/app:small"
        self.assert_pulled(self.skopeo().pull(name), image)
        # A second time by name: DNS that a client believes has no part in it.
        hub = curl("--proxy", self.proxy.url, f"http://made-up.test:{self.registry.port}/v2/")
        self.assertEqual((hub.status, hub.body), (200, "{}"))


class SearchTests(MachineCase):
    """``docker search``, which asks a registry's host under ``/v1/``."""

    def test_search(self) -> None:
        """What the registry found is what docker shows."""
        found = {"name": "team/found", "description": "by its host", "star_count": 3}
        web = ScriptedHost("web", says=json.dumps({"num_results": 1, "results": [found]}))
        self.addCleanup(web.stop)
        self.start_named_proxy(
            ({"endpoint": "tcp:80"}, {"endpoint": "tcp:443", "tls": True}),
            registries={"find.test": web.url},
        )
        self.machine.know(f"{PROXY_ADDRESS} find.test\n")
        self.trust("interception")
        self.start_docker(machine=self.machine)
        socket_file = self.directory / "docker/sock"
        printed = self.machine.run(f"docker --host=unix://{socket_file} search find.test/found")
        self.assertIn("by its host", printed)
        self.assertEqual([asked.line.partition("?")[0] for asked in web.asked], ["GET /v1/search"])


class LoopTests(ProxyingCase):
    """A registry whose upstream's name leads back to the proxy."""

    def test_loop(self) -> None:
        """The second time round is refused with 508, and the client is told so within seconds."""
        port = free_port()
        proxy = self.start_proxy(
            Settings(
                {"loop.test": f"http://127.0.0.1:{port}"},
                default_registry="loop.test",
                listeners=[{"endpoint": f"tcp:{port}:interface=127.0.0.1"}],
                registry_keys={"loop.test": {"push": "relay"}},
            )
        )
        started = time.monotonic()
        failure = self.assertRaises(
            CommandFailed, self.skopeo().pull, f"{proxy.host}/loop.test/team/app:small"
        )
        self.assertLess(time.monotonic() - started, 5.0)
        self.assertIn("502 Bad Gateway", str(failure))
        base = f"{proxy.url}/v2/loop.test/team/app"
        blob = library().images["small"].layers[0].blob
        for path in ("manifests/small", f"blobs/{blob.digest}", "tags/list"):
            answer = fetch(f"{base}/{path}")
            self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"), path)
            self.assertIn("has been here before", _message(answer.body))
        pushed = curl("-X", "POST", f"{base}/blobs/uploads/")
        self.assertEqual(pushed.status, 508)
        statuses = {line["status"] for line in proxy.access_log() if line["way"] == "-"}
        self.assertEqual(statuses, {"508"})


def _message(answer: bytes) -> str:
    """The message of an OCI error."""
    return str(json.loads(answer.partition(b"\r\n\r\n")[2] or answer)["errors"][0]["message"])
