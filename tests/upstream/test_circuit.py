"""Tests for regproxy.upstream.circuit."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.upstream.circuit import Circuit


class CircuitTests(SynchronousTestCase):
    """Whether a registry is asked."""

    def setUp(self) -> None:
        """A registry that answers."""
        self.clock = Clock()
        self.circuit = Circuit(self.clock)

    def test_healthy(self) -> None:
        """While it answers, everybody asks."""
        self.assertTrue(self.circuit.may_ask())
        self.assertFalse(self.circuit.answered())
        self.assertTrue(self.circuit.may_ask())

    def test_pause(self) -> None:
        """After a failure nobody asks for thirty seconds, then one does."""
        self.circuit.failed()
        self.assertFalse(self.circuit.may_ask())
        self.clock.advance(29.9)
        self.assertFalse(self.circuit.may_ask())
        self.clock.advance(0.1)
        self.assertTrue(self.circuit.may_ask())
        self.assertFalse(self.circuit.may_ask())

    def test_probe_succeeds(self) -> None:
        """An answer to the probe lets everybody ask again."""
        self.circuit.failed()
        self.clock.advance(30)
        self.circuit.may_ask()
        self.assertTrue(self.circuit.answered())
        self.assertTrue(self.circuit.may_ask())

    def test_probe_fails(self) -> None:
        """A probe that fails begins the pause again."""
        self.circuit.failed()
        self.clock.advance(30)
        self.circuit.may_ask()
        self.clock.advance(10)
        self.circuit.failed()
        self.clock.advance(29.9)
        self.assertFalse(self.circuit.may_ask())
        self.clock.advance(0.1)
        self.assertTrue(self.circuit.may_ask())

    def test_probe_lost(self) -> None:
        """A probe of which nothing is heard does not keep the registry from being asked."""
        self.circuit.failed()
        for _ in range(3):
            self.clock.advance(30)
            self.assertTrue(self.circuit.may_ask())

    def test_episode(self) -> None:
        """The first failure and the first answer are told from the others, for the log."""
        self.assertEqual([self.circuit.failed() for _ in range(3)], [True, False, False])
        self.assertEqual([self.circuit.answered() for _ in range(3)], [True, False, False])
        self.assertTrue(self.circuit.failed())
