"""Tests for :mod:`regproxy.config_values`."""

from __future__ import annotations

import os
from errno import EACCES, ENOENT
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config_mistakes import Mistake, describe
from regproxy.config_values import KeyReader, reason, written_duration, written_size
from regproxy.model.units import parse_duration, parse_size


def read(kind: str, value: object) -> object:
    """Read a value of a kind, relative paths starting from /base."""
    return KeyReader({"kind": kind}, Path("/base")).read(value)


class WordsTests(SynchronousTestCase):
    """Values are written as they stand in the file."""

    def test_reason(self) -> None:
        """The system's reasons are a few words in lower case."""
        self.assertEqual(reason(OSError(ENOENT, "")), "no such file")
        self.assertEqual(reason(OSError(EACCES, "")), "permission denied")

    @given(st.integers(0, 10**10))
    def test_written_duration(self, milliseconds: int) -> None:
        """A duration that is written is read as the same one."""
        seconds = milliseconds / 1000
        self.assertAlmostEqual(parse_duration(written_duration(seconds)), seconds, places=6)

    @given(st.one_of(st.integers(1, 2**40), st.integers(1, 2**20).map(lambda n: n * 1024)))
    def test_written_size(self, size: int) -> None:
        """A size that is written is read as the same one."""
        written = written_size(size)
        self.assertEqual(parse_size(int(written) if written.isdigit() else written), size)


class UpstreamTests(SynchronousTestCase):
    """An upstream is an origin."""

    def test_accepts(self) -> None:
        """The URL comes back in its one spelling, without a trailing slash."""
        for text, expected in (
            ("https://registry.corp", "https://registry.corp"),
            ("https://Registry.Corp:5000/", "https://registry.corp:5000"),
            ("HTTP://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("https://[FD00::05]:5000", "https://[fd00::5]:5000"),
        ):
            self.assertEqual(read("upstream", text), expected)

    def test_refuses(self) -> None:
        """Anything that is more or less than an origin is refused, with what was meant."""
        for text, meant in (
            ("", ""),
            ("registry.corp:5000", "https://registry.corp:5000"),
            ("https://registry.corp/v2/", "https://registry.corp"),
            ("https://registry.corp?a=b", "https://registry.corp"),
            ("https://registry.corp#a", "https://registry.corp"),
            ("https://", ""),
            ("https:///v2/", ""),
            ("https:/registry.corp", ""),
            ("ftp://registry.corp", ""),
            ("https://registry.corp:x", ""),
            ("https://registry.corp:70000", ""),
            ("https://[::1", ""),
            ("https://registry.corp\n", ""),
            ("https://reg\tistry.corp", ""),
            ("https://regístry.corp", ""),
            ("https://a_b", ""),
        ):
            with self.assertRaises(Mistake) as caught:
                read("upstream", text)
            self.assertEqual(
                (caught.exception.found, caught.exception.meant), (describe(text), meant)
            )

    def test_no_password_in_messages(self) -> None:
        """A URL with credentials is refused without repeating them."""
        for text in ("https://me:secret@r.corp", "me:secret@r.corp", "https://me:sec/ret@r.corp"):
            with self.assertRaises(Mistake) as caught:
                read("upstream", text)
            self.assertEqual(caught.exception.found, "a URL with credentials")
            self.assertNotIn("sec", f"{caught.exception.expected}{caught.exception.meant}")


class PathTests(SynchronousTestCase):
    """Paths start from the file's directory."""

    def test_relative(self) -> None:
        """A relative path is joined to the directory, an absolute one stays."""
        self.assertEqual(read("directory", "a/b"), Path("/base/a/b"))
        self.assertEqual(read("directory", "/a/b"), Path("/a/b"))

    def test_named_pipe(self) -> None:
        """A named pipe that nobody writes to is a file, and nothing waits for it."""
        path = Path(self.mktemp()).absolute()
        os.mkfifo(path)
        self.assertEqual(read("file", str(path)), path)

    def test_refuses(self) -> None:
        """What can be no path, or is not what is needed, says so."""
        path = Path(self.mktemp()).absolute()
        path.touch()
        for kind, value, found in (
            ("file", "", '""'),
            ("file", "a\0b", r'"a\u0000b"'),
            ("file", "~/a", '"~/a"'),
            ("file", "/", '"/": a directory'),
            ("file", "/nowhere/at/all", '"/nowhere/at/all": no such file'),
            ("directory", str(path), f'"{path}": not a directory'),
            ("directory", f"{path}/a", f'"{path}/a": not a directory'),
        ):
            with self.assertRaises(Mistake) as caught:
                read(kind, value)
            # Where tests run, paths are longer than what messages repeat.
            self.assertEqual(caught.exception.found.rpartition('"')[2], found.rpartition('"')[2])
            if str(path) not in value:
                self.assertEqual(caught.exception.found, found)

    def test_too_long(self) -> None:
        """The system's other refusals are told in its words."""
        for kind in ("file", "directory"):
            with self.assertRaises(Mistake) as caught:
                read(kind, "a" * 5000)
            self.assertTrue(caught.exception.found.endswith(": file name too long"))
