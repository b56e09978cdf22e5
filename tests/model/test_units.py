"""Tests for :mod:`regproxy.model.units`."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.units import parse_duration, parse_size

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.none()),
)


class SizeTests(SynchronousTestCase):
    """Sizes are whole bytes."""

    def test_units(self) -> None:
        """Binary units are powers of 1024, decimal ones powers of 1000."""
        for value, expected in (
            ("200GiB", 200 * 2**30),
            ("64MiB", 64 * 2**20),
            ("16KiB", 16384),
            ("1 TiB", 2**40),
            ("1PiB", 2**50),
            ("0B", 0),
            ("5kB", 5000),
            ("5KB", 5000),
            ("3MB", 3_000_000),
            (4096, 4096),
            (0, 0),
        ):
            self.assertEqual(parse_size(value), expected)

    def test_refuses(self) -> None:
        """No unit, an unclear unit, a fraction, a sign or another type is refused."""
        refused: tuple[object, ...] = (
            "",
            "64",
            "64M",
            "64mib",
            "64 Mib",
            "-1MiB",
            "+1MiB",
            "1.5GiB",
            "GiB",
            "1GiB ",
            "1GiB\n",
            "\u0661GiB",
            "9" * 19 + "PiB",
            "9" * 10_000 + "B",
            -1,
            2**63,
            10**5000,
            True,
            1.0,
            None,
            [],
        )
        for value in refused:
            with self.assertRaises(ValueError):
                parse_size(value)

    def test_says_what_was_expected(self) -> None:
        """The message quotes what was found and gives an example."""
        with self.assertRaises(ValueError) as caught:
            parse_size("64M")
        self.assertEqual(
            str(caught.exception),
            'found \'64M\', expected a size such as "64MiB" or "200GiB", or a number of bytes',
        )

    @given(st.integers(0, 2**20), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
    def test_text_means_its_product(self, number: int, unit: str) -> None:
        """A number and a binary unit mean their exact product."""
        power = ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
        self.assertEqual(parse_size(f"{number}{unit}"), number * 1024**power)

    @given(ANYTHING)
    def test_anything(self, value: object) -> None:
        """Whatever TOML may hold is a size of at most 63 bits, or a ValueError."""
        try:
            size = parse_size(value)
        except ValueError:
            return
        self.assertTrue(0 <= size < 2**63)


class DurationTests(SynchronousTestCase):
    """Durations are seconds."""

    def test_units(self) -> None:
        """Units add up; numbers are seconds."""
        for value, expected in (
            ("5m", 300.0),
            ("30d", 2_592_000.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("1d2h3m4s5ms", 93784.005),
            ("1.5s", 1.5),
            ("5m5ms", 300.005),
            ("90s", 90.0),
            ("0s", 0.0),
            (10, 10.0),
            (0.5, 0.5),
            (0, 0.0),
        ):
            result = parse_duration(value)
            self.assertEqual(result, expected)
            self.assertIs(type(result), float)

    def test_refuses(self) -> None:
        """No unit, units out of order or twice, signs and other types are refused."""
        refused: tuple[object, ...] = (
            "",
            "5",
            "m",
            "5 m",
            "30m1h",
            "1h1h",
            "-5m",
            "5M",
            "5min",
            "1e3s",
            ".5s",
            "1.s",
            "1..5s",
            "5m\n",
            "\u0661m",
            "9" * 10_000 + "s",
            "inf",
            "nan",
            -1,
            -0.5,
            math.inf,
            math.nan,
            10**400,
            10**5000,
            True,
            None,
            {},
        )
        for value in refused:
            with self.assertRaises(ValueError):
                parse_duration(value)

    def test_says_what_was_expected(self) -> None:
        """The message quotes what was found and gives examples."""
        with self.assertRaises(ValueError) as caught:
            parse_duration([])
        self.assertEqual(
            str(caught.exception),
            'found a list, expected a duration such as "5m", "1h30m" or "250ms", or a number of '
            "seconds",
        )

    @given(st.integers(0, 400), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9999))
    def test_sum(self, days: int, hours: int, minutes: int, milliseconds: int) -> None:
        """The units add up to the nearest float of the exact sum."""
        value = parse_duration(f"{days}d{hours}h{minutes}m{milliseconds}ms")
        exact = ((days * 24 + hours) * 60 + minutes) * 60 + milliseconds / 1000
        self.assertAlmostEqual(value, exact, places=6)

    @given(ANYTHING)
    def test_anything(self, value: object) -> None:
        """Whatever TOML may hold is a finite duration, or a ValueError."""
        try:
            seconds = parse_duration(value)
        except ValueError:
            return
        self.assertTrue(math.isfinite(seconds) and seconds >= 0)
