"""Media types of manifests, and which of them a client accepts.

What a tag means depends on the accepted types, so the accepted types are part of a tag's key. To
keep that key small it is a number, the variant: one bit for each of the four manifest types and one
for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

_BITS = {DOCKER_MANIFEST: 1, DOCKER_LIST: 2, OCI_MANIFEST: 4, OCI_INDEX: 8}
_ALL_FOUR = 15
_WILDCARD = 16
FULL_VARIANT = _ALL_FOUR | _WILDCARD

_INDEXES = frozenset({DOCKER_LIST, OCI_INDEX})
_RANGES = frozenset({"*/*", "application/*"})
# An unclosed quote runs to the end, so that every text is scanned once.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ZERO = re.compile(r"0(?:\.0*)?")
# Longer Accept values are read, but not remembered.
_REMEMBERED_CHARACTERS = 2048


def essence(media_type: str) -> str:
    """The media type in lower case, without its parameters."""
    return media_type.partition(";")[0].strip().lower()


def is_index(media_type: str) -> bool:
    """Whether it is an OCI index or a docker manifest list."""
    return essence(media_type) in _INDEXES


def is_manifest(media_type: str) -> bool:
    """Whether it is one of the four types that are stored, indexes included."""
    return essence(media_type) in _BITS


def accept_variant(values: Sequence[str]) -> int:
    """Which manifest types a client accepts.

    Args:
        values: The values of the request's Accept headers, none or more.

    Returns:
        The sum of 1 (docker manifest), 2 (docker list), 4 (OCI manifest), 8 (OCI index) and 16
        (anything: ``*/*``, ``application/*`` or no Accept at all). A type with ``q=0`` is left out;
        beside a wildcard it leaves the other ones of the four and no wildcard. 0 says that none of
        the four is accepted.
    """
    joined = ",".join(values)
    if len(joined) > _REMEMBERED_CHARACTERS:
        return _variant(joined)
    return _remembered_variant(joined)


@lru_cache(maxsize=FULL_VARIANT + 1)
def accept_header(variant: int) -> str:
    """The Accept value that asks upstream for a variant, always the same text.

    Variant 0 asks for schema 1, the only manifests that are left.
    """
    types = [media_type for media_type, bit in _BITS.items() if variant & bit]
    if variant & _WILDCARD:
        types.append("*/*")
    return ", ".join(types or sorted(SCHEMA1))


def _variant(accept: str) -> int:
    wanted = refused = 0
    anything = True
    for element in _QUOTED.sub("", accept).split(","):
        media_type, *parameters = element.split(";")
        media_type = media_type.strip().lower()
        if not media_type:
            continue
        anything = False
        if not _excluded(parameters):
            wanted |= _WILDCARD if media_type in _RANGES else _BITS.get(media_type, 0)
        else:
            refused |= _BITS.get(media_type, 0)
    if anything:
        return _WILDCARD
    if wanted & _WILDCARD and refused:
        # The wildcard bit cannot say "anything but": say the rest by name.
        wanted = _ALL_FOUR
    return wanted & ~refused


_remembered_variant = lru_cache(maxsize=256)(_variant)


def _excluded(parameters: Sequence[str]) -> bool:
    for parameter in parameters:
        name, _, weight = parameter.partition("=")
        if name.strip().lower() == "q" and _ZERO.fullmatch(weight.strip()) is not None:
            return True
    return False
