"""The store: verified blobs under their digest, and the parts that are to become blobs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from twisted.logger import Logger

from regproxy.cache.content import OpenFile, StoredBlob
from regproxy.cache.part_map import PartMap, PartMapView, PartState, Progress
from regproxy.model.digest import Digest, Hasher

_BLOB_MODE = 0o640
_IOV_MAX = 512
_MAP_SUFFIX = ".map"

_log = Logger()


class Part:
    """A file that a fill writes: it has a blob's name only once its digest is verified.

    Everything here may block and is called in a thread, one call at a time.

    Attributes:
        size: The blob's size in bytes as upstream says; None while it has not.
        file: What readers share.
    """

    def __init__(
        self, path: Path, target: Path, descriptor: int, part_map: PartMap | None = None
    ) -> None:
        """Args:
        path: Where the part is.
        target: The blob's final name.
        descriptor: Open for reading and writing, locked for this process.
        part_map: Tells other processes how far it is; None where none will ask.
        """
        self.size: int | None = None
        self.file = OpenFile(descriptor)
        self._path = path
        self._target = target
        self._map = part_map
        self._state = PartState.RUNNING
        self._front = 0

    def write(self, offset: int, pieces: Sequence[bytes]) -> int:
        """Writes *pieces* one after the other.

        Args:
            offset: Where the first byte goes.
            pieces: What is written.

        Returns:
            The number of bytes written, which is all of them.

        Raises:
            OSError: The disk is full, broken or gone; what was written before it is unspecified.
        """
        descriptor = self.file.descriptor
        total = 0
        for start in range(0, len(pieces), _IOV_MAX):
            views = [memoryview(piece) for piece in pieces[start : start + _IOV_MAX]]
            while views:
                written = os.pwritev(descriptor, views, offset + total)
                if written <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                total += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]
        self._front = offset + total
        if self._map is not None:
            self._map.write(self._front, self.size, self._state)
        return total

    def hash_into(self, hasher: Hasher, start: int, stop: int, buffer: bytearray) -> None:
        """Takes the bytes from *start* to *stop* into *hasher* (see `hash_file`)."""
        hash_file(self.file.descriptor, hasher, start, stop, buffer)

    def commit(self) -> None:
        """Makes the verified part a blob: fsync, rename, fsync of both directories.

        Raises:
            OSError: The blob is not stored; the part is still there.
        """
        self.size, self._state = self._front, PartState.VERIFIED
        if self._map is not None:
            self._map.write(self._front, self.size, self._state)
        os.fchmod(self.file.descriptor, _BLOB_MODE)
        os.fsync(self.file.descriptor)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(self._path, self._target)
        _fsync_directory(self._target.parent)
        _fsync_directory(self._target.parent.parent)
        self._release()

    def remove(self) -> None:
        """Unlinks the part; readers keep what they have open."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._release()

    def _release(self) -> None:
        if self._state is PartState.RUNNING:
            self._state = PartState.GIVEN_UP
        if self._map is not None:
            self._map.release(self._front, self.size, self._state)

    def close(self) -> None:
        """Gives up the fill's own share of the file, and the digest to whoever fills it next."""
        self._release()
        self.file.close()


class PartView:
    """A part that another process fills. Everything here may block.

    Attributes:
        file: What readers share.
    """

    def __init__(self, part_map: PartMapView, descriptor: int) -> None:
        """Args:
        part_map: Says how far the part is.
        descriptor: The part, open for reading.
        """
        self.file = OpenFile(descriptor)
        self._map = part_map

    def progress(self) -> Progress | None:
        """How far the part is; None when the process that fills it has died.

        Raises:
            OSError: The map cannot be read.
        """
        return self._map.progress()

    def close(self) -> None:
        """Looks at it no more; readers keep what they have open."""
        self._map.close()
        self.file.close()


class Store:
    """Files below the cache directory: ``blobs/ALGORITHM/xx/HEX`` and ``parts/``."""

    def __init__(self, directory: Path) -> None:
        """Args:
        directory: The cache directory; nothing is touched before `prepare`.
        """
        self._blobs = directory / "blobs"
        self._parts = directory / "parts"
        self._in_trouble = False

    def prepare(self) -> int:
        """Makes the directories and removes parts that no process is writing.

        Returns:
            The number of parts removed.

        Raises:
            OSError: The directory cannot be used.
        """
        for directory in (self._blobs, self._parts):
            directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        removed = 0
        for name in os.listdir(self._parts):
            try:
                _remove_abandoned(self._parts / name)
            except (BlockingIOError, FileNotFoundError):
                # Another process is writing it, or is starting too and removed it first.
                continue
            except OSError as error:
                _log.warn("cache: {error}; left where it is", error=error)
                continue
            removed += not name.endswith(_MAP_SUFFIX)
        return removed

    def path(self, digest: Digest) -> Path:
        """Where a blob is, or would be."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def open(self, digest: Digest, size: int | None = None) -> StoredBlob | None:
        """A stored blob, or None when it is not here.

        Only the file's metadata is touched, so this is called in the reactor's thread. A file that
        is there and cannot be opened is logged, once until one can be again.

        Args:
            digest: Which blob.
            size: Its size in bytes where that is known: a file of another size is not the blob.
        """
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if not self._in_trouble:
                self._in_trouble = True
                _log.error("cache: stored blobs cannot be opened: {error}", error=error)
            return None
        if self._in_trouble:
            self._in_trouble = False
            _log.info("cache: stored blobs can be opened again")
        actual = os.fstat(descriptor).st_size
        if size is not None and size != actual:
            os.close(descriptor)
            return None
        return StoredBlob(digest, actual, OpenFile(descriptor))

    def holds(self, digest: Digest) -> bool:
        """Whether a blob is stored."""
        try:
            os.stat(self.path(digest))
        except OSError:
            return False
        return True

    def create_part(self, digest: Digest) -> Part:
        """A new empty part for *digest*, which no other process fills meanwhile. Blocks.

        Raises:
            PartTaken: Another process fills it; `view_part` shows how far it is.
            OSError: No part can be made.
        """
        token = secrets.token_hex(8)
        part_map = PartMap.acquire(self._map_path(digest), token)
        try:
            return self._new_part(digest, token, part_map)
        except OSError:
            part_map.release(0, None, PartState.GIVEN_UP)
            raise

    def view_part(self, digest: Digest) -> PartView | None:
        """The part that another process fills, None when there is none to be seen. Blocks.

        Raises:
            OSError: It cannot be opened.
        """
        try:
            part_map = PartMapView(self._map_path(digest))
        except FileNotFoundError:
            return None
        try:
            progress = part_map.progress()
            if progress is not None:
                path = self._part_path(digest, progress.token)
                return PartView(part_map, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            pass
        except BaseException:
            part_map.close()
            raise
        part_map.close()
        return None

    def _map_path(self, digest: Digest) -> Path:
        return self._parts / f"{digest.algorithm}-{digest.hex}{_MAP_SUFFIX}"

    def _part_path(self, digest: Digest, token: str) -> Path:
        return self._parts / f"{digest.algorithm}-{digest.hex}.{token}"

    def _new_part(self, digest: Digest, token: str, part_map: PartMap | None = None) -> Part:
        # Processes that share the directory may share a process id, each in a container.
        path = self._part_path(digest, token)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return Part(path, self.path(digest), descriptor, part_map)

    def put(self, digest: Digest, data: bytes) -> None:
        """Stores bytes that the caller has verified against *digest*. Blocks.

        Raises:
            OSError: They are not stored.
        """
        part = self._new_part(digest, secrets.token_hex(8))
        try:
            part.write(0, [data])
            part.commit()
        except OSError:
            part.remove()
            raise
        finally:
            part.close()

    def set_aside(self, digest: Digest) -> None:
        """Takes a file that is not what its name says out of the way. Blocks."""
        with contextlib.suppress(OSError):
            self.path(digest).unlink()


def hash_file(descriptor: int, hasher: Hasher, start: int, stop: int, buffer: bytearray) -> None:
    """Takes the bytes of a file from *start* to *stop* into *hasher*. Blocks.

    Args:
        descriptor: The file.
        hasher: Holds the hash of all bytes before *start*.
        start: First byte.
        stop: Behind the last byte; all of it has been written.
        buffer: Scratch memory for the reads.

    Raises:
        OSError: The file cannot be read.
    """
    view = memoryview(buffer)
    while start < stop:
        count = os.preadv(descriptor, [view[: min(len(buffer), stop - start)]], start)
        if count == 0:
            raise OSError(errno.EIO, "the part is shorter than what was written to it")
        hasher.update(view[:count])
        start += count


def _remove_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
