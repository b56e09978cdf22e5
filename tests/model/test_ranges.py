"""Tests for :mod:`regproxy.model.ranges`."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.errors import RegistryError
from regproxy.model.ranges import ByteRange, content_range, parse_content_range, parse_range


class ByteRangeTests(SynchronousTestCase):
    """A range holds at least one byte."""

    def test_length(self) -> None:
        """The length is the difference of the half-open ends."""
        self.assertEqual(ByteRange(3, 10).length, 7)

    def test_refuses_empty_and_negative(self) -> None:
        """Empty, reversed and negative ranges do not exist."""
        for start, stop in ((0, 0), (5, 4), (-1, 3)):
            with self.assertRaises(ValueError):
                ByteRange(start, stop)


class ParseRangeTests(SynchronousTestCase):
    """Range headers follow RFC 9110 section 14."""

    def test_single(self) -> None:
        """Closed, open and suffix ranges are cut to the content."""
        for header, expected in {
            "bytes=0-0": (0, 1),
            "bytes=0-9": (0, 10),
            "bytes=2-4": (2, 5),
            "bytes=2-": (2, 10),
            "bytes=0-": (0, 10),
            "bytes=9-": (9, 10),
            "bytes=5-5000": (5, 10),
            "bytes=-3": (7, 10),
            "bytes=-10": (0, 10),
            "bytes=-11": (0, 10),
            "bytes=-" + "9" * 10_000: (0, 10),
            "bytes=1-" + "9" * 10_000: (1, 10),
            "bytes=" + "0" * 10_000 + "1-2": (1, 3),
            "BYTES=1-2": (1, 3),
            " bytes=1-2 ": (1, 3),
            "bytes= 1-2": (1, 3),
            "bytes=1-2,": (1, 3),
            "bytes=,\t1-2 ,,": (1, 3),
        }.items():
            self.assertEqual(parse_range(header, 10), ByteRange(*expected), header[:40])

    def test_whole(self) -> None:
        """No header, another unit and several ranges give the whole."""
        for header in (None, "items=0-4", "x-y=", "bytes=0-1,3-4", "bytes=0-1, -1"):
            self.assertIsNone(parse_range(header, 10), header)

    def test_refused(self) -> None:
        """Malformed and unsatisfiable ranges are 416 and tell the size."""
        for header in (
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=-0",
            "bytes=-000",
            "bytes=10-",
            "bytes=10-20",
            "bytes=" + "9" * 10_000 + "-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1--2",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=1 - 2",
            "bytes=1",
            "bytes=\u0661-\u0662",
            "bytes=0-1,x",
            "bytes =0-1",
            "=0-1",
            "by tes=0-1",
            "bytes=0-1;x",
        ):
            with self.assertRaises(RegistryError, msg=header[:40]) as caught:
                parse_range(header, 10)
            self.assertEqual(caught.exception.status, 416)
            self.assertIn(("Content-Range", "bytes */10"), caught.exception.headers)

    def test_empty_content(self) -> None:
        """Nothing of an empty content can be sent as a part."""
        self.assertIsNone(parse_range("bytes=-5", 0))
        with self.assertRaises(RegistryError):
            parse_range("bytes=0-", 0)

    def test_linear_time(self) -> None:
        """A header of many thousand elements is judged at once."""
        began = time.perf_counter()
        self.assertIsNone(parse_range("bytes=" + "0-1," * 50_000, 10))
        with self.assertRaises(RegistryError):
            parse_range("bytes=" + "1" * 200_000, 10)
        self.assertLess(time.perf_counter() - began, 2)

    @given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 150))
    def test_like_slicing(self, first: int, last: int, size: int) -> None:
        """A satisfiable range is the slice of the content that its ends say."""
        content = range(size)
        try:
            r = parse_range(f"bytes={first}-{last}", size)
        except RegistryError:
            self.assertTrue(first >= size or last < first)
            return
        assert r is not None
        self.assertEqual(content[r.start : r.stop], content[first : last + 1])

    @given(st.integers(1, 200), st.integers(1, 150))
    def test_suffix_like_slicing(self, length: int, size: int) -> None:
        """A suffix is the end of the content, at most all of it."""
        r = parse_range(f"bytes=-{length}", size)
        assert r is not None
        self.assertEqual(range(size)[r.start : r.stop], range(size)[-length:])

    @given(st.text(alphabet="bytes=0123456789-, \t*", max_size=40), st.integers(0, 50))
    def test_any_header(self, header: str, size: int) -> None:
        """Any header gives a range inside the content, the whole, or 416."""
        try:
            r = parse_range(header, size)
        except RegistryError as error:
            self.assertEqual(error.status, 416)
            return
        self.assertTrue(r is None or 0 <= r.start < r.stop <= size)


class ContentRangeTests(SynchronousTestCase):
    """Content-Range is written and read."""

    def test_written(self) -> None:
        """The last byte is inclusive on the wire; an unknown size is a star."""
        self.assertEqual(content_range(ByteRange(0, 10), 10), "bytes 0-9/10")
        self.assertEqual(content_range(ByteRange(5, 6), None), "bytes 5-5/*")

    def test_refused(self) -> None:
        """What contradicts itself, or is no 206's, is refused."""
        for text in (
            "",
            "bytes",
            "bytes */10",
            "bytes 0-9",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes=0-9/10",
            "bytes 0-9/",
            "bytes 0-9/10, bytes 0-9/10",
            "bytes -9/10",
            "items 0-9/10",
            "bytes 0-\u0669/10",
            "bytes 0-9/" + "9" * 10_000,
        ):
            with self.assertRaises(ValueError, msg=text[:40]):
                parse_content_range(text)

    def test_read(self) -> None:
        """Unit and blanks are read with tolerance."""
        self.assertEqual(parse_content_range("bytes 0-9/10"), (0, 10, 10))
        self.assertEqual(parse_content_range(" Bytes  3-3/* "), (3, 4, None))

    @given(st.integers(0, 2**62), st.integers(1, 2**62), st.none() | st.integers(0, 2**60))
    def test_read_what_is_written(self, start: int, length: int, more: int | None) -> None:
        """Every range survives the way over the wire."""
        total = None if more is None else start + length + more
        text = content_range(ByteRange(start, start + length), total)
        self.assertEqual(parse_content_range(text), (start, start + length, total))
