"""Reads of blobs: at once while the page cache has the bytes, else in a thread."""

from __future__ import annotations

import contextlib
import errno
import os

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regproxy.cache.content import OpenFile
from regproxy.worker import Worker

_LARGEST = 256 * 1024
_PROBE_STEP = 128 * 1024
_READ_AHEAD = 4 * 1024 * 1024


class FileReader:
    """Reads pieces of files without ever blocking the reactor on a disk."""

    def __init__(self, worker: Worker) -> None:
        """Args:
        worker: Runs the reads that the page cache cannot answer.
        """
        self._worker = worker
        self._view = memoryview(bytearray(_LARGEST))
        self._nowait = hasattr(os, "RWF_NOWAIT")

    def read(self, file: OpenFile, offset: int, length: int) -> bytes | Deferred[bytes]:
        """At most *length* bytes from *offset* on; at least one, unless the file ends there.

        Args:
            file: What is read; the caller keeps its share until the bytes are here.
            offset: First byte.
            length: The most bytes wanted, at most 256 KiB are given.

        Raises:
            OSError: (also as a failure) the file cannot be read.
        """
        length = min(length, _LARGEST)
        if not self._nowait:
            return os.pread(file.descriptor, length, offset)
        try:
            count = os.preadv(file.descriptor, [self._view[:length]], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return self._read_in_thread(file, offset, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # Such as tmpfs, where there is no disk to wait for.
            self._nowait = False
            return os.pread(file.descriptor, length, offset)
        return bytes(self._view[:count])

    def load(self, file: OpenFile, offset: int, length: int) -> Deferred[None] | None:
        """Has a part of a file brought into the page cache.

        Args:
            file: What will be sent; the caller keeps its share.
            offset: First byte.
            length: How many bytes.

        Returns:
            None when the part is there already, as far as a look at one page in every 128 KiB
            tells; else a Deferred that fires when it has been read.
        """
        if not self._nowait:
            return None
        probe = self._view[:1]
        stop = offset + length
        try:
            for position in (*range(offset, stop, _PROBE_STEP), stop - 1):
                os.preadv(file.descriptor, [probe], position, os.RWF_NOWAIT)
        except BlockingIOError:
            waiting = self._read_in_thread(file, offset, length)
            return waiting.addCallback(lambda _: None)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._nowait = False
        return None

    def _read_in_thread(self, file: OpenFile, offset: int, length: int) -> Deferred[bytes]:
        # The reader may leave while the thread still needs the descriptor.
        share = file.share()
        mine: Deferred[bytes] = Deferred()

        def finished(result: bytes | Failure) -> None:
            share.close()
            if mine.called:
                return
            if isinstance(result, Failure):
                mine.errback(result)
            else:
                mine.callback(result)

        self._worker(_read, share.descriptor, offset, length).addBoth(finished)
        return mine


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Reads from the disk and has the kernel fetch what comes next. Blocks."""
    data = os.pread(descriptor, length, offset)
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, offset + len(data), _READ_AHEAD, os.POSIX_FADV_WILLNEED)
    return data
