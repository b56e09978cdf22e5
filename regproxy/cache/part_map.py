"""The map of a part: who writes it, and how far it is good, told to other processes.

Processes that share a cache directory keep one transfer for a digest by a lock on its map: the one
that holds it fills, the others follow. A map says something only while its lock is held; after a
restart nothing in it counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from enum import IntEnum
from pathlib import Path

from attrs import frozen

_LAYOUT = struct.Struct("<16sqqB")
_UNKNOWN = -1


class PartTaken(Exception):
    """Another process fills this digest."""


class PartState(IntEnum):
    """How a part stands."""

    RUNNING = 0
    VERIFIED = 1
    GIVEN_UP = 2


@frozen
class Progress:
    """What a map says.

    Attributes:
        token: The part's name below its digest.
        front: Bytes that are written from the start on.
        size: The blob's size in bytes, None while unknown.
        state: How the part stands.
    """

    token: str
    front: int
    size: int | None
    state: PartState


class PartMap:
    """The owner's side of a map. Everything here may block."""

    def __init__(self, path: Path, descriptor: int, token: str) -> None:
        """Args:
        path: Where it is.
        descriptor: Open for writing and locked, owned from here on.
        token: The part's name below its digest.
        """
        self._path = path
        self._descriptor: int | None = descriptor
        self._token = token

    @classmethod
    def acquire(cls, path: Path, token: str) -> PartMap:
        """The map at *path*, locked for this process.

        Raises:
            PartTaken: Another process holds it.
            OSError: It cannot be made.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last owner may have unlinked it before the lock was ours.
                if _is_at(descriptor, path):
                    found = cls(path, descriptor, token)
                    found.write(0, None, PartState.RUNNING)
                    return found
                os.close(descriptor)
            except BlockingIOError as error:
                os.close(descriptor)
                raise PartTaken from error
            except OSError:
                os.close(descriptor)
                with contextlib.suppress(OSError):
                    path.unlink()
                raise

    def write(self, front: int, size: int | None, state: PartState) -> None:
        """Tells how far the part is.

        Raises:
            OSError: It cannot be told.
        """
        if self._descriptor is not None:
            known = _UNKNOWN if size is None else size
            os.pwrite(
                self._descriptor, _LAYOUT.pack(self._token.encode("ascii"), front, known, state), 0
            )

    def release(self, front: int, size: int | None, state: PartState) -> None:
        """Says how the part ended, for those who follow it, and gives the map up."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            self.write(front, size, state)
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


class PartMapView:
    """A follower's side of a map. Everything here may block."""

    def __init__(self, path: Path) -> None:
        """Args:
        path: Where the map is.

        Raises:
            OSError: There is none.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def progress(self) -> Progress | None:
        """What the map says, None while it says nothing or its owner has died."""
        data = os.pread(self._descriptor, _LAYOUT.size, 0)
        if len(data) < _LAYOUT.size:
            return None
        token, front, size, state = _LAYOUT.unpack(data)
        told = Progress(
            token.decode("ascii", "replace"),
            front,
            None if size == _UNKNOWN else size,
            PartState(state),
        )
        if told.state is PartState.RUNNING and self._is_abandoned():
            return None
        return told

    def close(self) -> None:
        """Looks at it no more."""
        os.close(self._descriptor)

    def _is_abandoned(self) -> bool:
        """Whether nobody holds the lock: an owner that ends in order says so first."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
