"""Freshness: whether a stored tag may be served without asking upstream, and what if not."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regproxy.cache.index import Index, Tag
from regproxy.cache.manifests import Manifests, ServedManifest
from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.model.mediatypes import accept_header
from regproxy.model.outcome import Outcome
from regproxy.single_flight import SingleFlight
from regproxy.upstream.client import ManifestHead, Upstream, cannot_be_asked

_log = Logger()

_Key = tuple[str, str, str, int]


@frozen
class FreshnessRules:
    """How long answers hold.

    Attributes:
        tag_ttl: Seconds for which a tag's meaning is served without asking upstream.
        stale_if_error: Seconds for which it is served when upstream cannot be asked.
        revalidate: Seconds that a question to upstream may take when a stored answer is at hand.
    """

    tag_ttl: float
    stale_if_error: float
    revalidate: float


class Freshness:
    """Turns tags into manifests; all who ask for a tag share one question upstream."""

    def __init__(self, index: Index, manifests: Manifests, clock: IReactorTime, limit: int) -> None:
        """Args:
        index: Remembers what tags meant.
        manifests: Keeps what they mean.
        clock: Tells how old an answer is.
        limit: The largest manifest that is accepted, in bytes.
        """
        self._index = index
        self._manifests = manifests
        self._clock = clock
        self._limit = limit
        self._gets: SingleFlight[_Key, ServedManifest] = SingleFlight()
        self._heads: SingleFlight[_Key, ManifestHead] = SingleFlight()

    async def get(
        self,
        upstream: Upstream,
        repository: str,
        tag: str,
        variant: int,
        rules: FreshnessRules,
        deadline: Deadline,
        *,
        head: bool = False,
    ) -> ServedManifest:
        """What *tag* means to a client.

        Args:
            upstream: The registry.
            repository: Its repository.
            tag: A valid tag.
            variant: What the client accepts (`regproxy.model.mediatypes.accept_variant`).
            rules: How long answers hold.
            deadline: When the client must have an answer.
            head: Whether the head alone is wanted: then nothing is fetched for it.

        Raises:
            RegistryError: Upstream refused, or could not be asked and nothing is stored.
        """
        key = (upstream.name, repository, tag, variant)
        known = self._index.tag(*key)
        if known is not None:
            age = self._clock.seconds() - known.verified
            if 0 <= age < rules.tag_ttl:
                fresh = await self._manifests.local(
                    upstream.name, repository, known.digest, Outcome.HIT
                )
                if fresh is not None:
                    return fresh
                if not head:
                    try:
                        return await self._manifests.get(
                            upstream, repository, known.digest, deadline
                        )
                    except RegistryError as error:
                        # A manifest that was deleted says nothing of what the tag means now.
                        if error.status != 404:
                            raise
            else:
                stored = await self._manifests.local(
                    upstream.name, repository, known.digest, Outcome.STALE
                )
                if stored is not None:
                    return await self._revalidated(
                        upstream, key, known, stored, rules, deadline, head=head
                    )
        return await self._fetched(upstream, key, deadline, head=head)

    async def _revalidated(
        self,
        upstream: Upstream,
        key: _Key,
        known: Tag,
        stored: ServedManifest,
        rules: FreshnessRules,
        deadline: Deadline,
        *,
        head: bool,
    ) -> ServedManifest:
        """The stored manifest if upstream still says so or cannot be asked, else the new one."""
        usable = self._clock.seconds() - known.verified < rules.stale_if_error
        if usable and not upstream.circuit.may_ask():
            return stored
        patience = deadline.earlier(rules.revalidate) if usable else deadline
        try:
            now = await self._head(upstream, key, patience)
            if now.digest == known.digest:
                return evolve(stored, outcome=Outcome.REVALIDATED)
            if head:
                return self._told(key, now)
            return await self._fetched(upstream, key, patience, head=False)
        except RegistryError as error:
            if not cannot_be_asked(error):
                self._index.drop_tag(*key)
                raise
            if not usable:
                raise
            self._failed(upstream, error)
            return stored

    async def _fetched(
        self, upstream: Upstream, key: _Key, deadline: Deadline, *, head: bool
    ) -> ServedManifest:
        if head:
            return self._told(key, await self._head(upstream, key, deadline))
        joined = key in self._gets
        flight = self._gets.call(key, lambda: self._ask_body(upstream, key))
        served = await deadline.bound(flight, upstream.name)
        if joined and served.outcome is Outcome.MISS:
            return evolve(served, outcome=Outcome.JOIN)
        return served

    async def _head(self, upstream: Upstream, key: _Key, deadline: Deadline) -> ManifestHead:
        flight = self._heads.call(key, lambda: self._ask_head(upstream, key))
        return await deadline.bound(flight, upstream.name)

    async def _ask_head(self, upstream: Upstream, key: _Key) -> ManifestHead:
        _, repository, tag, variant = key
        deadline = Deadline.after(self._clock, upstream.headers_timeout)
        try:
            now = await upstream.head_manifest(repository, tag, accept_header(variant), deadline)
        except RegistryError as error:
            if not cannot_be_asked(error):
                self._answered(upstream)
            raise
        self._answered(upstream)
        known = self._index.tag(*key)
        # A manifest that is still to be fetched must not take the place of one that is stored.
        if known is not None and known.digest == now.digest:
            self._index.put_tag(*key, known.digest)
        return now

    def _told(self, key: _Key, now: ManifestHead) -> ServedManifest:
        """The answer to a client's HEAD; the client comes back for the digest that it is told."""
        if now.digest is not None:
            self._index.put_tag(*key, now.digest)
        return ServedManifest(now.digest, now.media_type, now.size, None, Outcome.MISS)

    async def _ask_body(self, upstream: Upstream, key: _Key) -> ServedManifest:
        registry, repository, tag, variant = key
        deadline = Deadline.after(self._clock, upstream.headers_timeout)
        body = await upstream.get_manifest(
            repository, tag, accept_header(variant), self._limit, deadline
        )
        served = self._manifests.keep(registry, repository, body, None)
        self._answered(upstream)
        if served.outcome is Outcome.MISS and served.digest is not None:
            self._index.put_tag(*key, served.digest)
        return served

    def _failed(self, upstream: Upstream, error: RegistryError) -> None:
        if upstream.circuit.failed():
            _log.warn(
                "{registry} cannot be asked, stored tags are served stale: {error}",
                registry=upstream.name,
                error=error.message,
            )

    def _answered(self, upstream: Upstream) -> None:
        if upstream.circuit.answered():
            _log.info("{registry} answers again", registry=upstream.name)
