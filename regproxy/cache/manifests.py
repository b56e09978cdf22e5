"""Manifests: fetched whole, verified, kept in the store and the latest also in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.cache.index import Index
from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import upstream_failed
from regproxy.model.mediatypes import FULL_VARIANT, accept_header, is_manifest
from regproxy.model.outcome import Outcome
from regproxy.model.references import References, parse_references
from regproxy.single_flight import SingleFlight
from regproxy.upstream.client import ManifestBody, Upstream
from regproxy.worker import Worker

_MEMORY = 32 * 1024 * 1024
"""Bytes of manifests kept in memory."""

_LARGE = 64 * 1024
"""Bytes from which on a manifest is hashed and parsed in a thread."""

T = TypeVar("T")

_log = Logger()


@frozen
class ServedManifest:
    """A manifest, ready to be sent.

    Attributes:
        digest: What it hashes to; None for schema 1, whose digest does not cover its bytes.
        media_type: As upstream served it.
        size: Its length in bytes.
        data: The bytes, None where only the head was asked for.
        outcome: How it was come by.
    """

    digest: Digest | None
    media_type: str
    size: int | None
    data: bytes | None
    outcome: Outcome


class Manifests:
    """Manifests by digest; what a tag means is `regproxy.cache.freshness`'s concern."""

    def __init__(
        self,
        store: Store,
        index: Index,
        clock: IReactorTime,
        disk: Worker,
        reader: FileReader,
        limit: int,
        *,
        commits: Worker | None = None,
        hashing: Worker | None = None,
    ) -> None:
        """Args:
        store: Keeps them beside the other blobs.
        index: Remembers which repository served which, and as what.
        clock: Runs deadlines.
        disk: Removes files.
        reader: Reads them back.
        limit: The largest manifest that is accepted, in bytes.
        commits: Runs what waits for fsync; *disk* by default.
        hashing: Hashes and parses large ones; *disk* by default.
        """
        self._store = store
        self._index = index
        self._clock = clock
        self._disk = disk
        self._commits = commits or disk
        self._hashing = hashing or disk
        self._reader = reader
        self._limit = limit
        self._memory: OrderedDict[Digest, bytes] = OrderedDict()
        self._memory_size = 0
        self._flights: SingleFlight[tuple[str, str, Digest], ServedManifest] = SingleFlight(clock)

    async def local(
        self, registry: str, repository: str, digest: Digest, outcome: Outcome
    ) -> ServedManifest | None:
        """The manifest as stored, if upstream served it for *repository* as a manifest before."""
        holding = self._index.holding(registry, repository, digest)
        if holding is None or holding.media_type is None:
            return None
        data = self._memory.get(digest)
        if data is not None:
            self._memory.move_to_end(digest)
        else:
            data = await self._load(digest)
            if data is None:
                return None
        self._index.use(digest)
        return ServedManifest(digest, holding.media_type, len(data), data, outcome)

    def holds(self, registry: str, repository: str, digest: Digest) -> bool:
        """Whether `local` would find the manifest, as far as a look at the file's name tells."""
        holding = self._index.holding(registry, repository, digest)
        if holding is None or holding.media_type is None:
            return False
        return digest in self._memory or self._store.holds(digest)

    async def get(
        self, upstream: Upstream, repository: str, digest: Digest, deadline: Deadline
    ) -> ServedManifest:
        """The manifest under *digest*, from the store or else from upstream.

        Raises:
            RegistryError: Upstream refused, could not be asked, or sent something else.
        """
        found = await self.local(upstream.name, repository, digest, Outcome.HIT)
        if found is not None:
            return found
        key = (upstream.name, repository, digest)
        joined = key in self._flights
        flight = self._flights.call(key, lambda: self._fetch(upstream, repository, digest))
        served = await deadline.bound(flight, upstream.name)
        if joined and served.outcome is Outcome.MISS:
            return ServedManifest(
                served.digest, served.media_type, served.size, served.data, Outcome.JOIN
            )
        return served

    async def keep(
        self, registry: str, repository: str, body: ManifestBody, expected: Digest | None
    ) -> ServedManifest:
        """Verifies what upstream sent and keeps it if it is a manifest of a kind that can be kept.

        Args:
            registry: Who sent it.
            repository: For which repository.
            body: What came.
            expected: The digest that was asked for; None when a tag was.

        Raises:
            RegistryError: 502, the bytes are not what they are said to be.
        """
        wanted = expected or body.digest
        size = len(body.data)
        algorithm = wanted.algorithm if wanted is not None else "sha256"
        if not is_manifest(body.media_type):
            if expected is not None:
                digest = await self._compute(size, Digest.of, body.data, algorithm)
                if digest != expected:
                    raise _mismatch(registry, repository, expected, digest)
            return ServedManifest(wanted, body.media_type, size, body.data, Outcome.RELAY)
        digest = await self._compute(size, Digest.of, body.data, algorithm)
        if wanted is not None and digest != wanted:
            raise _mismatch(registry, repository, wanted, digest)
        try:
            references: References = await self._compute(
                size, parse_references, body.data, body.media_type
            )
        except ValueError as error:
            raise upstream_failed(f"{registry}: manifest of {repository}: {error}") from error
        descriptors = references.blobs + references.children
        self._index.put_references(
            registry, repository, digest, [(str(d.digest), d.size) for d in descriptors]
        )
        self._index.put_holding(registry, repository, digest, body.media_type)
        self._remember(digest, body.data)
        self._save(digest, body.data)
        return ServedManifest(digest, body.media_type, size, body.data, Outcome.MISS)

    async def _fetch(self, upstream: Upstream, repository: str, digest: Digest) -> ServedManifest:
        deadline = Deadline.after(self._clock, upstream.headers_timeout)
        body = await upstream.get_manifest(
            repository, str(digest), accept_header(FULL_VARIANT), self._limit, deadline
        )
        return await self.keep(upstream.name, repository, body, digest)

    async def _load(self, digest: Digest) -> bytes | None:
        """A stored manifest's bytes, hashed once more on their way into memory."""
        blob = self._store.open(digest, self._index.size(digest))
        if blob is None:
            return None
        if blob.size > self._limit:
            # Stored under a larger limit, and no less true for that.
            blob.close()
            return None
        pieces: list[bytes] = []
        position = 0
        file = blob.open()
        try:
            while position < blob.size:
                piece = self._reader.read(file, position, blob.size - position)
                if isinstance(piece, Deferred):
                    piece = await piece
                if not piece:
                    break
                pieces.append(piece)
                position += len(piece)
        except OSError as error:
            _log.error("cache: {digest} cannot be read: {error}", digest=digest, error=error)
            return None
        finally:
            file.close()
            blob.close()
        data = b"".join(pieces)
        if await self._compute(len(data), Digest.of, data, digest.algorithm) != digest:
            _log.error("cache: {digest} has changed on disk, fetching it again", digest=digest)
            self._index.drop_blob(digest)
            await self._disk(self._store.set_aside, digest)
            return None
        self._remember(digest, data)
        return data

    def _compute(self, size: int, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """The function's result, from a thread if so many bytes take too long in the reactor's."""
        if size > _LARGE:
            return self._hashing(function, *arguments)
        return execute(function, *arguments)

    def _save(self, digest: Digest, data: bytes) -> None:
        def saved(_: None) -> None:
            self._index.put_blob(digest, len(data))

        def failed(failure: Failure) -> None:
            failure.trap(OSError)
            _log.error("cache: {digest} is not kept: {error}", digest=digest, error=failure.value)

        self._commits(self._store.put, digest, data).addCallbacks(saved, failed)

    def _remember(self, digest: Digest, data: bytes) -> None:
        known = self._memory.pop(digest, None)
        if known is not None:
            self._memory_size -= len(known)
        self._memory[digest] = data
        self._memory_size += len(data)
        while self._memory_size > _MEMORY:
            _, oldest = self._memory.popitem(last=False)
            self._memory_size -= len(oldest)


def _mismatch(registry: str, repository: str, wanted: Digest, actual: Digest) -> Exception:
    _log.error(
        "{registry}/{repository}: sent manifest {actual} for {wanted}, nothing is kept",
        registry=registry,
        repository=repository,
        actual=actual,
        wanted=wanted,
    )
    return upstream_failed(f"{registry}: sent a manifest that is not {wanted}")
