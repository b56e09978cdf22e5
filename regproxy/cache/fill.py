"""A fill: the one transfer that brings a blob from upstream into the store."""

from __future__ import annotations

import contextlib

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.cache.content import ContentFailed, OpenFile
from regproxy.cache.following import follow
from regproxy.cache.hashing import Follower
from regproxy.cache.part_map import PartState, PartTaken, Progress
from regproxy.cache.sources import Source, Sources
from regproxy.cache.store import Part, Store, hash_file
from regproxy.cache.waiters import Waiters
from regproxy.cache.writing import PartWriter
from regproxy.model.digest import Digest, Hasher
from regproxy.model.errors import RegistryError
from regproxy.upstream.exchange import Answer
from regproxy.upstream.transfer import LARGEST_UNANNOUNCED, LEAST, Transfer, TransferCut
from regproxy.worker import Worker

_RESUMES = 5
"""Times that a cut transfer is taken up again without progress."""

_PROGRESS = 64 * 1024
"""Bytes that count as progress: a source that sends a few each time must not hold a fill."""

_BACK_OFF = 0.5
"""Seconds before the first resume; doubled each time."""

_BUFFER = 256 * 1024
_HASH_JOB = 8 * 1024 * 1024

_TURN = 0.02
"""Seconds before a fill that another process gave up is tried here."""

_log = Logger()


class StoreTrouble(ContentFailed):
    """The disk failed under a fill; readers go on from its front without it.

    Attributes:
        front: Bytes that can be read from the part.
        hasher: Holds the hash of exactly these bytes.
        size: The blob's size, None if unknown.
    """

    def __init__(self, front: int, hasher: Hasher, size: int | None) -> None:
        """See the class's attributes."""
        super().__init__("the cache cannot be written")
        self.front = front
        self.hasher = hasher
        self.size = size


class DigestMismatch(ContentFailed):
    """Upstream sent bytes that are not what was asked for."""


class Fill:
    """Content that is on its way; it belongs to the cache and goes on when every client has left.

    Attributes:
        digest: What the bytes must hash to.
        size: From upstream's Content-Length; None before `started`, or when upstream never says.
        front: Bytes that are written from the start on.
        verified: Whether length and digest are right.
    """

    def __init__(
        self,
        digest: Digest,
        source: Source,
        *,
        store: Store,
        clock: IReactorTime,
        disk: Worker,
        hashing: Worker,
        silence: float,
        commits: Worker | None = None,
    ) -> None:
        """Args:
        digest: Which blob.
        source: The first source; `add_source` brings more.
        store: Where the part is made.
        clock: Runs delays and deadlines.
        disk: Runs writes.
        hashing: Runs hash jobs, in a pool of its own.
        silence: Seconds without a byte after which a transfer counts as cut.
        commits: Runs what waits for fsync; *disk* by default.
        """
        self.digest = digest
        self.size: int | None = None
        self.verified = False
        self._sources = Sources(digest, source)
        self._store = store
        self._clock = clock
        self._disk = disk
        self._hashing = hashing
        self._silence = silence
        self._commits = commits or disk
        self._hasher: Hasher = digest.hasher()
        self._file: OpenFile | None = None
        self.front = 0
        self._transfer: Transfer | None = None
        self._started = Waiters(clock)
        self._growth = Waiters(clock)
        self._is_started = False
        self._failure: Failure | None = None
        self._over = Waiters(clock)
        self._is_over = False
        self._attached = 1

    # Content

    def open(self) -> OpenFile:
        """See `Content.open`; only once started."""
        if self._file is None:
            raise ValueError("the fill has not started")
        return self._file.share()

    def close(self) -> None:
        """See `Content.close`."""
        self._attached -= 1
        if self._attached == 0 and self._file is not None:
            self._file.close()

    def available(self, offset: int) -> int:
        """See `Content.available`: the last byte is held back until the hash releases it."""
        front = self.front
        if not self.verified and self.size is not None:
            front = min(front, self.size - 1)
        return max(0, front - offset)

    def wait(self, offset: int) -> Deferred[None]:
        """See `Content.wait`."""
        if self.verified or self.available(offset):
            return succeed(None)
        if self._failure is not None:
            return fail(Failure(self._failure.value))
        return self._growth.wait()

    # Towards the cache

    def attach(self) -> Fill:
        """This fill for one more reader, who closes it."""
        self._attached += 1
        return self

    def add_source(self, source: Source) -> None:
        """One more source, behind those that are known."""
        self._sources.add(source)

    @property
    def senders(self) -> list[Source]:
        """The sources that have answered: any of these may have sent wrong bytes."""
        return self._sources.senders

    @property
    def failed(self) -> bool:
        """Whether nothing will come of it; it may still have to put its part away."""
        return self._failure is not None

    def over(self) -> Deferred[None]:
        """Fires when it does nothing any more, however it ended."""
        return succeed(None) if self._is_over else self._over.wait()

    def started(self) -> Deferred[None]:
        """Fires when upstream's headers are here and the part is open.

        Returns:
            A Deferred that fails with `RegistryError` when no source has the blob, and with
            `StoreTrouble` when no part can be made.
        """
        if self._is_started:
            return succeed(None)
        if self._failure is not None:
            return fail(Failure(self._failure.value))
        return self._started.wait()

    async def run(self) -> None:
        """Fills until the blob is verified and stored, or will never be.

        Raises:
            RegistryError: No source has the blob.
            ContentFailed: The transfer came to nothing.
        """
        try:
            while not self.verified:
                try:
                    part = await self._create_part()
                except PartTaken:
                    await self._follow()
                else:
                    await self._fill(part)
        except Exception:
            self._fail(Failure())
            raise
        finally:
            self.close()
            self._is_over = True
            self._over.wake()

    def _fail(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
            self._started.fail(failure)
            self._growth.fail(failure)

    async def _create_part(self) -> Part:
        try:
            return await self._disk(self._store.create_part, self.digest)
        except OSError as error:
            _log.error("cache: no part for {digest}: {error}", digest=self.digest, error=error)
            raise StoreTrouble(0, self._hasher, None) from error

    async def _follow(self) -> None:
        """Follows the process that fills this blob, to its end or until it is our turn.

        Raises:
            StoreTrouble: It gave up, or died, after readers had begun here.
        """
        try:
            await follow(self.digest, self._store, self._disk, self._clock, self._report)
        except OSError as error:
            _log.error("cache: cannot follow {digest}: {error}", digest=self.digest, error=error)
        if self.verified:
            return
        if self._file is not None:
            raise await self._left_alone(self._file)
        await deferLater(self._clock, _TURN, lambda: None)

    async def _left_alone(self, file: OpenFile) -> StoreTrouble:
        """What readers need to go on: the hash of what they may have been given."""
        hasher = self.digest.hasher()
        buffer = bytearray(_BUFFER)
        for start in range(0, self.front, _HASH_JOB):
            stop = min(self.front, start + _HASH_JOB)
            try:
                await self._hashing(hash_file, file.descriptor, hasher, start, stop, buffer)
            except OSError as error:
                _log.error("cache: {digest}: {error}", digest=self.digest, error=error)
                return StoreTrouble(0, self.digest.hasher(), self.size)
        return StoreTrouble(self.front, hasher, self.size)

    def _report(self, file: OpenFile, progress: Progress) -> None:
        """Takes over what the process that fills this blob tells of it."""
        if not progress.front:
            return
        if self._file is None:
            self._file = file.share()
        self.size, self.front = progress.size, progress.front
        self.verified = progress.state is PartState.VERIFIED
        self._start()
        self._growth.wake()

    async def _fill(self, part: Part) -> None:
        self._file = part.file
        try:
            await self._receive(part)
        except BaseException as error:
            if isinstance(error, Exception):
                # Nobody may join it while its part is put away.
                self._fail(Failure())
            await self._disk(part.remove)
            raise
        self.verified = True
        self._growth.wake()
        await self._commit(part)

    def _start(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._started.wake()

    async def _receive(self, part: Part) -> None:
        """Transfers, writes and hashes everything, and checks length and digest."""
        follower = Follower(part, self._hasher, self._hashing)
        writer = PartWriter(
            part,
            self._clock,
            self._disk,
            written=follower.advance,
            grown=lambda: self._grown(writer.front),
            pause=lambda: self._transfer.pause() if self._transfer else None,
            resume=lambda: self._transfer.resume() if self._transfer else None,
        )
        try:
            await self._transfer_all(part, writer)
            await writer.flush()
            await follower.finish()
        except OSError as error:
            raise await self._trouble(writer, follower, error) from error
        finally:
            # No job may still use the descriptor when it is closed.
            for settled in (writer.flush, follower.finish):
                with contextlib.suppress(OSError):
                    await settled()
        self._verify(writer.front)

    async def _transfer_all(self, part: Part, writer: PartWriter) -> None:
        idle_resumes = progress = 0
        source, answer = await self._sources.ask(0)
        if answer.length == 0 and not self.digest.is_of_nothing:
            # It would be a whole answer as soon as it starts: there is no last byte to hold back.
            source.leave()
            answer.discard()
            raise DigestMismatch(f"{source.name}: sent no bytes for {self.digest}")
        self.size = part.size = answer.length
        self._start()
        while True:
            try:
                await self._transfer_one(source, answer, writer)
                return
            except TransferCut as error:
                if writer.accepted - progress >= _PROGRESS:
                    idle_resumes, progress = 0, writer.accepted
                idle_resumes += 1
                if idle_resumes > _RESUMES or self.size is None:
                    raise ContentFailed(f"{source.name}: {error}") from error
                _log.warn(
                    "fill {digest}: {source}: {error} after {count} bytes, resuming",
                    digest=self.digest,
                    source=source.name,
                    error=error,
                    count=writer.accepted,
                )
            while True:
                await deferLater(self._clock, _BACK_OFF * 2 ** (idle_resumes - 1), lambda: None)
                try:
                    source, answer = await self._sources.ask(writer.accepted)
                    break
                except RegistryError as error:
                    idle_resumes += 1
                    if idle_resumes > _RESUMES:
                        raise ContentFailed(error.message) from error

    async def _transfer_one(self, source: Source, answer: Answer, writer: PartWriter) -> None:
        def sink(data: bytes) -> None:
            if self.size is not None and writer.accepted + len(data) > self.size:
                raise DigestMismatch(f"{source.name}: more bytes than announced")
            writer.write(data)

        most = LARGEST_UNANNOUNCED if self.size is None else None
        transfer = Transfer(sink, self._clock, self._silence, least=LEAST, most=most)
        self._transfer = transfer
        if writer.paused:
            transfer.pause()
        try:
            answer.deliver(transfer)
            await transfer.done
        finally:
            self._transfer = None
            source.leave()
        if self.size is not None and writer.accepted < self.size:
            raise TransferCut("the body ended early")

    def _verify(self, length: int) -> None:
        if self.size is None:
            self.size = length
        actual = self._hasher.hexdigest()
        if length != self.size or actual != self.digest.hex:
            names = ", ".join(source.name for source in self.senders)
            raise DigestMismatch(f"{names}: sent {self.digest.algorithm}:{actual}")

    async def _commit(self, part: Part) -> None:
        """The blob gets its name; if the disk refuses, its readers have it all the same."""
        try:
            await self._commits(part.commit)
        except OSError as error:
            _log.error("cache: {digest} is not kept: {error}", digest=self.digest, error=error)
            await self._disk(part.remove)

    async def _trouble(
        self, writer: PartWriter, follower: Follower, error: OSError
    ) -> StoreTrouble:
        _log.error(
            "cache: fill {digest} stops at {front}: {error}; its clients go on uncached",
            digest=self.digest,
            front=writer.front,
            error=error,
        )
        try:
            await follower.finish()
        except OSError:
            # It cannot be read back: what was delivered is fetched and hashed once more.
            return StoreTrouble(0, self.digest.hasher(), self.size)
        return StoreTrouble(writer.front, self._hasher, self.size)

    def _grown(self, front: int) -> None:
        self.front = front
        self._growth.wake()
