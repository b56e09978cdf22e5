"""Tests for regproxy.cache.hashing."""

from __future__ import annotations

from unittest.mock import patch

from regproxy.cache.hashing import Follower
from regproxy.testing import HeldWorker
from tests.cache.case import DATA, DIGEST, FaultyWorker, StoreCase

MIB = 1024 * 1024


class FollowerTests(StoreCase):
    """The hash of a part."""

    def setUp(self) -> None:
        """A part with `DATA` in it."""
        super().setUp()
        self.target = self.part()
        self.target.write(0, [DATA])
        self.held = HeldWorker()
        self.worker = FaultyWorker(self.held)
        self.follower = Follower(self.target, DIGEST.hasher(), self.worker)

    def test_whole(self) -> None:
        """When it is finished the hash is that of all bytes."""
        self.follower.advance([DATA[:50], DATA[50:100]])
        self.follower.advance([DATA[100:]])
        done = self.follower.finish()
        self.assertNoResult(done)
        self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(self.follower.position, len(DATA))
        self.assertEqual(self.follower.hasher.hexdigest(), DIGEST.hex)
        self.assertEqual(self.worker.ran, ["hash_pieces"])

    def test_nothing(self) -> None:
        """The hash of no bytes needs no job."""
        self.successResultOf(self.follower.finish())
        self.assertEqual(self.worker.ran, [])

    def test_few_bytes_wait(self) -> None:
        """A few bytes are worth no job until the end."""
        self.follower.advance([DATA])
        self.assertEqual(self.held.held, 0)

    def test_jobs(self) -> None:
        """Jobs run one at a time; what one has fallen behind on is read back, 8 MiB at most."""
        mib = bytes(MIB)
        hashed: list[tuple[int, int]] = []
        with patch.object(self.target, "hash_into", side_effect=lambda *a: hashed.append(a[1:3])):
            self.target.hash_into.__name__ = "hash_into"
            self.follower.advance([mib] * 2)
            for _ in range(17):
                self.follower.advance([mib])
            self.assertEqual(self.held.held, 1)
            self.held.run_all()
            self.assertEqual(self.follower.position, 19 * MIB)
            self.follower.advance([mib])
            done = self.follower.finish()
            self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(hashed, [(2 * MIB, 10 * MIB), (10 * MIB, 17 * MIB)])
        self.assertEqual(
            self.worker.ran, ["hash_pieces", "hash_into", "hash_into", "hash_pieces", "hash_pieces"]
        )

    def test_behind(self) -> None:
        """The hash is the same, whichever part of it was read back."""
        with (
            patch("regproxy.cache.hashing._JOB_MINIMUM", 16),
            patch("regproxy.cache.hashing._KEPT_LIMIT", 100),
        ):
            for start in range(0, len(DATA), 30):
                self.follower.advance([DATA[start : start + 30]])
                if start % 150 == 0 and self.held.held:
                    self.held.run_next()
            done = self.follower.finish()
            self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(self.follower.hasher.hexdigest(), DIGEST.hex)
        self.assertEqual(set(self.worker.ran), {"hash_pieces", "hash_into"})

    def test_finish_while_a_job_runs(self) -> None:
        """The end waits for the running job and for what came meanwhile."""
        with patch("regproxy.cache.hashing._JOB_MINIMUM", 1):
            self.follower.advance([DATA[:100]])
            self.follower.advance([DATA[100:]])
            done = self.follower.finish()
            self.held.run_next()
            self.assertNoResult(done)
            self.held.run_all()
        self.successResultOf(done)
        self.assertEqual(self.follower.hasher.hexdigest(), DIGEST.hex)

    def test_failure(self) -> None:
        """A part that cannot be read back fails the end; no job follows on an unknown state."""
        self.worker.broken.add("hash_into")
        with (
            patch("regproxy.cache.hashing._JOB_MINIMUM", 1),
            patch("regproxy.cache.hashing._KEPT_LIMIT", 0),
        ):
            self.follower.advance([DATA[:100]])
            self.held.run_all()
            self.follower.advance([DATA[100:]])
        self.worker.broken.clear()
        self.failureResultOf(self.follower.finish(), OSError)
        self.failureResultOf(self.follower.finish(), OSError)
        self.assertEqual(self.worker.ran, ["hash_into"])

    def test_failure_at_the_end(self) -> None:
        """An end that is waited for fails with the job."""
        self.worker.broken.add("hash_into")
        with patch("regproxy.cache.hashing._KEPT_LIMIT", 0):
            self.follower.advance([DATA[:100]])
        done = self.follower.finish()
        self.held.run_all()
        self.failureResultOf(done, OSError)
