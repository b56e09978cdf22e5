"""The index: what tags meant, which repository holds which digest, how large blobs are.

Losing it costs warmth, never truth. Reads are point SELECTs on a read-only connection in the
reactor's thread (about 10 microseconds each); writes go through one thread in batches, and until a
batch is committed its rows are answered from memory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.cache import statements
from regproxy.model.digest import Digest
from regproxy.worker import Worker

_FORGOTTEN_KEPT = 4096
"""Tags of which it is remembered in memory when they were last forgotten."""
_BUSY_SECONDS = 5.0
_USE_SECONDS = 30.0

_log = Logger()

_Row = tuple[Any, ...]


@frozen
class Tag:
    """What a tag meant.

    Attributes:
        digest: Of the manifest.
        verified: When upstream said so last, in the clock's seconds.
    """

    digest: Digest
    verified: float


@frozen
class Holding:
    """That a repository holds a digest.

    Attributes:
        media_type: As upstream served it there as a manifest; None if it did not.
        size: Bytes of the stored blob, None if nothing is stored or remembered.
    """

    media_type: str | None
    size: int | None


@frozen
class _Held:
    """A holding that is still to be committed.

    Attributes:
        media_type: None for what is committed already.
        anew: Whether what is committed does not count.
    """

    media_type: str | None
    anew: bool


_HELD = _Held(None, anew=False)
_HELD_ANEW = _Held(None, anew=True)


class Index:
    """Tables beside the blobs; any trouble with them makes the cache colder, never a pull fail."""

    def __init__(self, path: Path, clock: IReactorTime, worker: Worker) -> None:
        """Args:
        path: The database file; its directory exists.
        clock: Times the batches and says when a blob was used.
        worker: Runs writes, one at a time.
        """
        self._path = path
        self._clock = clock
        self._worker = worker
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._queue: list[tuple[str, Sequence[_Row]]] = []
        self._pending: dict[Hashable, Any] = {}
        self._writing: Deferred[None] | None = None
        self._forgotten: dict[tuple[str, str, str], float] = {}
        self._used: dict[str, float] = {}
        self._use_call: IDelayedCall | None = None
        self._in_trouble = False

    def open(self) -> None:
        """Opens the database, made if it is not there. Blocks; called once, before anything else.

        What is no database any more is set aside: an empty index is colder and just as true.

        Raises:
            sqlite3.Error: It cannot be opened.
            ValueError: A newer version wrote it.
        """
        try:
            self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._disconnect()
            aside = self._path.with_name(f"{self._path.name}.broken")
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
            _log.error(
                "index: {path}: {error}; set aside as {aside}, starting with an empty one",
                path=self._path,
                error=error,
                aside=aside.name,
            )
            self._connect()

    def _connect(self) -> None:
        self._writer = writer = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version > statements.SCHEMA_VERSION:
            raise ValueError(
                f"{self._path}: written by a newer regproxy (index version {version}, "
                f"this one knows {statements.SCHEMA_VERSION}); move it away to start with an "
                "empty index"
            )
        writer.executescript(statements.SCHEMA)
        writer.execute(f"PRAGMA user_version = {statements.SCHEMA_VERSION}")
        self._reader = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=0, isolation_level=None
        )

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def close(self) -> Deferred[None]:
        """Writes what is queued and closes the database."""
        if self._use_call is not None and self._use_call.active():
            self._use_call.cancel()
        self._flush_uses()

        return self.flush().addBoth(lambda _: self._disconnect())

    # Questions

    def tag(self, registry: str, repository: str, tag: str, variant: int) -> Tag | None:
        """What *tag* meant to clients that accept *variant*, when it was last verified."""
        key = (registry, repository, tag, variant)
        row = self._pending.get(("tag", *key), False)
        if row is False:
            row = self._select(statements.TAG, key)
        if row is None or (self._forgotten and self._is_forgotten(key, row[1])):
            return None
        return Tag(Digest.parse(row[0]), row[1])

    def holding(self, registry: str, repository: str, digest: Digest) -> Holding | None:
        """How *repository* is known to hold *digest*, None if it is not."""
        key = (registry, repository, str(digest))
        if self._pending:
            pending: _Held | bool | None = self._pending.get(("holding", *key), False)
            if pending is None:
                return None
            if isinstance(pending, _Held):
                media_type = pending.media_type
                if media_type is None and not pending.anew:
                    row = self._select(statements.HOLDING, key)
                    media_type = row[0] if row else None
                return Holding(media_type, self.size(digest))
            row = self._select(statements.HOLDING, key)
            return None if row is None else Holding(row[0], self.size(digest))
        row = self._select(statements.HOLDING, key)
        return None if row is None else Holding(*row)

    def size(self, digest: Digest) -> int | None:
        """The size in bytes of a stored blob, None if it is not remembered."""
        row = self._pending.get(("blob", str(digest)), False)
        if row is False:
            row = self._select(statements.SIZE, (str(digest),))
        return None if row is None else int(row[0])

    # Statements

    def put_tag(
        self,
        registry: str,
        repository: str,
        tag: str,
        variant: int,
        digest: Digest,
        *,
        asked: float | None = None,
    ) -> None:
        """Upstream says that *tag* means *digest*.

        Args:
            registry: Which registry says so.
            repository: Of which repository.
            tag: The tag.
            variant: To clients that accept this.
            digest: What it means.
            asked: When upstream was asked, in the clock's seconds; now by default. An answer to a
                question from before the tag was forgotten is not kept.
        """
        key = (registry, repository, tag, variant)
        now = self._clock.seconds()
        asked = now if asked is None else asked
        if self._is_forgotten(key, asked):
            return
        value = (str(digest), now)
        row = (*key, *value, registry, repository, tag, asked)
        self._put(("tag", *key), value, statements.PUT_TAG, row)

    def forget_tag(self, registry: str, repository: str, tag: str) -> None:
        """Nothing that was heard of *tag* until now counts any more, for any variant.

        That holds for every process that shares the index, and for answers still to come to what
        was asked before.
        """
        key, now = (registry, repository, tag), self._clock.seconds()
        self._forgotten.pop(key, None)
        self._forgotten[key] = now
        if len(self._forgotten) > _FORGOTTEN_KEPT:
            del self._forgotten[next(iter(self._forgotten))]
        self._queue.append((statements.FORGET_TAG, [key]))
        self._queue.append((statements.NOTE_FORGOTTEN, [(*key, now)]))
        self._start()

    def forgotten(self, registry: str, repository: str, tag: str) -> float | None:
        """When *tag* was forgotten last, in the clock's seconds; None if nobody knows."""
        return self._forgotten.get((registry, repository, tag))

    def _is_forgotten(self, key: tuple[str, str, str, int], moment: float) -> bool:
        """Whether what was known at *moment* has been forgotten since."""
        forgotten = self._forgotten.get(key[:3])
        return forgotten is not None and moment <= forgotten

    def drop_tag(self, registry: str, repository: str, tag: str, variant: int) -> None:
        """Upstream says now that *tag* is not there."""
        key = (registry, repository, tag, variant)
        self._put(("tag", *key), None, statements.DROP_TAG, key)

    def put_holding(
        self, registry: str, repository: str, digest: Digest, media_type: str | None = None
    ) -> None:
        """*repository* holds *digest*; a media type says that upstream served it as a manifest."""
        key = (registry, repository, str(digest))
        pending: _Held | None = self._pending.get(("holding", *key), _HELD)
        if pending is None:
            pending = _HELD_ANEW
        held = _Held(media_type or pending.media_type, pending.anew)
        self._put(("holding", *key), held, statements.PUT_HOLDING, (*key, held.media_type))

    def drop_holding(self, registry: str, repository: str, digest: Digest) -> None:
        """Whether *repository* holds *digest* is not known any more."""
        key = (registry, repository, str(digest))
        self._put(("holding", *key), None, statements.DROP_HOLDING, key)

    def put_blob(self, digest: Digest, size: int) -> None:
        """*digest* is stored and has *size* bytes."""
        row = (str(digest), size, self._clock.seconds())
        self._put(("blob", str(digest)), (size,), statements.PUT_BLOB, row)

    def drop_blob(self, digest: Digest) -> None:
        """*digest* is no longer stored."""
        self._put(("blob", str(digest)), None, statements.DROP_BLOB, (str(digest),))

    def put_references(
        self, registry: str, repository: str, manifest: Digest, links: Sequence[tuple[str, int]]
    ) -> None:
        """*manifest* needs these digests, given with their sizes in bytes; *repository* has them.

        One statement for all of them: there may be thousands.
        """
        if not links:
            return
        for digest, _ in links:
            # What is pending already says no less, unless it says that this is not known.
            key = ("holding", registry, repository, digest)
            if self._pending.setdefault(key, _HELD) is None:
                self._pending[key] = _HELD_ANEW
        name = str(manifest)
        self._queue.append(
            (statements.PUT_HOLDING, [(registry, repository, digest, None) for digest, _ in links])
        )
        self._queue.append((statements.PUT_LINK, [(name, digest, size) for digest, size in links]))
        self._start()

    def use(self, digest: Digest) -> None:
        """*digest* was asked for now; kept in memory and written now and then."""
        self._used[str(digest)] = self._clock.seconds()
        if self._use_call is None:
            self._use_call = self._clock.callLater(_USE_SECONDS, self._flush_uses)

    def flush(self) -> Deferred[None]:
        """Fires when everything said so far is committed, or given up."""
        done: Deferred[None] = Deferred()

        def again(_: object = None) -> None:
            if self._writing is None:
                done.callback(None)
            else:
                self._writing.addBoth(again)

        again()
        return done

    def _select(self, statement: str, parameters: _Row) -> Any:
        if self._reader is None:
            return None
        try:
            return self._reader.execute(statement, parameters).fetchone()
        except sqlite3.Error as error:
            self._trouble(error)
            return None

    def _put(self, key: Hashable, value: Any, statement: str, row: _Row) -> None:
        self._pending[key] = value
        self._queue.append((statement, [row]))
        self._start()

    def _flush_uses(self) -> None:
        self._use_call = None
        if self._used:
            uses = [(when, digest) for digest, when in self._used.items()]
            self._queue.append((statements.USE_BLOB, uses))
        self._used = {}
        self._start()

    def _start(self) -> None:
        if self._writing is not None or not self._queue or self._writer is None:
            return
        batch, self._queue = self._queue, []
        pending = dict(self._pending)
        writing: Deferred[None] = Deferred()
        self._writing = writing
        job = self._worker(_write, self._writer, batch)
        job.addCallbacks(self._wrote, self._failed)
        job.addBoth(self._settle, pending, writing)

    def _settle(self, _: object, pending: dict[Hashable, Any], writing: Deferred[None]) -> None:
        for key, value in pending.items():
            if key in self._pending and self._pending[key] is value:
                del self._pending[key]
        self._writing = None
        self._start()
        writing.callback(None)

    def _wrote(self, _: None) -> None:
        if self._in_trouble:
            self._in_trouble = False
            _log.info("index: works again")

    def _failed(self, failure: Failure) -> None:
        if failure.check(sqlite3.Error):
            self._trouble(failure.value)
        else:
            _log.failure("index: a batch broke", failure=failure)

    def _trouble(self, error: BaseException | None) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            _log.error("index: {error}; the cache is colder until it works again", error=error)


def _write(connection: sqlite3.Connection, batch: Sequence[tuple[str, Sequence[_Row]]]) -> None:
    """Commits a batch, all or nothing. Blocks."""
    # The context commits, and rolls back what it cannot commit.
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement, rows in batch:
            connection.executemany(statement, rows)
