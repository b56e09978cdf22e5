"""Blobs for clients: from the store, from a running fill, or past a cache that fails."""

from __future__ import annotations

from attrs import define, frozen

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
from regproxy.model.errors import RegistryError
from regproxy.model.outcome import Outcome
from regproxy.model.ranges import ByteRange, content_range, parse_range
from regproxy.model.route import Blob, Route
from regproxy.upstream.client import Upstream
from regproxy.upstream.transfer import TransferCut

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
        try:
            await deadline.bound(fill.started(), f"{upstream.name}: blob")
            if source in fill.senders:
                self.grants.proved(upstream, repository, digest)
            elif not grant.proved:
                # Somebody else's source has opened: it proves nothing about this repository.
                await self.grants.prove(upstream, repository, digest, deadline)
            client.check_here()
            ahead = self._far_ahead(client, fill)
            if ahead is None:
                await self._deliver(client, fill, Outcome.MISS if is_first else Outcome.JOIN)
                return
            relay = _Detour(self, client, upstream, repository, digest)
            await relay.send_range(ahead, fill, deadline)
        except StoreTrouble as trouble:
            relay = _Detour(self, client, upstream, repository, digest)
            await relay.go_on(trouble)
        finally:
            fill.close()

    def _far_ahead(self, client: Client, fill: Fill) -> ByteRange | None:
        """The range that is wanted long before the fill will be there, if it is such a one."""
        if fill.size is None:
            return None
        wanted = _wanted(client, fill.digest, fill.size)
        # The last byte is the fill's to release, whoever sends the others.
        if wanted is None or not fill.front + _AHEAD < wanted.start < fill.size - 1:
            return None
        return wanted

    async def _deliver(self, client: Client, content: Content, outcome: Outcome) -> None:
        client.check_here()
        size = content.size
        etag = f'"{content.digest}"'
        if client.matches(etag):
            # RFC 9110 section 13.2.2: this condition comes before any range.
            client.head(304, [("ETag", etag)], outcome)
            client.finish()
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
    """The way to a client past the cache."""

    answers: BlobAnswers
    client: Client
    upstream: Upstream
    repository: str
    digest: Digest

    async def send_range(self, wanted: ByteRange, fill: Fill, deadline: Deadline) -> None:
        """Sends a range that the fill will not reach soon by a request of its own."""
        client, size = self.client, fill.size or 0
        answer = await self.upstream.get_blob(self.repository, self.digest, wanted.start, deadline)
        client.check_here(answer)
        _head(client, self.digest, size, wanted, Outcome.RELAY)
        client.begin()
        stop = min(wanted.stop, size - 1)
        await self._relay(
            Relay(
                answer,
                client.request,
                self.answers.deliveries.clock,
                silence=self.answers.silence,
                stall=self.answers.deliveries.stall,
                offset=wanted.start,
                window=(wanted.start, stop),
            )
        )
        if stop < wanted.stop:
            # What holds for every answer: the last byte comes when the digest is right.
            await self.answers.send(client, fill, stop, wanted.stop)
        client.finish()

    async def go_on(self, trouble: StoreTrouble) -> None:
        """Sends what a fill could not, from its front on and with its hash."""
        client = self.client
        client.check_here()
        deadline = Deadline.after(self.answers.deliveries.clock, self.upstream.headers_timeout)
        if trouble.front == trouble.size:
            raise trouble
        answer = await self.upstream.get_blob(self.repository, self.digest, trouble.front, deadline)
        client.check_here(answer)
        size = trouble.size
        if size is None and answer.length is not None:
            size = trouble.front + answer.length
        begun = bool(client.request.startedWriting)
        wanted = None
        if size is not None and (not begun or client.request.code == 206):
            try:
                wanted = _wanted(client, self.digest, size)
            except RegistryError:
                answer.discard()
                raise
        if not begun:
            _head(client, self.digest, size, wanted, Outcome.RELAY)
            if client.is_head:
                answer.discard()
                client.finish()
                return
            client.begin()
        first = wanted.start if wanted is not None else 0
        relay = Relay(
            answer,
            client.request,
            self.answers.deliveries.clock,
            silence=self.answers.silence,
            stall=self.answers.deliveries.stall,
            offset=trouble.front,
            window=(first + client.entry.sent, wanted.stop if wanted is not None else size),
            check=Check(self.digest, trouble.hasher.copy(), size),
        )
        client.entry.outcome = Outcome.RELAY.value
        await self._relay(relay)
        client.finish()

    async def _relay(self, relay: Relay) -> None:
        try:
            await relay.deliver()
        except TransferCut as error:
            raise ContentFailed(f"{self.upstream.name}: {error}") from error
        finally:
            self.client.entry.sent += relay.sent


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
