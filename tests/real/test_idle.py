"""Thousands of clients that do nothing: what they cost, and that others do not notice them."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable, Iterable

from tests.real.case import RealCase
from tests.real.processes import free_port, wait_until
from tests.real.proxy import Settings
from tests.real.rawhttp import fetch
from tests.real.rawsockets import (
    connect,
    descriptors,
    processor_time,
    read_head,
    resident,
    statuses,
    trusting_all,
    tunnel,
)

HOST = "registry-a.test"
_MOST = 9990
"""Plain connections; the default limit is 10,000, and the test itself needs some."""
_FEWER = 1000
_OWN = 200
"""Descriptors that this process needs besides."""


class IdleCase(RealCase):
    """A regproxy with minted certificates, and nobody behind it."""

    def setUp(self) -> None:
        """Starts it, and takes as many descriptors as there are for this process."""
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        # Regproxy leaves a quarter of its descriptors, which are as many, to files.
        self.most = min(_MOST, hard * 3 // 4 - _OWN) if hard > 0 else _MOST
        self.tls_port = free_port()
        listener = {"endpoint": f"tcp:{self.tls_port}:interface=127.0.0.1", "tls": True}
        self.proxy = self.start_proxy(
            Settings(
                {HOST: "http://127.0.0.1:9"},
                default_registry=HOST,
                timeouts={"idle": "2m", "request_headers": "2m"},
                listeners=[listener],
            )
        )
        self.context = trusting_all()

    @property
    def pid(self) -> int:
        """The proxy's."""
        return self.proxy.process.pid

    def plain(self) -> socket.socket:
        """Connects, and is silent."""
        return connect(self.proxy.port)

    def secured(self) -> socket.socket:
        """Ends a TLS handshake, and is silent."""
        return self.context.wrap_socket(connect(self.tls_port), server_hostname=HOST)

    def intercepted(self) -> socket.socket:
        """Ends a TLS handshake inside a CONNECT, and is silent."""
        return self.context.wrap_socket(self.connected(), server_hostname=HOST)

    def connected(self) -> socket.socket:
        """Is silent after its CONNECT, for which the proxy is ready to answer TLS."""
        connection = connect(self.proxy.port)
        connection.sendall(tunnel(f"{HOST}:443"))
        self.assertEqual(statuses(read_head(connection)), [200])
        return connection

    def assert_served(self) -> None:
        """Somebody else has an answer as quickly as ever."""
        answer = fetch(f"{self.proxy.url}/v2/")
        self.assertEqual(answer.status, 200)
        self.assertLess(answer.seconds, 2.0)


class MemoryTests(IdleCase):
    """A bounded amount of memory each, which is used again."""

    def test_plain(self) -> None:
        """As many as there may be by default, or as this machine has descriptors for."""
        self.assert_costs(self.plain, self.most, 6.0)

    def test_tls(self) -> None:
        """The cost of a TLS session."""
        self.assert_costs(self.secured, _FEWER, 48.0)

    def test_intercepted(self) -> None:
        """That of a TLS session inside a CONNECT is not much more."""
        self.assert_costs(self.intercepted, _FEWER, 56.0)

    def test_connected(self) -> None:
        """Nor is that of one that is never begun, though OpenSSL needs more at first."""
        self.assert_costs(self.connected, _FEWER, 88.0)

    def assert_costs(self, client: Callable[[], socket.socket], count: int, bound: float) -> None:
        """Each client costs less than ``bound`` KiB, and a second crowd nothing anew."""
        # What the first of a kind has loaded for good counts for none of them.
        self.hold(client, 20)
        before = resident(self.pid)
        first = self.hold(client, count) - before
        second = self.hold(client, count) - before
        each = first / count
        self.assertLess(each, bound, f"{each:.1f} KiB for each of {count} idle connections")
        self.assertLess(second, first * 1.15 + 1024)

    def hold(self, client: Callable[[], socket.socket], count: int) -> int:
        """The process's memory, in KiB, while it has ``count`` clients; they leave."""
        before = descriptors(self.pid)
        connections: list[socket.socket] = []
        try:
            connections.extend(client() for _ in range(count))
            wait_until(
                lambda: descriptors(self.pid) >= before + count,
                10.0,
                f"{count} connections to be accepted",
            )
            self.assert_served()
            held = resident(self.pid)
        finally:
            close(connections)
        wait_until(lambda: descriptors(self.pid) <= before, 10.0, "the connections to be gone")
        return held


class DescriptorTests(IdleCase):
    """When the process may open nothing more."""

    def test_exhausted(self) -> None:
        """Further clients are hung up on, nothing spins, and all is well when some have left."""
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (100, hard))
        before = descriptors(self.pid)
        connections = [self.plain() for _ in range(200)]
        self.addCleanup(close, connections)
        gone = 0
        for connection in connections[100:]:
            connection.settimeout(5.0)
            try:
                gone += not connection.recv(1)
            except ConnectionError:
                gone += 1
        self.assertEqual(gone, 100)
        used = processor_time(self.pid)
        time.sleep(1.0)
        self.assertLess(processor_time(self.pid) - used, 0.2)
        close(connections)
        wait_until(lambda: descriptors(self.pid) <= before, 10.0, "the connections to be gone")
        self.assert_served()


def close(connections: Iterable[socket.socket]) -> None:
    """Hangs up on all."""
    for connection in connections:
        connection.close()
