"""Tests for :mod:`regproxy.config_mistakes`."""

from __future__ import annotations

import datetime as dt

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config_mistakes import describe, key_path, nearest


class WordsTests(SynchronousTestCase):
    """Values are named in messages as they stand in the file."""

    def test_describe(self) -> None:
        """Short values are repeated, others are named by what they are."""
        for value, expected in (
            (True, "true"),
            (12, "12"),
            (10**5000, "a huge integer"),
            (1.5, "1.5"),
            (float("nan"), "nan"),
            ('a "b"\n', r'"a \"b\"\n"'),
            ("ä", '"ä"'),
            ("x" * 100, '"' + "x" * 79 + '…"'),
            ({"a": 1}, "a table"),
            ([1], "an array"),
            (dt.date(2026, 1, 1), "a date or time"),
            (dt.time(1, 1), "a date or time"),
        ):
            self.assertEqual(describe(value), expected)

    def test_nearest(self) -> None:
        """A word that looks like none has no nearest one."""
        self.assertEqual(nearest("upstrem", ["aliases", "upstream"]), "upstream")
        self.assertEqual(nearest("offline", ["aliases", "upstream"]), "")


class KeyPathTests(SynchronousTestCase):
    """A path is written as TOML would."""

    def test_written(self) -> None:
        """Keys are bare or quoted; elements have their index."""
        self.assertEqual(
            key_path(("registries", "docker.io", "aliases", 1)), 'registries."docker.io".aliases[1]'
        )
        self.assertEqual(key_path(("listeners", 0, "tls")), "listeners[0].tls")
        self.assertEqual(key_path(("",)), '""')
        self.assertEqual(key_path(()), "")
