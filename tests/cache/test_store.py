"""Tests for regproxy.cache.store."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from unittest.mock import patch

from twisted.logger import capturedLogs

from regproxy.cache.part_map import PartTaken
from regproxy.cache.store import Store
from regproxy.model.digest import Digest
from tests.cache.case import DATA, DIGEST, StoreCase, bytes_of

SHA512 = Digest.of(DATA, "sha512")


class PrepareTests(StoreCase):
    """The start."""

    def test_removes_what_a_crash_left(self) -> None:
        """A part that no process has locked is removed."""
        (self.directory / "parts" / "sha256-left-over").write_bytes(b"x")
        self.assertEqual(Store(self.directory).prepare(), 1)
        self.assertEqual(self.parts(), [])

    def test_keeps_what_another_process_writes(self) -> None:
        """A part that is locked is somebody's."""
        self.part()
        self.assertEqual(Store(self.directory).prepare(), 0)
        part, part_map = self.parts()
        self.assertEqual(part.split(".")[0], part_map.removesuffix(".map"))

    def test_keeps_blobs(self) -> None:
        """What was verified before is there after a start."""
        self.store.put(DIGEST, DATA)
        again = Store(self.directory)
        self.assertEqual(again.prepare(), 0)
        self.assertTrue(again.holds(DIGEST))

    def test_two_starts_at_once(self) -> None:
        """A part that another start removes first is none of ours."""
        left = self.directory / "parts" / "sha256-left-over"
        left.write_bytes(b"x")
        real = os.open

        def slower(path: str, flags: int, mode: int = 0o777) -> int:
            left.unlink(missing_ok=True)
            return real(path, flags, mode)

        with patch("os.open", slower):
            self.assertEqual(Store(self.directory).prepare(), 0)

    def test_strays(self) -> None:
        """What cannot be removed is left, is said, and does not keep the service from starting."""
        parts = self.directory / "parts"
        (parts / "directory").mkdir()
        (parts / "sha256-left-over").write_bytes(b"x")
        with capturedLogs() as events:
            self.assertEqual(Store(self.directory).prepare(), 1)
        self.assertEqual(self.parts(), ["directory"])
        self.assertEqual([event["log_level"].name for event in events], ["warn"])

    def test_unusable(self) -> None:
        """A directory that cannot be made fails the start."""
        file = self.directory / "file"
        file.write_bytes(b"")
        with self.assertRaises(OSError):
            Store(file).prepare()


class PartTests(StoreCase):
    """A file on its way to being a blob."""

    def test_becomes_a_blob(self) -> None:
        """The part moves to the name of its digest, readable for the group."""
        part = self.part()
        part.write(0, [DATA])
        self.assertFalse(self.store.holds(DIGEST))
        part.commit()
        self.assertEqual(self.stored(DIGEST), DATA)
        self.assertEqual(self.parts(), [])
        path = self.store.path(DIGEST)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o640)
        self.assertEqual(path, self.directory / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex)

    def test_durable_before_it_has_its_name(self) -> None:
        """The file is synced before the rename, its directories after it."""
        part = self.part()
        part.write(0, [DATA])
        done: list[str] = []
        real_fsync, real_rename = os.fsync, os.rename

        def fsync(descriptor: int) -> None:
            done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
            real_fsync(descriptor)

        def rename(source: str, target: str) -> None:
            done.append("rename")
            real_rename(source, target)

        with patch("os.fsync", fsync), patch("os.rename", rename):
            part.commit()
        self.assertTrue(done[0].startswith(f"sha256-{DIGEST.hex}"))
        self.assertEqual(done[1:3], ["rename", DIGEST.hex[:2]])
        self.assertIn("sha256", done[3:])

    def test_many_pieces(self) -> None:
        """More pieces than one system call takes are written in order."""
        pieces = [bytes([i % 256]) * (i % 3) for i in range(2000)]
        part = self.part()
        part.write(0, [b"abc"])
        self.assertEqual(part.write(3, pieces), sum(map(len, pieces)))
        whole = b"abc" + b"".join(pieces)
        self.assertEqual(bytes_of(part.file, len(whole) + 1), whole)

    def test_short_writes(self) -> None:
        """A system call that writes less than it was given is called again."""
        real = os.pwritev

        def lazy(descriptor: int, views: Sequence[memoryview], offset: int) -> int:
            return real(descriptor, [views[0][:7]], offset)

        part = self.part()
        with patch("os.pwritev", lazy):
            self.assertEqual(part.write(0, [DATA[:100], DATA[100:120]]), 120)
        self.assertEqual(bytes_of(part.file, 200), DATA[:120])

    def test_writes_that_go_nowhere(self) -> None:
        """A disk that takes nothing is broken, and no endless loop."""
        with patch("os.pwritev", lambda *_: 0):
            self.assertRaises(OSError, self.part().write, 0, [b"x"])

    def test_hash(self) -> None:
        """A hash takes the part in from one offset to another."""
        part = self.part()
        part.write(0, [DATA])
        hasher = DIGEST.hasher()
        part.hash_into(hasher, 0, 1000, bytearray(64))
        part.hash_into(hasher, 1000, len(DATA), bytearray(64))
        self.assertEqual(hasher.hexdigest(), DIGEST.hex)

    def test_hash_of_what_is_not_there(self) -> None:
        """A part that is shorter than it should be fails the job."""
        part = self.part()
        part.write(0, [b"short"])
        self.assertRaises(OSError, part.hash_into, DIGEST.hasher(), 0, 6, bytearray(64))

    def test_remove(self) -> None:
        """Readers keep a removed part; removing it twice is no trouble."""
        part = self.part()
        part.write(0, [DATA])
        part.remove()
        part.remove()
        self.assertEqual(self.parts(), [])
        self.assertEqual(bytes_of(part.file, len(DATA)), DATA)

    def test_one_for_a_digest(self) -> None:
        """A digest has one part at a time, whichever process asks; then the next may come."""
        first = self.part()
        for store in (self.store, Store(self.directory)):
            self.assertRaises(PartTaken, store.create_part, DIGEST)
        first.remove()
        again = self.part()
        again.write(0, [DATA])
        again.commit()
        self.assertEqual(self.stored(DIGEST), DATA)

    def test_locked(self) -> None:
        """A part is locked from its beginning to its end."""
        self.part()
        with (self.directory / "parts" / self.parts()[0]).open("rb") as file:
            self.assertRaises(
                BlockingIOError, fcntl.flock, file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB
            )

    def test_no_lock(self) -> None:
        """A part that cannot be locked is not made, and nothing of it is left."""
        with patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "no locks")):
            self.assertRaises(OSError, self.store.create_part, DIGEST)
        self.assertEqual(self.parts(), [])


class BlobTests(StoreCase):
    """Verified content."""

    def test_put_and_open(self) -> None:
        """What was put is there, with its size."""
        for digest in (DIGEST, SHA512):
            self.store.put(digest, DATA)
            blob = self.store.open(digest)
            assert blob is not None
            self.addCleanup(blob.close)
            self.assertEqual((blob.digest, blob.size), (digest, len(DATA)))
        self.assertEqual(self.parts(), [])

    def test_absent(self) -> None:
        """What is not there is a miss."""
        self.assertIsNone(self.store.open(DIGEST))
        self.assertFalse(self.store.holds(DIGEST))

    def test_cannot_be_opened(self) -> None:
        """A blob that is there and cannot be opened is a miss that is said, once an episode."""
        self.store.put(DIGEST, DATA)
        with capturedLogs() as events:
            self.assertIsNone(self.store.open(SHA512))
            for number in (errno.EMFILE, errno.EACCES, errno.EIO):
                with patch("os.open", side_effect=OSError(number, os.strerror(number))):
                    self.assertIsNone(self.store.open(DIGEST))
            blob = self.store.open(DIGEST)
        assert blob is not None
        blob.close()
        self.assertEqual([event["log_level"].name for event in events], ["error", "info"])

    def test_another_size(self) -> None:
        """A file of another size than is known is not the blob, and is not left open."""
        self.store.put(DIGEST, DATA)
        self.assertIsNone(self.store.open(DIGEST, len(DATA) - 1))
        blob = self.store.open(DIGEST, len(DATA))
        assert blob is not None
        blob.close()

    def test_put_again(self) -> None:
        """A blob that is put again replaces the file; readers of the old one keep it."""
        self.store.put(DIGEST, b"bit rot")
        rotten = self.store.open(DIGEST)
        assert rotten is not None
        self.store.put(DIGEST, DATA)
        self.assertEqual(self.stored(DIGEST), DATA)
        file = rotten.open()
        self.assertEqual(bytes_of(file, 100), b"bit rot")
        file.close()
        rotten.close()

    def test_disk_full(self) -> None:
        """What cannot be written leaves nothing, wherever it fails."""
        for call in ("os.pwritev", "os.fsync", "os.rename", "os.fchmod"):
            with patch(call, side_effect=OSError(errno.ENOSPC, "full")):
                self.assertRaises(OSError, self.store.put, DIGEST, DATA)
            self.assertEqual(self.parts(), [], call)
            self.assertIsNone(self.stored(DIGEST), call)

    def test_set_aside(self) -> None:
        """What is set aside is a miss; nobody minds when it has gone already."""
        self.store.put(DIGEST, DATA)
        self.store.set_aside(DIGEST)
        self.store.set_aside(DIGEST)
        self.assertIsNone(self.store.open(DIGEST))

    def test_evicted_under_a_reader(self) -> None:
        """Who has a blob open reads it to its end although it was unlinked."""
        self.store.put(DIGEST, DATA)
        blob = self.store.open(DIGEST)
        assert blob is not None
        self.store.set_aside(DIGEST)
        file = blob.open()
        blob.close()
        self.assertEqual(bytes_of(file, len(DATA)), DATA)
        file.close()
        self.assertRaises(ValueError, blob.open)
        self.assertRaises(ValueError, file.close)
