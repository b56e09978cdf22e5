"""Blobs for clients: from the store, from a running fill, or past a cache that fails."""

from __future__ import annotations

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regproxy.access.grants import Grant, Grants
from regproxy.cache.content import Content, ContentFailed
from regproxy.cache.fill import Fill, StoreTrouble
from regproxy.cache.fills import Fills, RegistrySource
from regproxy.cache.index import Index
from regproxy.cache.store import Store
from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.front.delivery import Deliveries, Delivery
from regproxy.front.relaying import Check, Relay
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.model.outcome import Outcome
from regproxy.model.ranges import ByteRange, content_range, parse_range
from regproxy.model.route import Blob, Route
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer
from regproxy.upstream.transfer import TransferCut

_log = Logger()

_AHEAD = 64 * 1024 * 1024
"""A range that starts further than this past a fill's front is fetched by itself."""


@frozen
class BlobAnswers:
    """Answers requests for blobs.

    Attributes:
        store: Has the blobs.
        index: Knows their sizes.
        fills: Brings those that are missing.
        grants: Decides who may have which.
        deliveries: Sends them.
        silence: Seconds without a byte after which upstream counts as gone.
    """

    store: Store
    index: Index
    fills: Fills
    grants: Grants
    deliveries: Deliveries
    silence: float

    async def answer(
        self, client: Client, route: Route, asked: Blob, upstream: Upstream, deadline: Deadline
    ) -> None:
        """Answers with a blob or a range of it.

        Raises:
            RegistryError: Why it cannot be served.
            ClientGone: Nobody is there any more.
            ContentFailed: The answer had begun and cannot be completed.
        """
        digest = asked.digest
        grant = await self.grants.blob(upstream, route.repository, digest, deadline)
        stored = self.store.open(digest, grant.size) if grant.proved else None
        if stored is not None:
            self.index.use(digest)
            try:
                await self._deliver(client, stored, Outcome.HIT)
            finally:
                stored.close()
        elif client.is_head and not self.fills.running(digest):
            size = await upstream.head_blob(route.repository, digest, deadline)
            self.grants.proved(upstream, route.repository, digest)
            _head(client, digest, size, None, Outcome.MISS)
            client.finish()
        else:
            await self._fill(
                client, asked.digest, RegistrySource(upstream, route.repository), grant, deadline
            )

    async def _fill(
        self,
        client: Client,
        digest: Digest,
        source: RegistrySource,
        grant: Grant,
        deadline: Deadline,
    ) -> None:
        upstream, repository = source.upstream, source.repository
        fill, is_first = self.fills.join(digest, source)
        detour = _Detour(self, client, source, digest)
        try:
            await deadline.bound(fill.started(), f"{upstream.name}: blob")
            if source in fill.senders:
                self.grants.proved(upstream, repository, digest)
            elif not grant.proved:
                # Somebody else's source has opened: it proves nothing about this repository.
                await self.grants.prove(upstream, repository, digest, deadline)
            client.check_here()
            if self.far_ahead(client, fill) is not None and await detour.send_range(fill, deadline):
                return
            await self._deliver(client, fill, Outcome.MISS if is_first else Outcome.JOIN)
        except StoreTrouble as trouble:
            await detour.go_on(trouble)
        finally:
            fill.close()

    def far_ahead(self, client: Client, fill: Fill) -> ByteRange | None:
        """The range that is wanted long before the fill will be there, if it is such a one."""
        if fill.size is None or fill.verified or client.matches(f'"{fill.digest}"'):
            return None
        wanted = _wanted(client, fill.digest, fill.size)
        # The last byte is the fill's to release, whoever sends the others.
        if wanted is None or not fill.front + _AHEAD < wanted.start < fill.size - 1:
            return None
        return wanted

    async def _deliver(self, client: Client, content: Content, outcome: Outcome) -> None:
        client.check_here()
        size = content.size
        if _not_modified(client, content.digest, outcome):
            return
        wanted = _wanted(client, content.digest, size) if size is not None else None
        _head(client, content.digest, size, wanted, outcome)
        if client.is_head:
            client.finish()
            return
        client.begin()
        start, stop = (wanted.start, wanted.stop) if wanted is not None else (0, size or None)
        await self.send(client, content, start, stop)
        client.finish()

    async def send(self, client: Client, content: Content, start: int, stop: int | None) -> None:
        """Sends a part of a content as it becomes available.

        Raises:
            ClientGone: Nobody is there any more.
            ContentFailed: The content will never be whole.
        """
        delivery = Delivery(content, start, stop, client.request, self.deliveries)
        try:
            await delivery.deliver()
        except OSError as error:
            raise ContentFailed(f"cache: {content.digest}: {error}") from error
        finally:
            client.entry.sent += delivery.sent


@define
class _Detour:
    """The way to a client past the cache.

    Attributes:
        sent: Bytes that the client got on it.
    """

    answers: BlobAnswers
    client: Client
    source: RegistrySource
    digest: Digest
    sent: int = 0

    async def send_range(self, fill: Fill, deadline: Deadline) -> bool:
        """Sends a range that the fill will not reach soon by a request of its own.

        Returns:
            Whether it was sent; if not, nothing was, and the fill has to deliver it.
        """
        client, size = self.client, fill.size or 0
        try:
            await self._enter(deadline)
        except RegistryError:
            return False
        try:
            client.check_here()
            # The fill has gone on while this waited for its place.
            wanted = self.answers.far_ahead(client, fill)
            if wanted is None:
                return False
            stop = min(wanted.stop, size - 1)
            answer = await self._range(wanted.start, stop, deadline)
            if answer is None:
                return False
            client.check_here(answer)
            _head(client, self.digest, size, wanted, Outcome.RELAY)
            client.begin()
            relay = self._relay(answer, wanted.start, (wanted.start, stop), None)
            await self._deliver(relay)
        finally:
            self.source.leave()
        if relay.sent < stop - wanted.start:
            raise ContentFailed(f"{self.source.name}: a range ended early")
        if stop < wanted.stop:
            # What holds for every answer: the last byte comes when the digest is right.
            await self.answers.send(client, fill, stop, wanted.stop)
        client.finish()
        return True

    async def _range(self, start: int, stop: int, deadline: Deadline) -> Answer | None:
        """Upstream's answer with a part of the blob, None when there is no such."""
        upstream, repository = self.source.upstream, self.source.repository
        try:
            return await upstream.get_blob(repository, self.digest, start, deadline, stop=stop)
        except RegistryError as error:
            _log.warn(
                "{digest}: a range comes with the fill: {why}",
                digest=self.digest,
                why=error.message,
            )
            return None

    async def go_on(self, trouble: StoreTrouble) -> None:
        """Sends what a fill could not, from its front on and with its hash."""
        self.client.check_here()
        if trouble.front == trouble.size:
            raise trouble
        deadline = self.source.deadline()
        await self._enter(deadline)
        try:
            await self._send_rest(trouble, deadline)
        finally:
            self.source.leave()

    def _enter(self, deadline: Deadline) -> Deferred[None]:
        return deadline.bound(self.source.enter(), f"{self.source.upstream.name}: queue")

    async def _send_rest(self, trouble: StoreTrouble, deadline: Deadline) -> None:
        client = self.client
        client.check_here()
        upstream, repository = self.source.upstream, self.source.repository
        answer = await upstream.get_blob(
            repository, self.digest, trouble.front, deadline, skip=True
        )
        client.check_here(answer)
        size = trouble.size
        if size is None and answer.length is not None:
            size = trouble.front + answer.length
        begun = bool(client.request.startedWriting)
        if not begun and _not_modified(client, self.digest, Outcome.RELAY):
            answer.discard()
            return
        wanted = None
        if size is not None and (not begun or client.request.code == 206):
            try:
                wanted = _wanted(client, self.digest, size)
            except RegistryError:
                answer.discard()
                raise
        if not begun:
            if size == 0 and not self.digest.is_of_nothing:
                # The head alone would be a whole answer: there is no last byte to hold back.
                answer.discard()
                raise upstream_failed(f"{upstream.name}: sent no bytes for {self.digest}")
            _head(client, self.digest, size, wanted, Outcome.RELAY)
            if client.is_head:
                answer.discard()
                client.finish()
                return
            client.begin()
        position = (wanted.start if wanted is not None else 0) + client.entry.sent
        if client.entry.sent > self.sent and position > trouble.front:
            # The hash would not cover what the client already has from the fill.
            answer.discard()
            raise trouble
        window = (position, wanted.stop if wanted is not None else size)
        check = Check(self.digest, trouble.hasher.copy(), size)
        client.entry.outcome = Outcome.RELAY.value
        await self._deliver(self._relay(answer, trouble.front, window, check))
        client.finish()

    def _relay(
        self, answer: Answer, offset: int, window: tuple[int, int | None], check: Check | None
    ) -> Relay:
        deliveries = self.answers.deliveries
        return Relay(
            answer,
            self.client.request,
            deliveries.clock,
            silence=self.answers.silence,
            stall=deliveries.stall,
            offset=offset,
            window=window,
            check=check,
        )

    async def _deliver(self, relay: Relay) -> None:
        try:
            await relay.deliver()
        except TransferCut as error:
            raise ContentFailed(f"{self.source.upstream.name}: {error}") from error
        finally:
            self.sent += relay.sent
            self.client.entry.sent += relay.sent


def _not_modified(client: Client, digest: Digest, outcome: Outcome) -> bool:
    """Answers 304 if the client has the blob.

    RFC 9110 section 13.2.2: this condition comes before any range.
    """
    etag = f'"{digest}"'
    if not client.matches(etag):
        return False
    client.head(304, [("ETag", etag)], outcome)
    client.finish()
    return True


def _wanted(client: Client, digest: Digest, size: int) -> ByteRange | None:
    """The range that the client asks for, None for the whole.

    Raises:
        RegistryError: 416.
    """
    if client.is_head or size == 0:
        # RFC 9110 section 14.2: ranges are for GET.
        return None
    condition = client.header("if-range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return None
    return parse_range(client.header("range"), size)


def _head(
    client: Client,
    digest: Digest,
    size: int | None,
    wanted: ByteRange | None,
    outcome: Outcome,
) -> None:
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
    ]
    if size is not None:
        headers.append(("Accept-Ranges", "bytes"))
        length = size if wanted is None else wanted.length
        headers.append(("Content-Length", str(length)))
    if wanted is not None:
        headers.append(("Content-Range", content_range(wanted, size)))
    client.head(200 if wanted is None else 206, headers, outcome)
