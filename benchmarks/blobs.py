"""What is pulled: blobs of random pieces and one image, put into the upstream registry by HTTP."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

from attrs import frozen

MIB = 1024 * 1024
REPOSITORY = "bench/image"
TAG = "latest"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@frozen
class Blob:
    """A blob that upstream holds.

    Attributes:
        digest: ``sha256:…``.
        size: in bytes.
    """

    digest: str
    size: int

    @property
    def target(self) -> str:
        """The request target on the mirror way in."""
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"


@frozen
class Image:
    """A tagged image that upstream holds, of which only the manifest is asked for.

    Attributes:
        digest: of the manifest.
    """

    digest: str

    @property
    def by_tag(self) -> str:
        """The request target of the manifest by its tag."""
        return f"/v2/{REPOSITORY}/manifests/{TAG}"

    @property
    def by_digest(self) -> str:
        """The request target of the manifest by its digest."""
        return f"/v2/{REPOSITORY}/manifests/{self.digest}"


class PushError(Exception):
    """Upstream refused a blob or a manifest."""


def push_blob(port: int, mebibytes: int) -> Blob:
    """Put a blob that no earlier run has seen into upstream.

    One random MiB is repeated: the content is new to every cache, and cheap to make. Nothing on
    the way compresses.

    Args:
        port: upstream's port on 127.0.0.1.
        mebibytes: size of the blob in MiB.

    Raises:
        PushError: upstream refused it.
    """
    piece = os.urandom(MIB)
    hasher = hashlib.sha256()
    for _ in range(mebibytes):
        hasher.update(piece)
    blob = Blob(f"sha256:{hasher.hexdigest()}", mebibytes * MIB)
    _upload(port, blob, (piece for _ in range(mebibytes)))
    return blob


def push_image(port: int, layers: int = 8) -> Image:
    """Put an image with a manifest of ordinary size into upstream, and tag it.

    Args:
        port: upstream's port on 127.0.0.1.
        layers: how many small layers it has.

    Raises:
        PushError: upstream refused a part of it.
    """
    config = _push_bytes(port, b'{"architecture":"amd64","os":"linux"}')
    parts = [_push_bytes(port, os.urandom(1024)) for _ in range(layers)]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [
                _descriptor(part, "application/vnd.oci.image.layer.v1.tar+gzip") for part in parts
            ],
        }
    ).encode()
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "PUT",
        f"/v2/{REPOSITORY}/manifests/{TAG}",
        body=manifest,
        headers={"Content-Type": MANIFEST_TYPE},
    )
    _created(connection.getresponse())
    connection.close()
    return Image(f"sha256:{hashlib.sha256(manifest).hexdigest()}")


def _descriptor(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _push_bytes(port: int, data: bytes) -> Blob:
    blob = Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    _upload(port, blob, iter([data]))
    return blob


def _upload(port: int, blob: Blob, pieces: Iterator[bytes]) -> None:
    """Upload monolithically: POST for a place, then one PUT (OCI distribution spec, "Push")."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    place = response.getheader("Location")
    if response.status != 202 or place is None:
        raise PushError(f"upstream answered {response.status} to the start of an upload")
    joint = "&" if "?" in place else "?"
    connection.request(
        "PUT",
        f"{place}{joint}digest={blob.digest}",
        body=pieces,
        headers={
            "Content-Length": str(blob.size),
            "Content-Type": "application/octet-stream",
        },
    )
    _created(connection.getresponse())
    connection.close()


def _created(response: HTTPResponse) -> None:
    body = response.read()
    if response.status != 201:
        raise PushError(f"upstream answered {response.status}: {body[:300]!r}")
