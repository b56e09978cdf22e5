"""Clients that mean harm: every one gets a clear answer or a clean close, and leaves no trace."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.real.case import RealCase
from tests.real.nonsense import CHUNKED, CHUNKS, HOST, NO_HOSTS, NO_TARGETS, PRIVATE, SHAPES
from tests.real.processes import free_port, wait_until
from tests.real.proxy import Proxy, Settings
from tests.real.rawhttp import fetch
from tests.real.rawsockets import (
    TlsClient,
    connect,
    descriptors,
    exchange,
    read,
    read_head,
    resident,
    statuses,
    tunnel,
)

_PULL_ONLY = "registry-b.test"
_CONNECT = tunnel(f"{HOST}:443")
_GET = f"GET /v2/ HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
_START = f"POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: {HOST}\r\n".encode()
_HIDDEN = f"GET /v2/team/hidden/tags/list HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
_HELLO_BEGUN = b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc"
"""The first bytes of a ClientHello of 4 KiB."""
_MIB = 1 << 20

# Pooled connections to upstream stay open for a while.
_KEPT_DESCRIPTORS = 8
_KEPT_KIB = 24 * 1024


class HostileCase(RealCase):
    """A regproxy with short deadlines, its default rules, and a registry that takes pushes."""

    tables: Mapping[str, Mapping[str, object]] = {}

    def setUp(self) -> None:
        """Starts them."""
        super().setUp()
        self.registry = self.start_registry(storage=self.directory / "storage")
        self.tls_port = free_port()
        deadlines = ("request_headers", "idle", "silence", "write_stall")
        self.proxy = self.start_proxy(
            Settings(
                {HOST: self.registry.url, _PULL_ONLY: "http://127.0.0.1:9"},
                default_registry=HOST,
                keys={"names": ["proxy.test"]},
                tables=self.tables,
                timeouts=dict.fromkeys(deadlines, "2s"),
                registry_keys={HOST: {"push": "relay"}},
                listeners=[
                    {"endpoint": f"tcp:{self.tls_port}:interface=127.0.0.1", "tls": True},
                ],
            )
        )
        self.assertEqual(fetch(f"{self.proxy.url}/v2/").status, 200)
        self.before = descriptors(self.pid), resident(self.pid)

    @property
    def pid(self) -> int:
        """The proxy's."""
        return self.proxy.process.pid

    def assert_unharmed(self) -> None:
        """The process serves others, and holds no more than before."""
        before, memory = self.before
        self.assertEqual(fetch(f"{self.proxy.url}/v2/").status, 200)
        wait_until(
            lambda: descriptors(self.pid) <= before + _KEPT_DESCRIPTORS,
            10.0,
            f"{descriptors(self.pid)} descriptors to become {before}",
        )
        self.assertLess(resident(self.pid), memory + _KEPT_KIB)

    def assert_never_asked(self, word: str) -> None:
        """Upstream has not seen a request with a word in its target."""
        targets = [request.target for request in self.registry.requests()]
        self.assertEqual([target for target in targets if word in target], [])


class RelayTests(HostileCase):
    """Nobody is passed on to where the operator has not said."""

    def test_connect_to_nonsense(self) -> None:
        """A target that is none is refused, and nothing is connected."""
        for target in NO_TARGETS:
            request = f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1")
            self.assertEqual(statuses(exchange(self.proxy.port, request)), [400], target[:80])
        self.assert_unharmed()

    def test_default(self) -> None:
        """By default nothing but the registries is reached, the proxy's own ports included."""
        ports = (self.proxy.admin_port, self.proxy.port, 443, 80)
        self.assert_refused(self.proxy, [(host, port) for host in PRIVATE for port in ports])
        self.assert_refused(self.proxy, [("example.com", 443), ("192.0.2.1", 80)])
        self.assert_unharmed()

    def test_not_a_path(self) -> None:
        """A target that is no path does not become a part of upstream's host."""
        admin = f"127.0.0.1:{self.proxy.admin_port}/healthz"
        for target in (f"@{admin}", f"x@{admin}", ":80/v2/", ".test/", "v2/", f"http:{admin}"):
            for method in ("GET", "POST"):
                request = f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
                self.assertEqual(statuses(exchange(self.proxy.port, request.encode())), [400])
        self.assertEqual(self.registry.requests(), [])

    def assert_refused(self, proxy: Proxy, targets: list[tuple[str, int]]) -> None:
        """Neither CONNECT nor a whole URL leads there."""
        for host, port in targets:
            answer = exchange(proxy.port, tunnel(f"{host}:{port}"))
            self.assertEqual(statuses(answer), [403], (host, port))
            if (host, port) == ("127.0.0.1", proxy.port):
                # This is the proxy itself.
                continue
            answer = exchange(proxy.port, whole_url(f"{host}:{port}"))
            self.assertEqual(statuses(answer), [403], (host, port))
        for host in NO_HOSTS:
            self.assertEqual(statuses(exchange(proxy.port, whole_url(host))), [400], host)


class WildcardTests(RelayTests):
    """Patterns for every host and port open public addresses only."""

    tables: Mapping[str, Mapping[str, object]] = {"connect": {"tunnel": ["*:*"]}}

    def test_default(self) -> None:
        """The proxy's network and its own ports stay closed."""
        ports = (self.proxy.admin_port, self.proxy.port, 80)
        self.assert_refused(self.proxy, [(host, port) for host in PRIVATE for port in ports])
        self.assert_unharmed()


class SmugglingTests(HostileCase):
    """Where one request ends and the next begins is never in doubt."""

    def test_headers(self) -> None:
        """What parsers disagree about is refused, and the last that is read on its connection."""
        for name, headers in SHAPES.items():
            received = exchange(self.proxy.port, _START + headers + _HIDDEN)
            self.assertEqual(statuses(received), [400], name)
        self.assert_unharmed()
        self.assertEqual(self.registry.requests(), [])

    def test_chunks(self) -> None:
        """What is no chunk ends the connection, and upstream is not told that the body is whole."""
        for chunks in CHUNKS:
            received = exchange(self.proxy.port, _START + CHUNKED + chunks + b"0\r\n\r\n" + _HIDDEN)
            self.assertNotIn(202, statuses(received), chunks[:40])
            self.assertLessEqual(len(statuses(received)), 1, chunks[:40])
        self.assert_unharmed()
        self.assert_never_asked("hidden")

    def test_pipelined(self) -> None:
        """Requests behind each other are answered in their order, a push among them too."""
        get = f"GET %s HTTP/1.1\r\nHost: {HOST}\r\n%s\r\n"
        parts = (
            get % ("/v2/", ""),
            _START.decode() + "Content-Length: 5\r\n\r\nhello",
            get % ("/v2/team/app/manifests/none", ""),
            _START.decode() + CHUNKED.decode() + "3;x=y\r\nabc\r\n0\r\n\r\n",
            f"HEAD /v2/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
            get % ("/v2/team/app/unknown", "Connection: close\r\n"),
        )
        request = "".join(parts).encode()
        for size in (len(request), 7):
            pieces = [request[at : at + size] for at in range(0, len(request), size)]
            found = statuses(exchange(self.proxy.port, *pieces))
            self.assertEqual(found, [200, 202, 404, 202, 200, 404])
        self.assert_unharmed()

    def test_hosts(self) -> None:
        """A Host that is none, or another than the target of the connection, is refused."""
        for host in (
            "a b",
            "a,b",
            "user@x",
            "x/y",
            "x:99999",
            "caf\xe9",
            "<b>",
            "$(id)",
            "a" * 9999,
        ):
            request = f"GET /setup/docker HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            received = exchange(self.proxy.port, request.encode("latin-1"))
            self.assertEqual(statuses(received), [400], host[:40])
        self.assert_unharmed()


class TunnelTests(HostileCase):
    """CONNECT to a registry, and what may come behind it."""

    def test_early_hello(self) -> None:
        """A ClientHello with the CONNECT, or byte by byte, belongs to the TLS inside."""
        for size in (65536, 1):
            client = TlsClient(HOST)
            data = _CONNECT + client.pending()
            with connect(self.proxy.port) as connection:
                for at in range(0, len(data), size):
                    connection.sendall(data[at : at + size])
                self.assertEqual(statuses(read_head(connection)), [200])
                self.assertEqual(statuses(client.ask(connection, _GET)), [200])

    def test_names(self) -> None:
        """No name means the target; another one, in TLS or in a Host, is refused."""
        self.assertEqual(self.inside(None, _GET), [200])
        for other in (_PULL_ONLY, "proxy.test", "unknown.test"):
            self.assertEqual(self.inside(HOST, _GET.replace(HOST.encode(), other.encode())), [421])
        self.assertEqual(self.inside(_PULL_ONLY, _GET), [421])
        refusal = self.assertRaises(ssl.SSLError, self.inside, "unknown.test", _GET)
        self.assertIn("UNRECOGNIZED_NAME", str(refusal))
        self.assert_unharmed()

    def test_inside(self) -> None:
        """Nothing leads further from inside a CONNECT."""
        admin = f"127.0.0.1:{self.proxy.admin_port}"
        self.assertEqual(self.inside(HOST, _CONNECT), [400])
        self.assertEqual(self.inside(HOST, tunnel(admin)), [400])
        self.assertEqual(self.inside(HOST, whole_url(admin)), [421])
        self.assertEqual(self.inside(HOST, b"\x00\xff\r\n\r\n"), [400])
        self.assert_unharmed()

    def test_no_tls_inside(self) -> None:
        """What is no TLS is told so; what looks like it is hung up on."""
        for data in (_GET, b"\x00" * 5000):
            self.assertEqual(statuses(exchange(self.proxy.port, _CONNECT + data)), [200, 400])
        garbage = b"\x16\x03\x01" + b"z" * 5000
        self.assertEqual(statuses(exchange(self.proxy.port, _CONNECT + garbage)), [200])
        self.assert_unharmed()

    def test_wrong_protocol(self) -> None:
        """TLS to a plain port, and anything else to a TLS port, is hung up on."""
        hello = TlsClient(HOST).pending()
        self.assertEqual(exchange(self.proxy.port, hello), b"")
        for port in (self.tls_port, self.proxy.tls_port):
            for data in (_GET, b"\x80\x2e\x01\x00\x02" + bytes(50), bytes(range(256)) * 300):
                self.assertEqual(statuses(exchange(port, data)), [])
            # No name is no reason to refuse; the certificate is for the address then.
            client = TlsClient(None)
            with connect(port) as connection:
                connection.sendall(client.pending())
                self.assertEqual(statuses(client.ask(connection, _GET)), [200])
        self.assert_unharmed()

    def inside(self, name: str | None, request: bytes) -> list[int]:
        """The statuses of what is answered to a request inside a CONNECT."""
        client = TlsClient(name)
        with connect(self.proxy.port) as connection:
            connection.sendall(_CONNECT)
            self.assertEqual(statuses(read_head(connection)), [200])
            connection.sendall(client.pending())
            return statuses(client.ask(connection, request))


class SilenceTests(HostileCase):
    """Nobody holds a connection by saying next to nothing."""

    def test_deadlines(self) -> None:
        """Every connection ends, however it was begun, and whether or not bytes drip into it."""
        plain, tls = self.proxy.port, self.tls_port
        chunked = _START + CHUNKED
        begun = {
            "plain": (plain, b"", b""),
            "TLS": (tls, b"", b""),
            "handshake": (tls, _HELLO_BEGUN, b""),
            "dripped handshake": (tls, _HELLO_BEGUN, b"\x03"),
            "CONNECT": (plain, _CONNECT, b""),
            "handshake inside": (plain, _CONNECT + _HELLO_BEGUN, b""),
            "dripped handshake inside": (plain, _CONNECT + _HELLO_BEGUN, b"\x03"),
            "dripped headers": (plain, b"GET / HTTP/1.1\r\nX: ", b"x"),
            "dripped CONNECT": (plain, _CONNECT[:-2] + b"X: ", b"x"),
            "dripped body": (plain, _START + b"Content-Length: 90000\r\n\r\n", b"x"),
            "dripped chunks": (plain, chunked, b"1\r\nx\r\n"),
            "dripped size": (plain, chunked, b"0"),
            "dripped trailers": (plain, chunked + b"0\r\n", b"X: y\r\n"),
            "after an answer": (plain, _GET.replace(b"Connection: close\r\n", b""), b""),
        }
        connections = {}
        for name, (port, first, drip) in begun.items():
            connection = connect(port)
            self.addCleanup(connection.close)
            connection.sendall(first)
            connections[connection] = (name, drip)
        until = time.monotonic() + 8.0
        while connections and time.monotonic() < until:
            for connection in select.select(list(connections), (), (), 0.2)[0]:
                if is_closed(connection):
                    del connections[connection]
            for connection, (_, drip) in connections.items():
                with contextlib.suppress(ConnectionError):
                    connection.sendall(drip)
        self.assertEqual([name for name, _ in connections.values()], [])
        self.assert_unharmed()

    def test_refused_pushes(self) -> None:
        """A client that sends on after its refusal can read that, and is hung up on."""
        for framing, piece in (
            (b"Content-Length: 99999999999\r\n\r\n", bytes(_MIB)),
            (CHUNKED, b"%x\r\n%b\r\n" % (_MIB, bytes(_MIB))),
        ):
            head = _START.replace(HOST.encode(), _PULL_ONLY.encode()) + framing
            with connect(self.proxy.port) as connection:
                connection.sendall(head)
                self.assertEqual(statuses(read_head(connection)), [405])
                until = time.monotonic() + 8.0
                while time.monotonic() < until:
                    try:
                        connection.sendall(piece)
                    except ConnectionError:
                        break
                    time.sleep(0.05)
                self.assertLess(time.monotonic(), until)
        # Nobody is asked to go on.
        head = _START.replace(HOST.encode(), _PULL_ONLY.encode())
        expecting = head + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        self.assertEqual(statuses(exchange(self.proxy.port, expecting)), [405])
        self.assert_unharmed()

    def test_early_bytes(self) -> None:
        """What comes behind a CONNECT that is refused is not kept."""
        with connect(self.proxy.port) as connection:
            connection.sendall(tunnel("unknown.test:443"))
            with contextlib.suppress(ConnectionError):
                for _ in range(64):
                    connection.sendall(bytes(_MIB))
            self.assertEqual(statuses(read(connection)), [403])
        self.assert_unharmed()


class SealTests(HostileCase):
    """What the proxy hands out for a push is of no use for anything else."""

    def test_another_repository(self) -> None:
        """The state of one upload opens no other, changed or not."""
        start = fetch(f"{self.proxy.url}/v2/{HOST}/team/app/blobs/uploads/", method="POST")
        self.assertEqual(start.status, 202)
        parts = urlsplit(start.headers["location"])
        path, query = parts.path, parts.query
        self.assertTrue(query.startswith("state="))
        self.assertEqual(self.step(path, query), 202)
        seen = len(self.registry.requests())
        self.assertEqual(self.step(path.replace("team/app", "team/other"), query), 404)
        self.assertEqual(self.step(path.replace(HOST, _PULL_ONLY), query), 405)
        flipped = "B" if query[20] != "B" else "C"
        for changed in (query[:20] + flipped + query[21:], query[:40], "state=", "", f"x&{query}x"):
            self.assertEqual(self.step(path, changed), 404, changed)
        self.assertEqual(len(self.registry.requests()), seen)

    def step(self, path: str, query: str) -> int:
        """The status of an upload's step without a byte."""
        return fetch(f"{self.proxy.url}{path}?{query}", method="PATCH").status


def whole_url(host: str) -> bytes:
    """A request as a client sends it to a forward proxy."""
    return f"GET http://{host}/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side of a connection that has something to say hangs up."""
    try:
        return not connection.recv(65536)
    except ConnectionError:
        return True
