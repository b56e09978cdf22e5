"""Tests for :mod:`regproxy.model.names`."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.names import (
    DOCKER_HUB,
    looks_like_registry,
    normalise_repository,
    parse_registry,
    parse_repository,
    parse_tag,
)


class RepositoryTests(SynchronousTestCase):
    """Repositories follow the OCI grammar."""

    def test_accepts(self) -> None:
        """Components may hold single separators; keywords of the API are components too."""
        for text in (
            "a",
            "library/alpine",
            "a/b/c/d/e/f",
            "a.b_c__d-e---f/0",
            "manifests/blobs/tags/list",
            "a" * 255,
        ):
            self.assertEqual(parse_repository(text), text)

    def test_refuses(self) -> None:
        """Anything else is refused, the length counting as well."""
        for text in (
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "A",
            "a/B",
            ".",
            "..",
            "a/../b",
            "a..b",
            "a._b",
            "a___b",
            "-a",
            "a-",
            "a/_catalog",
            "a b",
            "a\n",
            "a\x00",
            "a%2fb",
            "a:b",
            "a@b",
            "caf\xe9",
            "\u0131",
            "a\\b",
            "a" * 256,
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_repository(text)

    def test_linear_time(self) -> None:
        """Hostile texts of the greatest length are judged at once."""
        began = time.perf_counter()
        for text in (
            "a" * 254 + "!",
            "a-" * 127,
            "a_" * 127,
            "a/" * 127,
            "-" * 255,
            "a" + "-" * 254,
        ):
            with self.assertRaises(ValueError):
                parse_repository(text)
        self.assertLess(time.perf_counter() - began, 0.5)


class TagTests(SynchronousTestCase):
    """Tags follow the OCI grammar."""

    def test_accepts(self) -> None:
        """Upper case and leading underscores are fine, up to 128 characters."""
        for text in ("latest", "_", "V1.0-rc_2", "1", "a" * 128):
            self.assertEqual(parse_tag(text), text)

    def test_refuses(self) -> None:
        """A leading dot or hyphen, other characters and a 129th one are refused."""
        for text in ("", ".", "..", "-a", "a/b", "a:b", "a+b", "a\n", "\xe9", "a" * 129, "a%61"):
            with self.assertRaises(ValueError, msg=text):
                parse_tag(text)


class RegistryTests(SynchronousTestCase):
    """Registries have one spelling each."""

    def test_canonical(self) -> None:
        """Case, a trailing dot and the spelling of an IPv6 address do not count."""
        for text, expected in {
            "docker.io": "docker.io",
            "Quay.IO": "quay.io",
            "quay.io.": "quay.io",
            "quay.io.:443": "quay.io:443",
            "localhost": "localhost",
            "localhost:5000": "localhost:5000",
            "a-b--c.example": "a-b--c.example",
            "10.1.2.3:5000": "10.1.2.3:5000",
            "[::1]": "[::1]",
            "[0:0:0:0:0:0:0:1]:5000": "[::1]:5000",
            "[2001:DB8::A]": "[2001:db8::a]",
            "xn--caf-dma.example": "xn--caf-dma.example",
            "r:65535": "r:65535",
        }.items():
            self.assertEqual(parse_registry(text), expected)

    def test_refuses(self) -> None:
        """What is no host, or hides another one, is refused."""
        for text in (
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a:",
            ":5000",
            "a:0",
            "a:05000",
            "a:65536",
            "a:99999999999999999999",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]5000",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "[]",
            "a/b",
            "a b",
            "a\n",
            "a\x00.b",
            "user@host",
            "https://quay.io",
            "10.1",
            "2130706433",
            "0x7f.1",
            "10.1.2.256",
            "010.1.2.3",
            "caf\xe9.example",
            "quay\u3002io",
            "\u212auay.io",
            "a" * 64 + ".example",
            ".".join(["a" * 49] * 6),
        ):
            with self.assertRaises(ValueError, msg=text):
                parse_registry(text)

    @given(st.text(alphabet="aZ09.-:[]\u212a", max_size=40))
    def test_canonical_is_stable(self, text: str) -> None:
        """A canonical name is its own canonical name."""
        try:
            name = parse_registry(text)
        except ValueError:
            return
        self.assertEqual(parse_registry(name), name)
        self.assertTrue(name.isascii())
        self.assertEqual(name, name.lower())

    def test_looks_like_registry(self) -> None:
        """A dot, a colon or the word localhost makes a registry of a component."""
        for component in ("quay.io", "a:5000", "localhost", "[::1]", ".."):
            self.assertTrue(looks_like_registry(component), component)
        for component in ("", "library", "a-b", "localhosts", "a_b"):
            self.assertFalse(looks_like_registry(component), component)


class NormaliseTests(SynchronousTestCase):
    """docker.io has official images, other registries have not."""

    def test_library(self) -> None:
        """One component on docker.io gets ``library/``; nothing else changes."""
        self.assertEqual(normalise_repository(DOCKER_HUB, "alpine"), "library/alpine")
        self.assertEqual(normalise_repository(DOCKER_HUB, "library/alpine"), "library/alpine")
        self.assertEqual(normalise_repository(DOCKER_HUB, "a/b"), "a/b")
        self.assertEqual(normalise_repository("quay.io", "alpine"), "alpine")

    def test_length_counts_afterwards(self) -> None:
        """What is too long with ``library/`` is refused."""
        self.assertEqual(len(normalise_repository(DOCKER_HUB, "a" * 247)), 255)
        with self.assertRaises(ValueError):
            normalise_repository(DOCKER_HUB, "a" * 248)
