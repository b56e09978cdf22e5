"""All running fills: one for each digest, whoever asks."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.cache.content import ContentFailed
from regproxy.cache.fill import DigestMismatch, Fill, StoreTrouble
from regproxy.cache.sources import Source
from regproxy.cache.store import Store
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer
from regproxy.worker import Worker

PATIENCE = 10.0
"""Seconds after which a fill starts although all of its registry's places are taken."""

_MISMATCHES = 2
_MISMATCH_PAUSE = 60.0
_MISMATCHES_KEPT = 4096

_log = Logger()


@frozen
class RegistrySource:
    """A repository of a registry, asked anonymously.

    Attributes:
        upstream: The registry.
        repository: Its canonical name there.
    """

    upstream: Upstream
    repository: str

    @property
    def name(self) -> str:
        """See `Source.name`."""
        return f"{self.upstream.name}/{self.repository}"

    async def open(self, digest: Digest, start: int, deadline: Deadline) -> Answer:
        """See `Source.open`."""
        return await self.upstream.get_blob(self.repository, digest, start, deadline)

    def deadline(self) -> Deadline:
        """See `Source.deadline`."""
        return Deadline.after(self.upstream.clock, self.upstream.headers_timeout)

    def enter(self) -> Deferred[None]:
        """See `Source.enter`."""
        return self.upstream.transfers.acquire(PATIENCE)

    def leave(self) -> None:
        """See `Source.leave`."""
        self.upstream.transfers.release()


class Fills:
    """Starts fills and hands them to whoever asks while they run."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        disk: Worker,
        hashing: Worker,
        silence: float,
        stored: Callable[[Digest, int], None],
        commits: Worker | None = None,
    ) -> None:
        """Args:
        store: Where blobs go.
        clock: Runs delays and deadlines.
        disk: Runs writes.
        hashing: Runs hash jobs, in a pool of its own.
        silence: Seconds without a byte after which a transfer counts as cut.
        stored: Told the digest and size of every blob that was verified.
        commits: Runs what waits for fsync; *disk* by default.
        """
        self._store = store
        self._clock = clock
        self._disk = disk
        self._hashing = hashing
        self._silence = silence
        self._stored = stored
        self._commits = commits or disk
        self._running: dict[Digest, Fill] = {}
        self._mismatches: dict[tuple[str, Digest], tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def running(self, digest: Digest) -> bool:
        """Whether a fill of *digest* runs."""
        fill = self._running.get(digest)
        return fill is not None and not fill.failed

    def join(self, digest: Digest, source: Source) -> tuple[Fill, bool]:
        """The fill of *digest*, started now unless it runs; the caller has a right to the blob.

        One that has failed and still puts its part away is nobody's to join: the next one waits
        for it.

        Args:
            digest: Which blob.
            source: Where this caller may read it; the fill may use it from here on.

        Returns:
            The fill, which the caller closes, and whether this call started it.

        Raises:
            RegistryError: 502, when the source has just sent wrong bytes twice.
        """
        distrusted = self._distrusted(source, digest)
        running = self._running.get(digest)
        if running is not None and not running.failed:
            if not distrusted:
                running.add_source(source)
            return running.attach(), False
        if distrusted:
            raise upstream_failed(
                f"{source.name} sent bytes that are not {digest} {_MISMATCHES} times; "
                f"it is asked again in {distrusted:.0f} s"
            )
        fill = Fill(
            digest,
            source,
            store=self._store,
            clock=self._clock,
            disk=self._disk,
            hashing=self._hashing,
            silence=self._silence,
            commits=self._commits,
        )
        self._running[digest] = fill
        fill.attach()
        Deferred.fromCoroutine(_run(fill, running)).addCallbacks(
            self._filled, self._failed, callbackArgs=(fill,), errbackArgs=(fill,)
        )
        return fill, True

    def _forget(self, fill: Fill) -> None:
        if self._running.get(fill.digest) is fill:
            del self._running[fill.digest]

    def _filled(self, _: None, fill: Fill) -> None:
        self._forget(fill)
        for source in fill.senders:
            self._mismatches.pop((source.name, fill.digest), None)
        if fill.size is not None and self._store.holds(fill.digest):
            self._stored(fill.digest, fill.size)

    def _failed(self, failure: Failure, fill: Fill) -> None:
        self._forget(fill)
        if failure.check(DigestMismatch):
            self._distrust(fill)
        if failure.check(StoreTrouble):
            return  # logged where it happened
        if failure.check(ContentFailed):
            _log.error(
                "fill {digest}: {error}; nothing is kept", digest=fill.digest, error=failure.value
            )
        elif not failure.check(RegistryError):
            _log.failure("fill {digest} broke", failure=failure, digest=fill.digest)

    def _distrusted(self, source: Source, digest: Digest) -> float:
        """Seconds for which *source* is not asked for *digest*."""
        count, until = self._mismatches.get((source.name, digest), (0, 0.0))
        return max(0.0, until - self._clock.seconds()) if count >= _MISMATCHES else 0.0

    def _distrust(self, fill: Fill) -> None:
        now = self._clock.seconds()
        while len(self._mismatches) >= _MISMATCHES_KEPT:
            self._mismatches.pop(next(iter(self._mismatches)))
        for source in fill.senders:
            key = (source.name, fill.digest)
            count, until = self._mismatches.pop(key, (0, 0.0))
            if now >= until:
                count = 0
            self._mismatches[key] = (count + 1, now + _MISMATCH_PAUSE)


async def _run(fill: Fill, before: Fill | None) -> None:
    """Runs a fill when the one before it, which has failed, has put its part away."""
    if before is not None:
        await before.over()
    await fill.run()
