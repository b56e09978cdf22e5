"""Tests for :mod:`regproxy.model.mediatypes`."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.mediatypes import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    FULL_VARIANT,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
    accept_header,
    accept_variant,
    essence,
    is_index,
    is_manifest,
)

FOUR = (DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX)


class KindTests(SynchronousTestCase):
    """A media type is recognised whatever its parameters and case."""

    def test_kinds(self) -> None:
        """Indexes are manifests; schema 1 and everything else is none."""
        for media_type, index, manifest in (
            (DOCKER_MANIFEST, False, True),
            (DOCKER_LIST, True, True),
            (OCI_MANIFEST, False, True),
            (OCI_INDEX, True, True),
            (OCI_INDEX.upper() + " ; charset=utf-8", True, True),
            ("application/json", False, False),
            ("", False, False),
        ):
            found = (is_index(media_type), is_manifest(media_type))
            self.assertEqual(found, (index, manifest), media_type)
        for media_type in SCHEMA1:
            self.assertFalse(is_manifest(media_type))

    def test_essence(self) -> None:
        """Parameters, blanks and case go."""
        self.assertEqual(essence(" Text/HTML ;q=1;x"), "text/html")


class VariantTests(SynchronousTestCase):
    """What a client accepts is a small number."""

    def test_bits(self) -> None:
        """Each type has its bit, in the order of the constants."""
        for position, media_type in enumerate(FOUR):
            self.assertEqual(accept_variant([media_type]), 1 << position)

    def test_wildcards(self) -> None:
        """No header, an empty one and both wildcards accept anything."""
        for values in ([], [""], [" , "], ["*/*"], ["application/*"], ["text/html, */*;q=0.1"]):
            self.assertEqual(accept_variant(values), 16, values)

    def test_several_headers_are_one(self) -> None:
        """Values of several headers and of one header count the same."""
        self.assertEqual(accept_variant(FOUR), 15)
        self.assertEqual(accept_variant([", ".join(FOUR), "*/*"]), FULL_VARIANT)

    def test_other_types(self) -> None:
        """Other types alone accept none of the four."""
        for value in ("text/html", "application/json", ", ".join(SCHEMA1), "*/*;q=0", "image/*"):
            self.assertEqual(accept_variant([value]), 0, value)

    def test_weights(self) -> None:
        """Only a weight of zero excludes, however it is written; nonsense does not."""
        for weight in ("0", "0.", "0.0", "0.000", " 0 "):
            self.assertEqual(accept_variant([f"{OCI_INDEX};q={weight}, {OCI_MANIFEST}"]), 4)
        for weight in ("1", "0.1", "0.001", "", "x", "00", "-0"):
            self.assertEqual(accept_variant([f"{OCI_INDEX}; Q={weight}, {OCI_MANIFEST}"]), 12)

    def test_excluded_beside_itself(self) -> None:
        """A type that is both listed and excluded is excluded."""
        self.assertEqual(accept_variant([OCI_INDEX, OCI_MANIFEST, f"{OCI_INDEX};q=0"]), 4)

    def test_excluded_beside_wildcard(self) -> None:
        """Anything but one type is the other three by name."""
        self.assertEqual(accept_variant([f"*/*, {OCI_INDEX};q=0"]), 7)

    def test_quoted_parameters(self) -> None:
        """A comma or a weight inside quotes is no separator and no weight."""
        value = f'{OCI_INDEX};profile="a, {DOCKER_LIST};q=0\\"", {OCI_MANIFEST}'
        self.assertEqual(accept_variant([value]), 12)
        self.assertEqual(accept_variant([f'{OCI_INDEX};a="b, {OCI_MANIFEST}']), 8)

    def test_linear_time(self) -> None:
        """Hostile quotes and commas are read in one pass."""
        began = time.perf_counter()
        for value in (
            '"\\' * 50_000,
            '"' * 99_999,
            "," * 100_000,
            ";" * 100_000,
            '"' + "\\" * 99_999,
        ):
            accept_variant([value])
        self.assertLess(time.perf_counter() - began, 2)

    @given(st.lists(st.text(max_size=60), max_size=4))
    def test_any_value(self, values: list[str]) -> None:
        """Any header is some variant."""
        self.assertTrue(0 <= accept_variant(values) <= FULL_VARIANT)


class AcceptHeaderTests(SynchronousTestCase):
    """A variant has one Accept value."""

    def test_round_trip(self) -> None:
        """The value of a variant means that variant again."""
        for variant in range(FULL_VARIANT + 1):
            self.assertEqual(accept_variant([accept_header(variant)]), variant)

    def test_wildcard_last(self) -> None:
        """The wildcard comes last, and alone when nothing else is wanted."""
        self.assertTrue(accept_header(FULL_VARIANT).endswith(", */*"))
        self.assertEqual(accept_header(16), "*/*")

    def test_none_asks_for_schema1(self) -> None:
        """Who accepts none of the four is asked for as a client of schema 1."""
        self.assertEqual(accept_header(0), ", ".join(sorted(SCHEMA1)))
