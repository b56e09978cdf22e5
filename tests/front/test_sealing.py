"""Seals and their key."""

from __future__ import annotations

import os
import string
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.sealing import BrokenSeal, KeyProblem, Seals, load_key

KEY = bytes(range(32))
SECRET = "https://registry.corp/upload?_state=abc%2Bdef&x=\u00e9"


class SealsTest(SynchronousTestCase):
    """What can be opened, and by whom."""

    def setUp(self) -> None:
        """Seals something."""
        self.clock = Clock()
        self.seals = Seals(lambda: KEY, "uploads", self.clock, 60.0)
        self.sealed = self.seals.seal(SECRET, "subject")

    def assert_broken(self, sealed: str, subject: str = "subject") -> None:
        """Asserts that nothing can be opened."""
        self.assertRaises(BrokenSeal, self.seals.open, sealed, subject)

    def test_opened(self) -> None:
        """Another process with the same key opens what was sealed."""
        other = Seals(lambda: KEY, "uploads", self.clock, 1.0)
        self.assertEqual(other.open(self.sealed, "subject"), SECRET)

    def test_spelling(self) -> None:
        """A seal can stand in a query as it is, and tells nothing."""
        allowed = set(string.ascii_letters + string.digits + "-_")
        self.assertLessEqual(set(self.sealed), allowed)
        self.assertNotIn("registry", self.sealed)
        self.assertNotEqual(self.sealed, self.seals.seal(SECRET, "subject"))

    def test_subject(self) -> None:
        """A seal is worth nothing for another subject."""
        self.assert_broken(self.sealed, "other")

    def test_purpose(self) -> None:
        """A seal is worth nothing for another purpose."""
        self.assert_broken(Seals(lambda: KEY, "tokens", self.clock).seal(SECRET, "subject"))

    def test_key(self) -> None:
        """A seal by another key is none."""
        self.assert_broken(Seals(lambda: bytes(32), "uploads", self.clock).seal(SECRET, "subject"))

    def test_expiry(self) -> None:
        """A seal holds as long as it was to."""
        self.clock.advance(59.0)
        self.assertEqual(self.seals.open(self.sealed, "subject"), SECRET)
        self.clock.advance(1.0)
        self.assert_broken(self.sealed)

    def test_changed(self) -> None:
        """A seal of which any character is another one is broken."""
        for at in range(len(self.sealed) - 1):
            other = "A" if self.sealed[at] != "A" else "B"
            self.assert_broken(self.sealed[:at] + other + self.sealed[at + 1 :])

    def test_nonsense(self) -> None:
        """What never was a seal is broken like any other."""
        for sealed in ("", "A", "AAAA", "\u00e9", "=" * 40, "A" * 10_000, self.sealed[:-4]):
            self.assert_broken(sealed)


class KeyTest(SynchronousTestCase):
    """The file that has the key."""

    def setUp(self) -> None:
        """There is neither a file nor a directory."""
        self.path = Path(self.mktemp()) / "state" / "tokens.key"

    def test_made_once(self) -> None:
        """The key is made on first use, for its owner alone, and stays the same."""
        key = load_key(self.path)
        self.assertEqual((len(key), load_key(self.path)), (32, key))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.path.parent), ["tokens.key"])

    def test_umask(self) -> None:
        """A careless umask makes no difference."""
        previous = os.umask(0)
        self.addCleanup(os.umask, previous)
        load_key(self.path)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_readable_by_others(self) -> None:
        """A key that others can read is refused, and stays what it is."""
        load_key(self.path)
        self.path.chmod(0o640)
        error = self.assertRaises(KeyProblem, load_key, self.path)
        self.assertIn(str(self.path), str(error))

    def test_broken(self) -> None:
        """A file that is no key is refused rather than replaced."""
        self.path.parent.mkdir(parents=True)
        for data in (b"", bytes(31), bytes(33)):
            self.path.write_bytes(data)
            self.path.chmod(0o600)
            self.assertRaises(KeyProblem, load_key, self.path)
            self.assertEqual(self.path.read_bytes(), data)
