"""Tests for :mod:`regproxy.model.digest`."""

from __future__ import annotations

import hashlib

from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.digest import Digest

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class DigestTests(SynchronousTestCase):
    """A digest is well-formed or does not exist."""

    def test_parses_what_it_prints(self) -> None:
        """Both algorithms survive the way through text."""
        for text in (EMPTY, "sha512:" + "0f" * 64):
            self.assertEqual(str(Digest.parse(text)), text)

    def test_parts(self) -> None:
        """Algorithm and digits are apart, without the colon."""
        digest = Digest.parse(EMPTY)
        self.assertEqual((digest.algorithm, digest.hex), ("sha256", EMPTY[7:]))

    def test_refuses_everything_else(self) -> None:
        """Wrong length, case, algorithm, alphabet or decoration is refused."""
        digits = EMPTY[7:]
        for text in (
            "",
            ":",
            "sha256",
            "sha256:",
            digits,
            EMPTY[:-1],
            EMPTY + "0",
            EMPTY + "\n",
            " " + EMPTY,
            EMPTY.upper(),
            "SHA256:" + digits,
            "sha256:" + digits.upper(),
            "sha256::" + digits[1:],
            "sha256:" + "g" * 64,
            "sha256:" + "\u0661" * 64,  # Arabic digits are digits to str.isdigit
            "sha256:../" + digits[3:],
            "sha512:" + digits,
            "sha256:" + digits * 2,
            "sha384:" + "0" * 96,
            "md5:" + "0" * 32,
            "sha256+b64:" + digits,
        ):
            with self.assertRaises(ValueError, msg=text):
                Digest.parse(text)

    def test_no_way_around_the_check(self) -> None:
        """The constructor checks as well, and a digest cannot be changed."""
        with self.assertRaises(ValueError):
            Digest("sha256", "../../etc/passwd")
        with self.assertRaises(FrozenInstanceError):
            Digest.parse(EMPTY).hex = "x"  # type: ignore[misc]

    def test_message_is_short(self) -> None:
        """A megabyte of nonsense makes a message of one line."""
        with self.assertRaises(ValueError) as caught:
            Digest.parse("sha256:\n" + "x" * 1_000_000)
        message = str(caught.exception)
        self.assertLess(len(message), 300)
        self.assertNotIn("\n", message)

    def test_of(self) -> None:
        """Known data has its known digest, sha256 unless asked otherwise."""
        self.assertEqual(str(Digest.of(b"")), EMPTY)
        self.assertEqual(Digest.of(b"x", "sha512").hex, hashlib.sha512(b"x").hexdigest())

    def test_of_unknown_algorithm(self) -> None:
        """Only the two algorithms are computed, whatever hashlib offers."""
        with self.assertRaises(ValueError):
            Digest.of(b"", "md5")

    def test_equal_digests_are_one_key(self) -> None:
        """Digests are values: equal ones find each other in a dictionary."""
        self.assertEqual({Digest.of(b""): 1}[Digest.parse(EMPTY)], 1)

    @given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]), st.integers(0, 200))
    def test_hasher_agrees_with_of(self, data: bytes, algorithm: str, cut: int) -> None:
        """Hashing piece by piece gives the digest of the whole, copies being independent."""
        digest = Digest.of(data, algorithm)
        hasher = digest.hasher()
        hasher.update(data[:cut])
        copied = hasher.copy()
        hasher.update(memoryview(data)[cut:])
        self.assertEqual(Digest(algorithm, hasher.hexdigest()), digest)
        self.assertEqual(Digest.of(data[:cut], algorithm).hex, copied.hexdigest())

    @given(st.text(max_size=100))
    def test_any_text(self, text: str) -> None:
        """Arbitrary text is refused with ValueError, or is its own spelling."""
        try:
            digest = Digest.parse(text)
        except ValueError:
            return
        self.assertEqual(str(digest), text)
