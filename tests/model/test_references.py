"""Tests for :mod:`regproxy.model.references`."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.digest import Digest
from regproxy.model.mediatypes import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from regproxy.model.references import (
    MAX_DESCRIPTORS,
    Descriptor,
    InvalidManifest,
    References,
    parse_references,
)

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def described(name: str, size: int = 1, media_type: str = LAYER, **more: object) -> dict[str, Any]:
    """A descriptor as it stands in a manifest."""
    digest = str(Digest.of(name.encode()))
    return {"mediaType": media_type, "digest": digest, "size": size, **more}


def expected(name: str, size: int = 1, media_type: str = LAYER) -> Descriptor:
    """The same descriptor, parsed."""
    return Descriptor(Digest.of(name.encode()), size, media_type)


def parsed(manifest: object, content_type: str = OCI_MANIFEST) -> References:
    """The references of a manifest given as an object."""
    return parse_references(json.dumps(manifest).encode(), content_type)


class ManifestTests(SynchronousTestCase):
    """A manifest refers to its config and layers."""

    def test_config_and_layers(self) -> None:
        """Config first, then the layers in order, repetitions included; subject is ignored."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described("config", 7, "application/vnd.oci.image.config.v1+json"),
            "layers": [described("a"), described("b", 0), described("a")],
            "subject": described("subject", 1, OCI_MANIFEST),
            "annotations": {"layers": "x"},
        }
        config = expected("config", 7, "application/vnd.oci.image.config.v1+json")
        blobs = (config, expected("a"), expected("b", 0), expected("a"))
        self.assertEqual(parsed(manifest), References((), blobs, OCI_MANIFEST))

    def test_docker(self) -> None:
        """Docker's schema 2 is read the same way; parameters of the type do not count."""
        manifest = {"config": described("c"), "layers": []}
        found = parsed(manifest, DOCKER_MANIFEST.upper() + "; charset=utf-8")
        self.assertEqual(found, References((), (expected("c"),), DOCKER_MANIFEST))

    def test_foreign_layers(self) -> None:
        """A layer with urls is fetched elsewhere; an empty list of urls says nothing."""
        manifest = {
            "config": described("c"),
            "layers": [
                described("a", urls=["https://elsewhere.example/a"]),
                described("b", urls=[]),
                described("d", urls=None),
            ],
        }
        self.assertEqual(parsed(manifest).blobs, (expected("c"), expected("b"), expected("d")))

    def test_absent_and_null(self) -> None:
        """Absent and null lists are empty, an absent media type is empty text."""
        self.assertEqual(parsed({"layers": None}), References((), (), OCI_MANIFEST))
        layer = described("a")
        del layer["mediaType"]
        self.assertEqual(parsed({"layers": [layer]}).blobs, (expected("a", media_type=""),))


class IndexTests(SynchronousTestCase):
    """An index refers to manifests."""

    def test_children(self) -> None:
        """Children come in order, for both kinds of index."""
        children = [described("x", 5, OCI_MANIFEST), described("y", 6, OCI_INDEX)]
        for content_type in (OCI_INDEX, DOCKER_LIST):
            self.assertEqual(
                parsed({"manifests": children}, content_type),
                References(
                    (expected("x", 5, OCI_MANIFEST), expected("y", 6, OCI_INDEX)), (), content_type
                ),
            )


class UnknownTests(SynchronousTestCase):
    """Other documents refer to nothing."""

    def test_unknown_type(self) -> None:
        """A type that is not one of the four has no references, valid or not."""
        for content_type in ("application/json", "", "application/vnd.oci.artifact+json"):
            found = parsed({"layers": [1], "manifests": 2}, content_type)
            self.assertEqual(found, References((), (), content_type))


class InvalidTests(SynchronousTestCase):
    """What cannot be relied on is refused."""

    def refused(self, data: bytes, content_type: str = OCI_MANIFEST) -> None:
        """Assert that this manifest is refused, in a message of one short line."""
        with self.assertRaises(InvalidManifest, msg=data[:60]) as caught:
            parse_references(data, content_type)
        self.assertIsInstance(caught.exception, ValueError)
        self.assertLess(len(str(caught.exception)), 400)
        self.assertNotIn("\n", str(caught.exception))

    def test_no_object(self) -> None:
        """Anything but one JSON object in UTF-8 is refused."""
        for data in (
            b"",
            b"{",
            b"{} {}",
            b"null",
            b"true",
            b"1",
            b"1.5",
            b'"x"',
            b"[]",
            b"\xff",
            b"\xef\xbb\xbf{}",
            '{"layers": []}'.encode("utf-16"),
            b'{"x": NaN}',
            b'{"x": -Infinity}',
            b'{"x": ' + b"9" * 100_000 + b"}",
        ):
            self.refused(data)

    def test_nested_deeply(self) -> None:
        """Nesting that exhausts the parser is refused like anything else."""
        self.refused(b"[" * 1_000_000)
        self.refused(b'{"a":' * 200_000 + b"1" + b"}" * 200_000)

    def test_wrong_types(self) -> None:
        """Every field that is read has its type."""
        good = described("a")
        manifests: tuple[dict[str, object], ...] = (
            {"mediaType": 1},
            {"config": []},
            {"config": "x"},
            {"config": {}},
            {"layers": {}},
            {"layers": ""},
            {"layers": 0},
            {"layers": [None]},
            {"layers": [[]]},
            {"layers": [good | {"digest": None}]},
            {"layers": [good | {"digest": 5}]},
            {"layers": [good | {"digest": "sha256:abc"}]},
            {"layers": [good | {"digest": good["digest"].upper()}]},
            {"layers": [good | {"size": None}]},
            {"layers": [good | {"size": "1"}]},
            {"layers": [good | {"size": 1.0}]},
            {"layers": [good | {"size": True}]},
            {"layers": [good | {"size": -1}]},
            {"layers": [good | {"size": 2**63}]},
            {"layers": [good | {"size": 10**4000}]},
            {"layers": [good | {"size": 1e999}]},
            {"layers": [good | {"mediaType": 1}]},
            {"layers": [good | {"urls": "https://elsewhere.example"}]},
        )
        for manifest in manifests:
            self.refused(json.dumps(manifest).encode())

    def test_both_kinds(self) -> None:
        """A document that is a manifest to one reader and an index to another is refused."""
        layers = {"layers": [described("a")]}
        manifests = {"manifests": [described("b")]}
        for manifest, content_type in (
            (layers | manifests, OCI_MANIFEST),
            (layers | manifests, OCI_INDEX),
            (manifests | {"config": described("c")}, DOCKER_LIST),
            (layers | {"mediaType": OCI_INDEX}, OCI_MANIFEST),
            (manifests | {"mediaType": DOCKER_MANIFEST}, OCI_INDEX),
        ):
            self.refused(json.dumps(manifest).encode(), content_type)

    def test_related_kinds_agree(self) -> None:
        """The same kind in docker's and OCI's spelling is no contradiction."""
        found = parsed({"mediaType": DOCKER_MANIFEST, "layers": [described("a")]}, OCI_MANIFEST)
        self.assertEqual(found.blobs, (expected("a"),))

    def test_twice_the_same_key(self) -> None:
        """A key that is read may come once; others may repeat."""
        layer = json.dumps(described("a"))
        self.refused(f'{{"layers": [], "layers": [{layer}]}}'.encode())
        self.refused(f'{{"layers": [{layer[:-1]}, "size": 2}}]}}'.encode())
        found = parse_references(b'{"annotations": {"x": "1", "x": "2"}}', OCI_MANIFEST)
        self.assertEqual(found.blobs, ())

    def test_too_many(self) -> None:
        """10,000 layers are read, one more is refused."""
        layers = [described("a")] * MAX_DESCRIPTORS
        self.assertEqual(len(parsed({"layers": layers}).blobs), MAX_DESCRIPTORS)
        self.refused(json.dumps({"layers": [*layers, described("a")]}).encode())

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["config", "layers", "manifests", "digest", "size", "urls"]),
                    inner,
                )
            ),
            max_leaves=12,
        ),
        st.sampled_from([OCI_MANIFEST, OCI_INDEX, "text/plain"]),
    )
    def test_any_json(self, manifest: object, content_type: str) -> None:
        """Any JSON gives references or ValueError, never another error."""
        with contextlib.suppress(ValueError):
            parsed(manifest, content_type)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes give references or ValueError, never another error."""
        with contextlib.suppress(ValueError):
            parse_references(data, OCI_MANIFEST)
