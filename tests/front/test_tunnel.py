"""Two connections as one: what passes, who waits for whom, and how it ends."""

from __future__ import annotations

from typing import cast

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.connections import Connections
from regproxy.front.tunnel import Tunnel, TunnelEnd
from tests.front.tunnelling import Entries, Peer

IDLE = 600.0
PIECE = b"x" * 65_536


class TunnelCase(SynchronousTestCase):
    """A client and a target with a tunnel between them."""

    def setUp(self) -> None:
        """Connects the target, and the client behind it."""
        self.clock = Clock()
        self.log = Entries()
        self.connections = Connections(10)
        self.client, self.target = Peer(self.clock), Peer(self.clock)
        end = TunnelEnd()
        self.target.transport.start(end)
        self.tunnel = Tunnel(
            end,
            Entry(reference="host.test:443", status=200, seconds=0.5),
            IDLE,
            self.clock,
            self.connections,
            cast(AccessLog, self.log),
        )
        self.connect_client()

    def connect_client(self) -> None:
        """Gives the tunnel its client."""
        self.client.transport.start(self.tunnel.client)

    def settle(self) -> None:
        """Lets everything happen that is due."""
        self.clock.advance(0)

    def assert_over(self, note: str = "") -> Entry:
        """Asserts that nothing is left but one line of the log."""
        self.settle()
        self.assertIsNotNone(self.client.closed)
        self.assertIsNotNone(self.target.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.connections), 0)
        (entry,) = self.log
        self.assertEqual((entry.note, entry.status), (note, 200))
        assert isinstance(entry, Entry)
        return entry


class PassingTests(TunnelCase):
    """What passes."""

    def test_both_directions(self) -> None:
        """Bytes arrive as they were sent, and are counted."""
        self.client.send(b"hello")
        self.clock.advance(2)
        self.target.send(b"good day")
        self.settle()
        self.assertEqual(self.target.received, b"hello")
        self.assertEqual(self.client.received, b"good day")
        self.assertEqual(self.log, [])
        self.client.finish()
        self.settle()
        self.target.finish()
        entry = self.assert_over()
        self.assertEqual((entry.received, entry.sent), (5, 8))
        self.assertEqual(entry.seconds, 2.5)

    def test_busy(self) -> None:
        """A tunnel is a connection with a request under way."""
        self.assertEqual(self.connections.active, 1)

    def test_slow_client(self) -> None:
        """A client that does not read stops the target, and the other direction goes on."""
        self.client.reading = False
        for _ in range(10):
            self.target.send(PIECE)
        self.settle()
        self.assertFalse(self.target.transport.reading)
        self.client.send(b"still here")
        self.settle()
        self.assertEqual(self.target.received, b"still here")
        self.client.read()
        self.settle()
        self.assertTrue(self.target.transport.reading)
        self.assertEqual(len(self.client.received), 10 * len(PIECE))

    def test_slow_target(self) -> None:
        """The same the other way round; not more than a few pieces are held."""
        self.target.reading = False
        for _ in range(10):
            self.client.send(PIECE)
        self.settle()
        self.assertFalse(self.client.transport.reading)
        self.target.read()
        self.settle()
        self.assertEqual(len(self.target.received), 10 * len(PIECE))

    def test_quick(self) -> None:
        """Neither side waits for its bytes to fill a segment."""
        self.assertTrue(self.client.transport.getTcpNoDelay())
        self.assertTrue(self.target.transport.getTcpNoDelay())


class HalfClosedTests(TunnelCase):
    """The end of one direction."""

    def test_client_finishes(self) -> None:
        """The target is told, answers, and ends the rest."""
        self.client.send(b"question")
        self.client.finish()
        self.settle()
        self.assertTrue(self.target.finished)
        self.target.send(b"answer")
        self.settle()
        self.assertEqual(self.client.received, b"answer")
        self.assertFalse(self.client.finished)
        self.target.finish()
        self.assert_over()

    def test_target_finishes(self) -> None:
        """The same the other way round."""
        self.target.send(b"banner")
        self.target.finish()
        self.settle()
        self.assertTrue(self.client.finished)
        self.assertEqual(self.client.received, b"banner")
        self.client.send(b"more")
        self.settle()
        self.assertEqual(self.target.received, b"more")
        self.client.finish()
        self.assert_over()

    def test_behind_a_full_buffer(self) -> None:
        """An end is passed on behind what is still to be sent."""
        self.client.reading = False
        self.target.send(PIECE * 2)
        self.settle()
        # A socket that is not read from does not show its end.
        self.assertFalse(self.target.transport.reading)
        self.client.read()
        self.target.finish()
        self.settle()
        self.assertTrue(self.client.finished)
        self.assertEqual(len(self.client.received), 2 * len(PIECE))

    def test_not_read_again(self) -> None:
        """An end that was noticed is not read again when buffers run empty."""
        self.target.reading = False
        self.client.send(PIECE)
        self.client.finish()
        self.settle()
        self.target.read()
        self.settle()
        self.assertTrue(self.target.finished)
        self.assertFalse(self.client.transport.reading)


class EndingTests(TunnelCase):
    """How it ends."""

    def test_client_leaves(self) -> None:
        """The target gets what is left for it, and is hung up on."""
        self.target.reading = False
        self.client.send(b"last words")
        self.client.transport.hang_up(ConnectionDone())
        self.settle()
        self.assertIsNone(self.target.closed)
        self.target.read()
        self.settle()
        self.assertEqual(self.target.received, b"last words")
        self.assert_over()

    def test_target_leaves(self) -> None:
        """The same the other way round."""
        self.target.send(b"last words")
        self.target.transport.hang_up(ConnectionDone())
        self.settle()
        self.assertEqual(self.client.received, b"last words")
        self.assert_over()

    def test_client_resets(self) -> None:
        """Is said in the log."""
        self.client.reset()
        self.assert_over("client reset")

    def test_target_resets(self) -> None:
        """What it sent before still arrives."""
        self.target.send(b"sorry")
        self.target.reset()
        self.settle()
        self.assertEqual(self.client.received, b"sorry")
        self.assert_over("target reset")

    def test_reset_in_full_flow(self) -> None:
        """Both directions full, and then one side is gone."""
        self.client.reading = self.target.reading = False
        for _ in range(5):
            self.client.send(PIECE)
            self.target.send(PIECE)
        self.settle()
        self.client.transport.connectionLost(Failure(ConnectionLost()))
        self.settle()
        self.target.read()
        self.assert_over("client reset")

    def test_aborted(self) -> None:
        """At the drain deadline both are cut."""
        self.client.reading = False
        self.target.send(PIECE * 2)
        self.settle()
        self.connections.abort_all()
        self.assert_over("cut by the proxy")
        self.assertTrue(self.client.aborted)
        self.assertTrue(self.target.aborted)

    def test_told_to_close(self) -> None:
        """Both get what is left for them."""
        self.target.send(b"answer")
        self.settle()
        self.tunnel.loseConnection()
        self.settle()
        self.assertEqual(self.client.received, b"answer")
        self.assert_over()

    def test_idle(self) -> None:
        """Without a byte either way it is closed, orderly; each byte renews the deadline."""
        for peer in (self.client, self.target):
            self.clock.advance(IDLE - 1)
            peer.send(b"x")
            self.settle()
        self.clock.advance(IDLE - 1)
        self.assertIsNone(self.client.closed)
        self.clock.advance(1)
        self.assert_over("idle for 600 s")
        self.assertFalse(self.client.aborted)

    def test_stuck(self) -> None:
        """An idle side that takes nothing is cut a little later."""
        self.client.reading = False
        self.target.send(PIECE * 2)
        self.settle()
        self.clock.advance(IDLE)
        self.settle()
        self.assertIsNone(self.client.closed)
        self.clock.advance(10)
        self.assert_over("idle for 600 s")
        self.assertTrue(self.client.aborted)

    def test_half_closed_and_idle(self) -> None:
        """A side that never ends its direction does not hold the other for ever."""
        self.client.finish()
        self.settle()
        self.clock.advance(IDLE)
        self.assert_over("idle for 600 s")

    def test_lost_while_flushing(self) -> None:
        """A target that takes nothing after its client left is cut by the same deadline."""
        self.target.reading = False
        self.client.send(PIECE * 2)
        self.settle()
        self.client.reset()
        # What is not read from does not show its end.
        self.tunnel.client.resumeProducing()
        self.settle()
        self.assertIsNone(self.target.closed)
        self.clock.advance(IDLE)
        self.clock.advance(10)
        self.assert_over("client reset")


class BeginningTests(TunnelCase):
    """Before both ends are there."""

    def connect_client(self) -> None:
        """Not yet."""

    def test_early_target(self) -> None:
        """What the target sends first waits for the client."""
        self.target.send(b"220 ready")
        self.settle()
        self.assertFalse(self.target.transport.reading)
        super().connect_client()
        self.settle()
        self.assertEqual(self.client.received, b"220 ready")

    def test_target_gone_at_once(self) -> None:
        """A client whose target has left is hung up on, after what it sent."""
        self.target.send(b"full")
        self.target.transport.hang_up(ConnectionDone())
        super().connect_client()
        self.settle()
        self.assertEqual(self.client.received, b"full")
        self.assert_over()

    def test_target_gone_before(self) -> None:
        """The same for one that was lost before."""
        self.target.transport.connectionLost(Failure(ConnectionLost()))
        super().connect_client()
        self.client.send(b"anyone?")
        self.assert_over("target reset")

    def test_never_connected(self) -> None:
        """A client that was gone at that very moment leaves nothing behind, and no line."""
        self.clock.advance(IDLE)
        self.clock.advance(10)
        self.assertIsNotNone(self.target.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.log, [])
        self.assertEqual(len(self.connections), 0)
