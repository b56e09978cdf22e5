"""Clients that drip, stall, or send what nobody wants."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator

from tests.real.case import RealCase
from tests.real.library import library
from tests.real.processes import CommandFailed
from tests.real.rawhttp import fetch

_MIB = 1 << 20
_WANTED_TO_SEND = 600 * _MIB
# What the kernel takes on loopback without anybody reading it, and some more.
_UNREAD = 16 * _MIB


class LimitsCase(RealCase):
    """A regproxy with short deadlines, and bare sockets."""

    def setUp(self) -> None:
        """Starts it, and an upstream."""
        super().setUp()
        self.registry = self.start_registry()
        deadlines = {"request_headers": "2s", "idle": "2s", "write_stall": "2s"}
        self.proxy = self.start_proxy_for(self.registry, timeouts=deadlines)

    @contextlib.contextmanager
    def connection(self, receive_buffer: int = 0) -> Iterator[socket.socket]:
        """A connection to the plain listener."""
        with socket.socket() as plain:
            if receive_buffer:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            plain.settimeout(10.0)
            plain.connect(("127.0.0.1", self.proxy.port))
            yield plain


class DeadlineTests(LimitsCase):
    """Every deadline ends what it is there for, and nothing else."""

    def test_dripped_headers(self) -> None:
        """A header byte now and then does not keep a connection."""
        with self.connection() as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Drip: ")
            self.assert_cut(client, after=2.0)

    def test_dripped_request_line(self) -> None:
        """Nor does the first line, byte by byte."""
        with self.connection() as client:
            client.sendall(b"GET /v2/")
            self.assert_cut(client, after=2.0)

    def test_dripped_second_request(self) -> None:
        """The deadline holds for a later request of a connection as well."""
        with self.connection() as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200"))
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Drip: ")
            self.assert_cut(client, after=2.0)

    def test_idle(self) -> None:
        """A connection without a request is closed."""
        with self.connection() as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            started = time.monotonic()
            while client.recv(4096):
                pass
            self.assertTrue(1.5 < time.monotonic() - started < 5.0)

    def test_stalled_reader(self) -> None:
        """A client that takes nothing is disconnected; another one notices nothing of it."""
        blob = library().images["large"].layers[-1].blob
        target = f"/v2/registry-a.test/team/app/blobs/{blob.digest}"
        with self.connection(receive_buffer=16 * 1024) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            self.assertEqual(fetch(self.proxy.url + target).digest, blob.digest)
            time.sleep(4.0)
            received = 0
            with contextlib.suppress(ConnectionError):
                while piece := client.recv(_MIB):
                    received += len(piece)
        self.assertLess(received, blob.size // 2)

    def test_slow_reader(self) -> None:
        """A client that takes a little all the time is served to the end."""
        blob = library().images["small"].layers[1].blob
        target = f"/v2/registry-a.test/team/app/blobs/{blob.digest}"
        received = 0
        with self.connection(receive_buffer=16 * 1024) as client:
            request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            client.sendall(request.encode())
            while piece := client.recv(32 * 1024):
                received += len(piece)
                time.sleep(0.06)
        self.assertGreater(received, blob.size)

    def test_huge_headers(self) -> None:
        """Headers over the limit are refused, or the connection is cut."""
        with self.connection() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
                for number in range(200):
                    client.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
                client.sendall(b"\r\n")
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = client.recv(4096)
            self.assertNotIn(b" 200 ", answer[:20])
        self.assertEqual(fetch(f"{self.proxy.url}/v2/").status, 200)

    def assert_cut(self, client: socket.socket, *, after: float) -> None:
        """The connection is cut in about ``after`` seconds, though a byte goes out every 0.1 s."""
        started = time.monotonic()
        client.settimeout(0.1)
        while time.monotonic() - started < after * 4:
            try:
                client.sendall(b"x")
                if not client.recv(4096):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        lasted = time.monotonic() - started
        self.assertTrue(after * 0.8 < lasted < after * 2, f"lasted {lasted:.1f} s")


class PushTests(LimitsCase):
    """Nobody pushes through a cache."""

    def test_start_of_an_upload(self) -> None:
        """The first request of a push is refused with 405, and the upstream not bothered."""
        for target in ("/v2/registry-a.test/team/app/blobs/uploads/", "/v2/app/blobs/uploads/"):
            answer = fetch(self.proxy.url + target, method="POST")
            self.assertEqual((answer.status, answer.error_code()), (405, "UNSUPPORTED"))
            self.assertIn("GET", answer.headers["allow"])
        self.assertEqual(self.registry.requests(), [])

    def test_body_of_known_length(self) -> None:
        """600 MB are refused when their length is known, before they are sent."""
        for target in ("blobs/uploads/1234?digest=x", "manifests/latest", "blobs/uploads/"):
            status, sent = self.push(target, f"Content-Length: {_WANTED_TO_SEND}")
            self.assertIn(status, {405, 413}, target)
            self.assertLess(sent, _UNREAD, target)

    def test_body_of_unknown_length(self) -> None:
        """A body in chunks is not taken for ever either."""
        status, sent = self.push("blobs/uploads/1234", "Transfer-Encoding: chunked")
        self.assertIn(status, {405, 411, 413})
        self.assertLess(sent, _UNREAD)

    def test_get_with_a_body(self) -> None:
        """A large body of a GET is not written anywhere."""
        status, sent = self.push("tags/list", f"Content-Length: {_WANTED_TO_SEND}", method="GET")
        self.assertIn(status, {200, 400, 413})
        self.assertLess(sent, _UNREAD)

    def test_skopeo(self) -> None:
        """A client that pushes is told that it cannot."""
        skopeo = self.skopeo()
        name = f"{self.proxy.host}/registry-a.test/team/app"
        copy = skopeo.copy(f"docker://{name}:small", *skopeo.arguments)
        failure = self.assertRaises(
            CommandFailed,
            skopeo.copy,
            f"dir:{copy}",
            "--dest-tls-verify=false",
            destination=f"docker://{name}:new",
        )
        self.assertRegex(str(failure), "405|unsupported")
        self.assertNotIn("new", skopeo.list_tags(name))

    def test_docker(self) -> None:
        """So is docker, and it does not try for minutes."""
        docker = self.start_docker()
        name = f"{self.proxy.host}/registry-a.test/team/app"
        started = time.monotonic()
        failure = self.assertRaises(CommandFailed, docker.push, f"{name}:small", f"{name}:new")
        self.assertRegex(str(failure), "405|unsupported")
        self.assertLess(time.monotonic() - started, 60.0)

    def push(self, what: str, framing: str, *, method: str = "PUT") -> tuple[int, int]:
        """Sends 600 MB, or as much as is taken: the answer's status and what was sent."""
        head = (
            f"{method} /v2/registry-a.test/team/app/{what} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"
        )
        piece = bytes(_MIB)
        if "chunked" in framing:
            piece = b"%x\r\n%s\r\n" % (len(piece), piece)
        sent, answer = 0, b""
        with self.connection() as client:
            client.sendall(head.encode())
            client.settimeout(0.05)
            while sent < _WANTED_TO_SEND and not answer:
                with contextlib.suppress(TimeoutError):
                    answer = client.recv(4096)
                if not answer:
                    try:
                        sent += client.send(piece)
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
        match = re.match(rb"HTTP/1\.1 (\d+) ", answer)
        self.assertIsNotNone(match, f"no answer before the connection was cut: {answer!r}")
        return int(answer[9:12]), sent
