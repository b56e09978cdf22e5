"""Tests for regproxy.cache.reading."""

from __future__ import annotations

import errno
import os
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred

from regproxy.cache.content import OpenFile
from regproxy.cache.reading import FileReader
from regproxy.testing import HeldWorker
from tests.cache.case import DATA, StoreCase, open_files


class FileReaderTests(StoreCase):
    """Reads of pieces."""

    def setUp(self) -> None:
        """A file of `DATA`."""
        super().setUp()
        path = self.directory / "file"
        path.write_bytes(DATA)
        self.file = OpenFile(os.open(path, os.O_RDONLY))
        self.addCleanup(self._close)
        self.worker = HeldWorker()
        self.reader = FileReader(self.worker)

    def _close(self) -> None:
        # A test may have closed the one and left another.
        self.file.close()

    def preadv(self, error: int) -> Any:
        """A kernel that fails preadv so."""
        return patch("os.preadv", side_effect=OSError(error, os.strerror(error)))

    def test_cached(self) -> None:
        """What the page cache has is there at once."""
        self.assertEqual(self.reader.read(self.file, 100, 50), DATA[100:150])
        self.assertEqual(self.worker.held, 0)

    def test_pieces_are_their_own(self) -> None:
        """A piece does not change with the next read."""
        first = self.reader.read(self.file, 0, 10)
        self.reader.read(self.file, 10, 10)
        self.assertEqual(first, DATA[:10])

    def test_end(self) -> None:
        """At the end there is less, behind it nothing."""
        self.assertEqual(self.reader.read(self.file, len(DATA) - 5, 50), DATA[-5:])
        self.assertEqual(self.reader.read(self.file, len(DATA), 50), b"")

    def test_large(self) -> None:
        """One read gives 256 KiB at most, so that no client takes the reactor for long."""
        path = self.directory / "large"
        path.write_bytes(bytes(300 * 1024))
        file = OpenFile(os.open(path, os.O_RDONLY))
        self.addCleanup(file.close)
        piece = self.reader.read(file, 0, 10**9)
        assert isinstance(piece, bytes)
        self.assertEqual(len(piece), 256 * 1024)

    def test_not_cached(self) -> None:
        """What the disk must be asked for is read in a thread."""
        with self.preadv(errno.EAGAIN):
            reading = self.reader.read(self.file, 100, 50)
        assert isinstance(reading, Deferred)
        self.assertNoResult(reading)
        self.worker.run_all()
        self.assertEqual(self.successResultOf(reading), DATA[100:150])
        self.assertEqual(self.reader.read(self.file, 0, 1), DATA[:1])

    def test_reader_leaves(self) -> None:
        """A file stays open until the thread is done, and no longer."""
        with self.preadv(errno.EAGAIN):
            reading = self.reader.read(self.file, 100, 50)
        assert isinstance(reading, Deferred)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.file.close()
        self.assertEqual(len(open_files(self.directory)), 1)
        self.worker.run_all()
        self.assertEqual(open_files(self.directory), [])
        self.file = OpenFile(os.open(os.devnull, os.O_RDONLY))

    def test_reader_leaves_and_the_disk_fails(self) -> None:
        """Nobody is told of an error that nobody waits for."""
        with self.preadv(errno.EAGAIN):
            reading = self.reader.read(self.file, 100, 50)
        assert isinstance(reading, Deferred)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        with patch("os.pread", side_effect=OSError(errno.EIO, "broken")):
            self.worker.run_all()
        self.assertEqual(len(open_files(self.directory)), 1)

    def test_disk_fails_in_the_thread(self) -> None:
        """An error in the thread fails the read and closes the share."""
        with self.preadv(errno.EAGAIN):
            reading = self.reader.read(self.file, 100, 50)
        assert isinstance(reading, Deferred)
        with patch("os.pread", side_effect=OSError(errno.EIO, "broken")):
            self.worker.run_all()
        self.failureResultOf(reading, OSError)
        self.assertEqual(len(open_files(self.directory)), 1)

    def test_disk_fails(self) -> None:
        """An error is raised, not taken for an empty cache."""
        with self.preadv(errno.EIO):
            self.assertRaises(OSError, self.reader.read, self.file, 0, 1)

    def test_no_advice(self) -> None:
        """A file system that takes no advice is read all the same."""
        with self.preadv(errno.EAGAIN):
            reading = self.reader.read(self.file, 0, 5)
        assert isinstance(reading, Deferred)
        with patch("os.posix_fadvise", side_effect=OSError(errno.EINVAL, "no")):
            self.worker.run_all()
        self.assertEqual(self.successResultOf(reading), DATA[:5])

    def test_not_supported(self) -> None:
        """Where the kernel cannot say what is cached, plain reads follow, asked once."""
        with self.preadv(errno.EOPNOTSUPP) as preadv:
            self.assertEqual(self.reader.read(self.file, 0, 5), DATA[:5])
            self.assertEqual(self.reader.read(self.file, 5, 5), DATA[5:10])
        self.assertEqual(preadv.call_count, 1)

    def test_no_such_call(self) -> None:
        """A platform without RWF_NOWAIT has plain reads."""
        with patch.object(os, "RWF_NOWAIT", create=True):
            del os.RWF_NOWAIT
            reader = FileReader(self.worker)
        self.assertEqual(reader.read(self.file, 0, 5), DATA[:5])
