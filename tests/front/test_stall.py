"""Whether a client still takes what it asked for."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.stall import ClientGone, StallWatch


class Connection:
    """A transport on a real socket, or on none."""

    def __init__(self, handle: object = None) -> None:
        self.handle = handle

    def getHandle(self) -> object:
        """See ISystemHandle."""
        return self.handle


class Wrapping:
    """TLS on top of a transport: its handle is no socket."""

    def __init__(self, transport: Connection) -> None:
        self.transport = transport

    def getHandle(self) -> object:
        """See ISystemHandle."""
        return object()


class Request:
    """What sends to a client."""

    def __init__(self, transport: object) -> None:
        self.transport = transport


class StallWatchTests(SynchronousTestCase):
    """Over a transport that tells only when its whole buffer is gone."""

    transport: object = Connection()

    def setUp(self) -> None:
        """Watches."""
        self.clock = Clock()
        self.gone: list[ClientGone] = []
        self.watch = StallWatch(Request(self.transport), self.clock, 60.0, self.gone.append)

    def test_stalled(self) -> None:
        """A client that takes nothing for the whole deadline is told of, once."""
        self.watch.paused()
        self.clock.advance(59)
        self.assertEqual(self.gone, [])
        self.clock.advance(1)
        self.assertEqual([str(gone) for gone in self.gone], ["took nothing for 60 s"])
        self.clock.advance(600)
        self.assertEqual(len(self.gone), 1)

    def test_never_full(self) -> None:
        """Without full buffers nothing runs out."""
        self.clock.advance(600)
        self.watch.paused()
        self.watch.resumed()
        self.clock.advance(600)
        self.assertEqual(self.gone, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moving(self) -> None:
        """Each time that buffers were empty renews the deadline."""
        for _ in range(20):
            self.watch.paused()
            self.clock.advance(50)
            self.watch.resumed()
        self.assertEqual(self.gone, [])
        self.watch.paused()
        self.clock.pump([30.0] * 4)
        self.assertEqual(len(self.gone), 1)

    def test_stop(self) -> None:
        """Nothing is left running afterwards."""
        self.watch.paused()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(600)
        self.assertEqual(self.gone, [])

    def test_again(self) -> None:
        """A watch that was stopped watches again, with the whole deadline."""
        self.watch.paused()
        self.clock.advance(50)
        self.watch.stop()
        self.watch.stop()
        self.watch.paused()
        self.clock.advance(59)
        self.assertEqual(self.gone, [])
        self.clock.advance(1)
        self.assertEqual(len(self.gone), 1)


class AcknowledgedTests(SynchronousTestCase):
    """Over TCP, where the kernel knows what the client's host has taken."""

    def setUp(self) -> None:
        """Connects, and sends so much that nothing more fits."""
        self.clock = Clock()
        self.gone: list[ClientGone] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.socket()
            # A small window: what is read opens it again soon.
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            self.client.connect(server.getsockname())
            self.server, _ = server.accept()
        self.addCleanup(self.client.close)
        self.addCleanup(self.server.close)
        self.server.setblocking(False)
        self.fill()

    def fill(self) -> None:
        """Sends until the socket is full."""
        try:
            while True:
                self.server.send(b"x" * 65536)
        except BlockingIOError:
            pass

    def watch(self, transport: object) -> StallWatch:
        """A watch that has just been told that the buffers are full."""
        watch = StallWatch(Request(transport), self.clock, 60.0, self.gone.append)
        watch.paused()
        return watch

    def take(self, count: int) -> None:
        """Reads, and lets the acknowledgements arrive."""
        while count > 0:
            count -= len(self.client.recv(count))

    def test_slow_reader(self) -> None:
        """A reader too slow to empty any buffer within the deadline survives, also under TLS."""
        for transport in (Connection(self.server), Wrapping(Connection(self.server))):
            watch = self.watch(transport)
            for _ in range(4):
                self.take(64 * 1024)
                self.clock.advance(60)
                self.assertEqual(self.gone, [])
            watch.stop()
            self.fill()

    def test_stuck_reader(self) -> None:
        """One that reads nothing does not."""
        self.watch(Connection(self.server))
        self.clock.advance(60)
        self.assertEqual(len(self.gone), 1)

    def test_closed(self) -> None:
        """A socket that can tell nothing counts as one that does not move."""
        watch = self.watch(Connection(self.server))
        self.server.close()
        self.clock.advance(60)
        self.assertEqual(len(self.gone), 1)
        watch.stop()
