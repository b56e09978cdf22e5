"""What the upstreams hold: made once per test run, removed at its end."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from tests.real import peers
from tests.real.images import Format, Layer, Manifest, Noise, make_image, make_index
from tests.real.registries import Registry

REPOSITORIES = ("team/app", "library/app")
"""Every image is in both: the second is what docker.io calls ``app``."""

LARGE_LAYER = 201 << 20
"""Bytes of the largest layer's file."""


@frozen
class Library:
    """The storage of one registry, and what is in it.

    Args:
        storage: docker-registry's root directory, to be read only.
        images: tag to image.
    """

    storage: Path
    images: Mapping[str, Manifest]


@functools.cache
def library() -> Library:
    """The images ``small`` (Docker), ``plain`` (OCI), ``medium``, ``large``, ``multi``, ``list``.

    ``multi`` (OCI) and ``list`` (Docker) have linux/amd64 and linux/arm64, which share a layer.
    """
    root = _root()
    base = Layer.make(root, {"etc/release": Noise(1, 700), "bin/base": Noise(2, 300_000)})
    top = Layer.make(root, {"srv/a": Noise(3, 2_000_000), "srv/empty": Noise(4, 0)})
    tip = Layer.make(root, {"srv/deep/er/b": Noise(5, 90_000)})
    huge = Layer.make(root, {"srv/huge": Noise(6, LARGE_LAYER)}, level=0)
    eights = [
        Layer.make(root, {f"srv/eight-{n}": Noise(10 + n, 8 << 20)}, level=0) for n in range(4)
    ]
    images = {
        "small": make_image(root, [base, top, tip], Format.DOCKER),
        "plain": make_image(root, [base, tip], Format.OCI),
        "medium": make_image(root, [base, *eights], Format.DOCKER),
        "large": make_image(root, [base, tip, huge], Format.OCI),
        "multi": _two_platforms(root, base, 20, Format.OCI),
        "list": _two_platforms(root, base, 30, Format.DOCKER),
    }
    return _stocked(root, images)


@functools.cache
def other_library() -> Library:
    """Another registry's: its ``team/app:small`` has the same names and other bytes."""
    root = _root()
    base = Layer.make(root, {"etc/release": Noise(101, 900)})
    top = Layer.make(root, {"srv/a": Noise(103, 1_000_000)})
    return _stocked(root, {"small": make_image(root, [base, top], Format.OCI)})


def _two_platforms(root: Path, base: Layer, seed: int, form: Format) -> Manifest:
    children = []
    for number, architecture in enumerate(("amd64", "arm64")):
        own = Layer.make(root, {"bin/own": Noise(seed + number, 400_000)})
        children.append(make_image(root, [base, own], form, architecture=architecture))
    return make_index(children, form)


def _stocked(root: Path, images: Mapping[str, Manifest]) -> Library:
    storage = root / "storage"
    registry = Registry.start(root, storage)
    try:
        for tag, image in images.items():
            for repository in REPOSITORIES:
                registry.push(repository, tag, image, source=REPOSITORIES[0])
    finally:
        registry.process.stop()
    return Library(storage, images)


def _root() -> Path:
    # Asked for before any image is made: without it there is nowhere to put one.
    peers.find("docker-registry")
    root = Path(tempfile.mkdtemp(prefix="regproxy-library-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root
