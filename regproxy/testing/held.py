"""What a scripted registry holds."""

from __future__ import annotations

from attrs import define, field


@define
class Repository:
    """What one repository holds.

    Attributes:
        blobs: Bytes by digest.
        manifests: Bytes and media type by digest.
        tags: Digests by tag; of several, the first that the client accepts is served.
    """

    blobs: dict[str, bytes] = field(factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(factory=dict)
    tags: dict[str, list[str]] = field(factory=dict)
