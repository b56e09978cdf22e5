"""Freshness: whether a stored tag may be served without asking upstream, and what if not."""

from __future__ import annotations

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regproxy.cache.index import Index, Tag
from regproxy.cache.manifests import Manifests, ServedManifest
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError
from regproxy.model.mediatypes import accept_header
from regproxy.model.outcome import Outcome
from regproxy.single_flight import SingleFlight
from regproxy.upstream.client import ManifestHead, Upstream

_log = Logger()

_Key = tuple[str, str, str, int]
_Flight = tuple[_Key, float | None]

_NOT_THERE = (401, 403, 404, 410)
"""Statuses that say something of the tag; anything else says that the registry is in trouble."""

_NO_SUCH_METHOD = 405

_DOUBTED_KEPT = 10_000
"""Tags whose push had no answer; of more the first are believed again."""

_TOLD = 32
"""Beside the variants' bits: what a tag means of which the manifest is still to be fetched."""


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
        self._doubted: dict[tuple[str, str, str], float] = {}
        self._gets: SingleFlight[_Flight, ServedManifest] = SingleFlight(clock)
        self._heads: SingleFlight[_Flight, ManifestHead | None] = SingleFlight(clock)

    def forget(self, registry: str, repository: str, tag: str) -> None:
        """The tag may mean something else from now on: the next request for it asks upstream.

        Questions that are under way tell those who wait for them what the tag meant before; nobody
        joins them any more, and nothing of them is remembered.
        """
        self._index.forget_tag(registry, repository, tag)

    def doubt(self, registry: str, repository: str, tag: str) -> None:
        """The tag may mean something else: upstream is asked, if it can be.

        Other processes that share the index know nothing of it.
        """
        key = (registry, repository, tag)
        self._doubted.pop(key, None)
        self._doubted[key] = self._clock.seconds()
        if len(self._doubted) > _DOUBTED_KEPT:
            del self._doubted[next(iter(self._doubted))]

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
        if known is not None and not self._is_fresh(key, known, rules):
            known = self._latest(key, known)
        if known is not None:
            if self._is_fresh(key, known, rules):
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

    def _is_fresh(self, key: _Key, known: Tag, rules: FreshnessRules) -> bool:
        if self._doubted and known.verified <= self._doubted.get(key[:3], -1.0):
            return False
        return 0 <= self._clock.seconds() - known.verified < rules.tag_ttl

    def _latest(self, key: _Key, known: Tag) -> Tag:
        """What a HEAD told since, if that manifest has been fetched by its digest meanwhile."""
        registry, repository, _, _ = key
        told = self._index.tag(*_told(key))
        if (
            told is None
            or told.verified <= known.verified
            or not self._manifests.holds(registry, repository, told.digest)
        ):
            return known
        return told

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
            if now is not None and now.digest == known.digest:
                return evolve(stored, outcome=Outcome.REVALIDATED)
            if head and now is not None:
                return _head_of(now)
            return await self._fetched(upstream, key, patience, head=False)
        except RegistryError as error:
            if error.status in _NOT_THERE:
                self._index.drop_tag(*key)
                self._index.drop_tag(*_told(key))
                raise
            if not usable:
                raise
            self._failed(upstream, error)
            return stored

    async def _fetched(
        self, upstream: Upstream, key: _Key, deadline: Deadline, *, head: bool
    ) -> ServedManifest:
        if head:
            now = await self._head(upstream, key, deadline)
            if now is not None:
                return _head_of(now)
        flying = (key, self._index.forgotten(*key[:3]))
        joined = flying in self._gets
        flight = self._gets.call(flying, lambda: self._ask_body(upstream, key))
        served = await deadline.bound(flight, upstream.name)
        if joined and served.outcome is Outcome.MISS:
            return evolve(served, outcome=Outcome.JOIN)
        return served

    async def _head(self, upstream: Upstream, key: _Key, deadline: Deadline) -> ManifestHead | None:
        """What the registry tells of the tag, None if it knows no HEAD."""
        flying = (key, self._index.forgotten(*key[:3]))
        flight = self._heads.call(flying, lambda: self._ask_head(upstream, key))
        return await deadline.bound(flight, upstream.name)

    async def _ask_head(self, upstream: Upstream, key: _Key) -> ManifestHead | None:
        _, repository, tag, variant = key
        asked = self._clock.seconds()
        deadline = Deadline.after(self._clock, upstream.headers_timeout)
        try:
            now = await upstream.head_manifest(repository, tag, accept_header(variant), deadline)
        except RegistryError as error:
            if error.status == _NO_SUCH_METHOD:
                return None
            if error.status in _NOT_THERE:
                self._answered(upstream)
            raise
        self._answered(upstream)
        if now.digest is not None:
            self._remember(key, now.digest, asked)
        return now

    def _remember(self, key: _Key, digest: Digest, asked: float) -> None:
        """Upstream, asked at that moment, says that the tag means *digest*.

        A manifest that is still to be fetched does not take the place of one that is stored: if
        upstream goes down now, that is what there is. The client comes back for the digest.
        """
        registry, repository, _, _ = key
        known = self._index.tag(*key)
        if (
            known is None
            or known.digest == digest
            or self._manifests.holds(registry, repository, digest)
            or not self._manifests.holds(registry, repository, known.digest)
        ):
            self._index.put_tag(*key, digest, asked=asked)
        else:
            self._index.put_tag(*_told(key), digest, asked=asked)

    async def _ask_body(self, upstream: Upstream, key: _Key) -> ServedManifest:
        registry, repository, tag, variant = key
        asked = self._clock.seconds()
        deadline = Deadline.after(self._clock, upstream.headers_timeout)
        body = await upstream.get_manifest(
            repository, tag, accept_header(variant), self._limit, deadline
        )
        served = await self._manifests.keep(registry, repository, body, None)
        self._answered(upstream)
        if served.outcome is Outcome.MISS and served.digest is not None:
            self._index.put_tag(*key, served.digest, asked=asked)
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


def _told(key: _Key) -> _Key:
    registry, repository, tag, variant = key
    return registry, repository, tag, variant | _TOLD


def _head_of(now: ManifestHead) -> ServedManifest:
    """The answer to a client's HEAD."""
    return ServedManifest(now.digest, now.media_type, now.size, None, Outcome.MISS)
