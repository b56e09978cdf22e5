"""The hash of a part, computed in a thread that follows the file.

While it keeps up, it hashes the pieces that were just written, still in memory; what it has fallen
behind on is read back.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regproxy.cache.store import Part
from regproxy.model.digest import Hasher
from regproxy.worker import Worker

_JOB_LIMIT = 8 * 1024 * 1024
"""The most bytes that one job hashes: none waits, none holds a thread for long."""

_JOB_MINIMUM = 2 * 1024 * 1024
"""Fewer bytes wait for company while the fill runs: each job costs two trips between threads."""

_KEPT_LIMIT = 4 * 1024 * 1024
"""Written bytes that are kept for the next job; beyond, they are read back from the file."""

_BUFFER = 256 * 1024


class Follower:
    """Hashes a part up to its front, in jobs that never wait.

    Attributes:
        position: How many bytes have been hashed.
        hasher: Holds the hash of these bytes; it belongs to the running job while there is one.
    """

    def __init__(self, part: Part, hasher: Hasher, worker: Worker) -> None:
        """Args:
        part: What is hashed.
        hasher: A new hash of the digest's algorithm.
        worker: Runs the jobs; its pool is for hashing alone.
        """
        self.position = 0
        self.hasher = hasher
        self._part = part
        self._worker = worker
        self._buffer = bytearray(_BUFFER)
        self._front = 0
        self._kept: list[bytes] = []
        self._kept_from = 0
        self._running = False
        self._failure: Failure | None = None
        self._finished: Deferred[None] | None = None

    def advance(self, pieces: Sequence[bytes]) -> None:
        """Tells what has been written behind the front; a job starts when there is enough to do."""
        self._kept.extend(pieces)
        self._front += sum(map(len, pieces))
        if self._front - self._kept_from > _KEPT_LIMIT:
            self._forget()
        self._next()

    def finish(self) -> Deferred[None]:
        """Fires when everything up to the front is hashed; call it once, when the front stands.

        Returns:
            A Deferred that fails with OSError when the part cannot be read back.
        """
        done: Deferred[None] = Deferred()
        self._finished = done
        self._next()
        return done

    def _next(self) -> None:
        if self._running:
            return
        waiting = self._front - self.position
        if self._finished is not None and (self._failure is not None or not waiting):
            done, self._finished = self._finished, None
            if self._failure is None:
                done.callback(None)
            else:
                done.errback(self._failure)
        elif self._failure is None and (
            waiting >= _JOB_MINIMUM or (self._finished is not None and waiting)
        ):
            self._running = True
            if self._kept_from == self.position:
                stop = self._front
                job = self._worker(hash_pieces, self.hasher, self._forget())
            else:
                stop = min(self._kept_from, self.position + _JOB_LIMIT)
                job = self._worker(
                    self._part.hash_into, self.hasher, self.position, stop, self._buffer
                )
            job.addCallbacks(self._hashed, self._failed, callbackArgs=(stop,))

    def _forget(self) -> list[bytes]:
        """What was kept; from here on it is a job's, or the file's alone."""
        kept, self._kept = self._kept, []
        self._kept_from = self._front
        return kept

    def _hashed(self, _: None, stop: int) -> None:
        self._running = False
        self.position = stop
        self._next()

    def _failed(self, failure: Failure) -> None:
        # The state of the hash is unknown from here on, so no job follows.
        self._running = False
        self._failure = failure
        self._next()


def hash_pieces(hasher: Hasher, pieces: Sequence[bytes]) -> None:
    """Takes *pieces* into *hasher*."""
    for piece in pieces:
        hasher.update(piece)
