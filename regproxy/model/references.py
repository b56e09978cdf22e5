"""What a manifest refers to.

OCI image specification 1.1, "Image Manifest" and "Image Index"
(https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md and image-index.md); docker's
schema 2 has the same fields. Content that two readers could understand differently is refused, as
clients do since CVE-2021-41190: what it refers to would depend on the reader.
"""

from __future__ import annotations

import json

from attrs import frozen

from regproxy.model.digest import Digest
from regproxy.model.errors import shown
from regproxy.model.mediatypes import essence, is_index, is_manifest

MAX_DESCRIPTORS = 10_000

_MAX_SIZE = 2**63 - 1
# The keys that are read here. Another key given twice changes nothing.
_READ = frozenset({"config", "digest", "layers", "manifests", "mediaType", "size", "urls"})


class InvalidManifest(ValueError):
    """What a manifest refers to cannot be said."""


@frozen
class Descriptor:
    """A reference to one content.

    Attributes:
        digest: The content's digest.
        size: Its size in bytes as the manifest states it: a hint until upstream confirms it.
        media_type: Its media type as written, empty if there is none.
    """

    digest: Digest
    size: int
    media_type: str


@frozen
class References:
    """What one manifest refers to, in its order, repetitions included.

    Attributes:
        children: The manifests of an index.
        blobs: The config and the layers of a manifest, without the layers that have ``urls`` of
            their own: a registry need not have those.
        media_type: The manifest's own media type, lower case, without parameters.
    """

    children: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    media_type: str


def parse_references(data: bytes, content_type: str) -> References:
    """What a manifest refers to; nothing if its type is none of the four known ones.

    Args:
        data: The manifest.
        content_type: The Content-Type that the registry served it with.

    Raises:
        InvalidManifest: It is no JSON object, nested too deeply, invalid, ambiguous, or has more
            than 10,000 layers or children.
    """
    manifest = _loaded(data)
    media_type = essence(content_type)
    if not is_manifest(media_type):
        return References((), (), media_type)
    index = is_index(media_type)
    _check_kind(manifest, index=index)
    if index:
        return References(_descriptors(manifest, "manifests"), (), media_type)
    config = manifest.get("config")
    configs = () if config is None else (_descriptor(config, "config"),)
    layers = _descriptors(manifest, "layers", skip_foreign=True)
    return References((), configs + layers, media_type)


def _loaded(data: bytes) -> dict[str, object]:
    try:
        # json would also guess at UTF-16 and UTF-32, which clients do not.
        loaded = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant
        )
    except RecursionError:
        raise InvalidManifest("the manifest is nested too deeply") from None
    except InvalidManifest:
        raise
    except ValueError as problem:
        raise InvalidManifest(f"the manifest is no JSON: {problem}") from None
    if not isinstance(loaded, dict):
        raise InvalidManifest(f"the manifest is {_kind(loaded)}, expected an object")
    return loaded


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen and key in _READ:
                raise InvalidManifest(f"the manifest has the key {key} twice")
            seen.add(key)
    return made


def _constant(name: str) -> object:
    raise InvalidManifest(f"the manifest has {name}, which is no JSON")


def _check_kind(manifest: dict[str, object], *, index: bool) -> None:
    own = manifest.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise InvalidManifest(f"mediaType is {_kind(own)}, expected text")
    if own is not None and is_manifest(own) and is_index(own) != index:
        raise InvalidManifest(f"mediaType is {shown(own)}, which the Content-Type contradicts")
    others = ("config", "layers") if index else ("manifests",)
    for key in others:
        if manifest.get(key):
            raise InvalidManifest(
                f"found {key}, expected none in {'an index' if index else 'a manifest'}"
            )


def _descriptors(
    manifest: dict[str, object], key: str, *, skip_foreign: bool = False
) -> tuple[Descriptor, ...]:
    items = manifest.get(key)
    if items is None:
        # Go writes an empty list as null.
        return ()
    if not isinstance(items, list):
        raise InvalidManifest(f"{key} is {_kind(items)}, expected a list")
    if len(items) > MAX_DESCRIPTORS:
        raise InvalidManifest(f"{key} has {len(items)} entries, expected at most {MAX_DESCRIPTORS}")
    made = []
    for position, item in enumerate(items):
        path = f"{key}[{position}]"
        descriptor = _descriptor(item, path)
        if not (skip_foreign and _foreign(item, path)):
            made.append(descriptor)
    return tuple(made)


def _descriptor(item: object, path: str) -> Descriptor:
    if not isinstance(item, dict):
        raise InvalidManifest(f"{path} is {_kind(item)}, expected an object")
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType")
    if not isinstance(digest, str):
        raise InvalidManifest(f"{path}.digest is {_kind(digest)}, expected text")
    # bool is an int to isinstance.
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise InvalidManifest(f"{path}.size is {_kind(size)}, expected a number of bytes")
    if media_type is not None and not isinstance(media_type, str):
        raise InvalidManifest(f"{path}.mediaType is {_kind(media_type)}, expected text")
    try:
        return Descriptor(Digest.parse(digest), size, media_type or "")
    except ValueError as problem:
        raise InvalidManifest(f"{path}.digest: {problem}") from None


def _foreign(item: object, path: str) -> bool:
    urls = item.get("urls") if isinstance(item, dict) else None
    if urls is not None and not isinstance(urls, list):
        raise InvalidManifest(f"{path}.urls is {_kind(urls)}, expected a list")
    return bool(urls)


def _kind(value: object) -> str:
    if value is None:
        return "missing or null"
    if type(value) is int and value.bit_length() > 64:
        return "a number beyond 64 bits"
    if isinstance(value, (bool, int, float)):
        return f"{value}"
    return {"str": "text", "list": "a list", "dict": "an object"}[type(value).__name__]
