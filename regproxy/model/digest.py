"""Digests: what content is called, and what it must hash to.

OCI image specification 1.1, "Digests"
(https://github.com/opencontainers/image-spec/blob/v1.1.0/descriptor.md#digests).
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

from attrs import frozen

from regproxy.model.errors import shown

# Lower case only: two spellings of one digest would be two files.
_HEX = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "sha512": re.compile(r"[0-9a-f]{128}"),
}
_NEW = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}


class Hasher(Protocol):
    """The part of a :mod:`hashlib` object that regproxy uses."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Hash these bytes too."""

    def hexdigest(self) -> str:
        """The hash of everything so far, in lower-case hexadecimal."""

    def copy(self) -> Hasher:
        """An independent hasher in the same state."""


@frozen
class Digest:
    """A well-formed digest; no other can be made, so its parts are safe in paths and queries.

    Attributes:
        algorithm: ``sha256`` or ``sha512``.
        hex: 64 or 128 lower-case hexadecimal digits.
    """

    algorithm: str
    hex: str

    def __attrs_post_init__(self) -> None:
        """Refuse anything that is not a digest.

        Raises:
            ValueError: The algorithm is not supported, or the digits are not its digits.
        """
        pattern = _HEX.get(self.algorithm)
        if pattern is None or pattern.fullmatch(self.hex) is None:
            raise ValueError(
                f"found {shown(str(self))}, expected sha256: and 64 or sha512: and 128 "
                "lower-case hexadecimal digits"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that is written ``algorithm:hex``.

        Raises:
            ValueError: It is anything else.
        """
        algorithm, _, digits = text.partition(":")
        return cls(algorithm, digits)

    @property
    def is_of_nothing(self) -> bool:
        """Whether this is the digest of an empty content."""
        return self == Digest.of(b"", self.algorithm)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes.

        Raises:
            ValueError: The algorithm is not supported.
        """
        new = _NEW.get(algorithm)
        if new is None:
            raise ValueError(f"found {shown(algorithm)}, expected sha256 or sha512")
        return cls(algorithm, new(data).hexdigest())

    def hasher(self) -> Hasher:
        """A new hash object of this digest's algorithm."""
        return _NEW[self.algorithm]()

    def __str__(self) -> str:
        """The digest as it is written everywhere: ``algorithm:hex``."""
        return f"{self.algorithm}:{self.hex}"
