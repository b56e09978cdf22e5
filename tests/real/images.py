"""Images made from nothing but their description: the same bytes each time, in either format."""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import IO

from attrs import frozen

_PIECE = 1 << 20


class Format(Enum):
    """The media types of a family: image manifest, index, config, layer."""

    DOCKER = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    )
    OCI = (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    )

    @property
    def manifest(self) -> str:
        """The media type of one platform's manifest."""
        return self.value[0]

    @property
    def index(self) -> str:
        """The media type of a list of manifests."""
        return self.value[1]

    @property
    def config(self) -> str:
        """The media type of an image's configuration."""
        return self.value[2]

    @property
    def layer(self) -> str:
        """The media type of a gzipped layer."""
        return self.value[3]


ACCEPT = {
    "Accept": ", ".join(kind for form in Format for kind in (form.index, form.manifest)),
}
"""The request header of a client that takes either format; docker-registry converts for others."""


@frozen
class Noise:
    """Bytes that do not compress, the same for the same seed.

    Args:
        seed: what they are made from.
        size: how many, in bytes.
    """

    seed: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """All of them, 1 MiB at a time."""
        source = random.Random(self.seed)
        for start in range(0, self.size, _PIECE):
            yield source.randbytes(min(_PIECE, self.size - start))


@frozen
class Blob:
    """A blob in a file, named by its digest.

    Args:
        digest: ``sha256:`` and 64 hex digits.
        size: in bytes.
        path: the file.
    """

    digest: str
    size: int
    path: Path

    @classmethod
    def of(cls, data: bytes, directory: Path) -> Blob:
        """Writes ``data`` into ``directory``."""
        digest = sha256(data)
        path = directory / digest.removeprefix("sha256:")
        path.write_bytes(data)
        return cls(digest, len(data), path)


@frozen
class Layer:
    """A gzipped tar.

    Args:
        blob: the layer as registries hold it.
        diff_id: the digest of the tar inside.
        files: name in the tar to digest of its content.
    """

    blob: Blob
    diff_id: str
    files: Mapping[str, str]

    @classmethod
    def make(cls, directory: Path, files: Mapping[str, Noise], *, level: int = 1) -> Layer:
        """Packs files. ``level`` is gzip's: 0 stores, as quick as can be."""
        packer = zlib.compressobj(level, zlib.DEFLATED, 31)
        packed, plain = hashlib.sha256(), hashlib.sha256()
        digests: dict[str, str] = {}
        path, size = directory / "layer.part", 0
        with path.open("wb") as output:
            for piece in _tar(files, digests):
                plain.update(piece)
                data = packer.compress(piece)
                packed.update(data)
                size += output.write(data)
            data = packer.flush()
            packed.update(data)
            size += output.write(data)
        path = path.rename(directory / packed.hexdigest())
        blob = Blob(f"sha256:{packed.hexdigest()}", size, path)
        return cls(blob, f"sha256:{plain.hexdigest()}", digests)


@frozen
class Manifest:
    """An image's manifest, or an index of some.

    Args:
        data: the JSON, byte for byte.
        media_type: its media type.
        platform: such as ``linux/amd64``, empty for an index.
        config: the image's configuration, None for an index.
        layers: from the lowest up, none for an index.
        children: an index's manifests.
    """

    data: bytes
    media_type: str
    platform: str = ""
    config: Blob | None = None
    layers: tuple[Layer, ...] = ()
    children: tuple[Manifest, ...] = ()

    @property
    def digest(self) -> str:
        """The manifest's own digest."""
        return sha256(self.data)

    @property
    def files(self) -> dict[str, str]:
        """Every file of the image: name to digest of its content."""
        return {name: digest for layer in self.layers for name, digest in layer.files.items()}

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Config and layers, those of children too, each once."""
        found = [] if self.config is None else [self.config]
        found += [layer.blob for layer in self.layers]
        found += [blob for child in self.children for blob in child.blobs]
        return tuple({blob.digest: blob for blob in found}.values())

    def for_platform(self, platform: str) -> Manifest:
        """The manifest that a client of that platform ends with."""
        if self.platform == platform:
            return self
        return next(child for child in self.children if child.platform == platform)


def make_image(
    directory: Path, layers: Sequence[Layer], form: Format, *, architecture: str = "amd64"
) -> Manifest:
    """An image for Linux on ``architecture``; its configuration is written into ``directory``."""
    config = Blob.of(
        _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": {"Cmd": ["/none"]},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                "history": [
                    {"created": "2026-01-01T00:00:00Z", "created_by": f"layer {number}"}
                    for number, _ in enumerate(layers)
                ],
            }
        ),
        directory,
    )
    data = _json(
        {
            "schemaVersion": 2,
            "mediaType": form.manifest,
            "config": _descriptor(config, form.config),
            "layers": [_descriptor(layer.blob, form.layer) for layer in layers],
        }
    )
    return Manifest(data, form.manifest, f"linux/{architecture}", config, tuple(layers))


def make_index(children: Sequence[Manifest], form: Format) -> Manifest:
    """An index (or Docker's manifest list) of images for several platforms."""
    data = _json(
        {
            "schemaVersion": 2,
            "mediaType": form.index,
            "manifests": [
                {
                    "mediaType": child.media_type,
                    "digest": child.digest,
                    "size": len(child.data),
                    "platform": dict(
                        zip(("os", "architecture"), child.platform.split("/"), strict=True)
                    ),
                }
                for child in children
            ],
        }
    )
    return Manifest(data, form.index, children=tuple(children))


def layer_files(layer: Path) -> dict[str, str]:
    """What is really in a layer, gzipped or not: name to digest of the content."""
    with layer.open("rb") as content:
        return tar_files(content)


def tar_files(content: IO[bytes]) -> dict[str, str]:
    """What is in an open tar, gzipped or not: name to digest of the content."""
    found = {}
    with tarfile.open(fileobj=content, mode="r:*") as tar:
        for member in tar:
            data = tar.extractfile(member)
            if data is not None:
                found[member.name] = sha256_of_file(data)
    return found


def sha256(data: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha256_of_file(source: IO[bytes]) -> str:
    """The digest of everything that an open file still holds."""
    hasher = hashlib.sha256()
    while piece := source.read(_PIECE):
        hasher.update(piece)
    return f"sha256:{hasher.hexdigest()}"


def _descriptor(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _tar(files: Mapping[str, Noise], digests: dict[str, str]) -> Iterator[bytes]:
    """A tar's bytes; each file's digest is put into ``digests`` on the way."""
    for name, noise in files.items():
        member = tarfile.TarInfo(name)
        member.size, member.mtime = noise.size, 1_700_000_000
        yield member.tobuf(tarfile.USTAR_FORMAT)
        hasher = hashlib.sha256()
        for piece in noise.pieces():
            hasher.update(piece)
            yield piece
        digests[name] = f"sha256:{hasher.hexdigest()}"
        yield bytes(-noise.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
