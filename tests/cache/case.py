"""What tests of the cache have in common."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from regproxy.cache.content import OpenFile
from regproxy.cache.index import Index
from regproxy.cache.store import Part, Store
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError
from regproxy.testing import HeldWorker, ImmediateWorker
from regproxy.upstream.exchange import Answer
from regproxy.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

DATA = bytes(range(256)) * 40
DIGEST = Digest.of(DATA)


class FaultyWorker:
    """A worker on a disk that fails.

    Attributes:
        broken: The names of the functions that fail.
        broken_with: What they fail with, by default ENOSPC.
        ran: The names of those that were given to it.
    """

    def __init__(self, worker: Worker | None = None) -> None:
        """Args:
        worker: Runs what is not broken, and the failures.
        """
        self.broken: set[str] = set()
        self.broken_with: Exception = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.ran: list[str] = []
        self._worker: Worker = worker or ImmediateWorker()

    def __call__(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """See Worker."""
        name = cast(Any, function).__name__
        self.ran.append(name)
        if name in self.broken:
            return cast("Deferred[T]", self._worker(_fail, self.broken_with))
        return self._worker(function, *args, **kwargs)


def _fail(error: Exception) -> None:
    raise error


class Body:
    """The body of an answer, sent by the test.

    Attributes:
        length: What Content-Length says.
        paused: Whether the reader has asked for a pause.
        stopped: Whether the reader has dropped the connection.
    """

    def __init__(self, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.paused = False
        self.stopped = False
        self._protocol: IProtocol | None = None

    def deliverBody(self, protocol: IProtocol) -> None:
        """See IResponse."""
        self._protocol = protocol
        protocol.makeConnection(cast(Any, self))

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.paused = True

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.paused = False

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self.stopped = True

    def send(self, data: bytes) -> None:
        """Sends the next bytes."""
        self._reader.dataReceived(data)

    def end(self) -> None:
        """Ends the body as its framing says."""
        self._reader.connectionLost(Failure(ResponseDone()))

    def cut(self) -> None:
        """Loses the connection."""
        self._reader.connectionLost(Failure(ConnectionLost()))

    @property
    def _reader(self) -> IProtocol:
        assert self._protocol is not None, "nobody has asked for the body"
        return self._protocol


class ScriptedSource:
    """A source that answers when the test says so.

    Attributes:
        name: See `Source`.
        held: Transfers that have entered and not left.
        asked: The offsets that were asked for.
    """

    def __init__(self, clock: Clock, name: str = "registry.test/team/app") -> None:
        self.name = name
        self.held = 0
        self.asked: list[int] = []
        self._clock = clock
        self._waiting: deque[Deferred[Answer]] = deque()

    async def open(self, digest: Digest, start: int, deadline: Deadline) -> Answer:
        """See `Source.open`."""
        self.asked.append(start)
        waiting: Deferred[Answer] = Deferred()
        self._waiting.append(waiting)
        return await waiting

    def deadline(self) -> Deadline:
        """See `Source.deadline`."""
        return Deadline.after(self._clock, 25.0)

    def enter(self) -> Deferred[None]:
        """See `Source.enter`."""
        self.held += 1
        return succeed(None)

    def leave(self) -> None:
        """See `Source.leave`."""
        self.held -= 1

    @property
    def waiting(self) -> bool:
        """Whether it is being asked."""
        return bool(self._waiting)

    def answer(self, length: int | None) -> Body:
        """Answers the oldest question with a body of that Content-Length."""
        body = Body(length)
        response = cast(IResponse, body)
        self._waiting.popleft().callback(
            Answer("https://registry.test/blob", response, self._clock)
        )
        return body

    def refuse(self, error: Exception) -> None:
        """Answers the oldest question with a failure."""
        self._waiting.popleft().errback(error)


class StoreCase(SynchronousTestCase):
    """A store in a directory of its own; no test may leave a file of it open.

    Attributes:
        clock: Stands still.
        directory: The cache directory.
        store: Prepared.
    """

    def setUp(self) -> None:
        """Makes the store."""
        self.clock = Clock()
        self.directory = Path(self.mktemp()).absolute()
        self.store = Store(self.directory)
        self.store.prepare()
        self.addCleanup(lambda: self.assertEqual(open_files(self.directory), []))

    def parts(self) -> list[str]:
        """The names of the parts on disk."""
        return parts_of(self.directory)

    def stored(self, digest: Digest) -> bytes | None:
        """The bytes of a stored blob."""
        return stored_in(self.store, digest)

    def part(self, digest: Digest = DIGEST) -> Part:
        """A new part, closed when the test is over."""
        part = self.store.create_part(digest)
        self.addCleanup(part.close)
        return part

    def error(self, waiting: Deferred[Any], status: int) -> RegistryError:
        """The error of that status with which *waiting* has failed."""
        error = self.failureResultOf(waiting, RegistryError).value
        assert isinstance(error, RegistryError)
        self.assertEqual(error.status, status, error.message)
        return error


class IndexCase(SynchronousTestCase):
    """An index in a directory of its own.

    Attributes:
        clock: Stands still.
        path: The database.
    """

    held: HeldWorker
    index: Index

    def setUp(self) -> None:
        """Has a path, and no database yet."""
        self.clock = Clock()
        self.path = Path(self.mktemp()).absolute() / "index.sqlite"
        self.path.parent.mkdir(parents=True)

    def opened(self, worker: Worker) -> Index:
        """The index, opened."""
        index = Index(self.path, self.clock, worker)
        index.open()
        self.addCleanup(lambda: self.close(index))
        return index

    def close(self, index: Index) -> None:
        """Closes an index, its last batches written."""
        closing = index.close()
        self.held.run_all()
        self.successResultOf(closing)

    def reopen(self) -> None:
        """Closes `index` and opens it again."""
        self.close(self.index)
        self.index = self.opened(self.held)

    def stages(self) -> Iterator[str]:
        """Goes from before the commit to behind each batch, and on to the next start."""
        yield "said"
        while self.held.held:
            self.held.run_next()
            yield "partly committed"
        self.reopen()
        yield "reopened"

    def rows(self, statement: str) -> list[Any]:
        """The first column of what another connection sees."""
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute(statement)]
        finally:
            connection.close()


def parts_of(directory: Path) -> list[str]:
    """The names of the parts in a cache directory."""
    return sorted(os.listdir(directory / "parts"))


def stored_in(store: Store, digest: Digest) -> bytes | None:
    """The bytes of a stored blob."""
    path = store.path(digest)
    return path.read_bytes() if path.exists() else None


def open_files(directory: Path) -> list[str]:
    """The files below *directory* that this process has open, unlinked ones included."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue  # the one that lists them
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


def bytes_of(file: OpenFile, stop: int, start: int = 0) -> bytes:
    """The bytes of a file from *start* to *stop*."""
    return os.pread(file.descriptor, stop - start, start)
