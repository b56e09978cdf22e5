"""Content: something with a digest, a size, and bytes that become available.

A stored blob and a running fill both provide it: one delivery serves hits, joins and ranges.
"""

from __future__ import annotations

import os
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from regproxy.model.digest import Digest


class OpenFile:
    """A file that several readers share; the last one to leave closes it."""

    def __init__(self, descriptor: int) -> None:
        """Args:
        descriptor: Owned from here on; the creator holds the first share.
        """
        self.descriptor = descriptor
        self._shares = 1

    def share(self) -> OpenFile:
        """This file once more; each share is given back by `close`."""
        if self._shares == 0:
            raise ValueError("the file is closed")
        self._shares += 1
        return self

    def close(self) -> None:
        """Gives one share back."""
        self._shares -= 1
        if self._shares == 0:
            os.close(self.descriptor)
        elif self._shares < 0:
            raise ValueError("closed more often than shared")


class Content(Protocol):
    """Bytes under a digest, some of which may still be on their way."""

    @property
    def digest(self) -> Digest:
        """What the bytes hash to once they are all there."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None while nobody knows."""

    def open(self) -> OpenFile:
        """A share of the file that holds the bytes; the caller closes it."""

    def close(self) -> None:
        """Gives this content up; shares of its file stay good until they are closed."""

    def available(self, offset: int) -> int:
        """How many bytes from *offset* on are good to send now."""

    def wait(self, offset: int) -> Deferred[None]:
        """Fires when `available(offset)` has grown above 0 or the end is reached.

        Returns:
            A Deferred that the caller may cancel. It fails with `ContentFailed` when the content
            will never be whole.
        """


class ContentFailed(Exception):
    """The content will never be whole; what was delivered of it must not look complete."""


class StoredBlob:
    """A verified blob in the store."""

    def __init__(self, digest: Digest, size: int, file: OpenFile) -> None:
        """Args:
        digest: Its digest.
        size: Its length in bytes.
        file: Owned from here on.
        """
        self.digest = digest
        self.size = size
        self._file = file

    def open(self) -> OpenFile:
        """See `Content.open`."""
        return self._file.share()

    def close(self) -> None:
        """See `Content.close`."""
        self._file.close()

    def available(self, offset: int) -> int:
        """See `Content.available`."""
        return max(0, self.size - offset)

    def wait(self, offset: int) -> Deferred[None]:
        """See `Content.wait`."""
        return succeed(None)
