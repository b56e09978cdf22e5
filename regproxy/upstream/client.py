"""One registry as the proxy asks it: redirects followed, anonymous tokens fetched, errors named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.interfaces import IReactorTime

from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import (
    RegistryError,
    blob_unknown,
    manifest_unknown,
    upstream_failed,
)
from regproxy.model.ranges import parse_content_range
from regproxy.upstream.circuit import Circuit
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.limiter import Limiter
from regproxy.upstream.passing import Passage
from regproxy.upstream.redirects import MAX_HOPS, REDIRECTS, redirect_target, same_origin
from regproxy.upstream.refusals import refusal

_CONTROL_PLACES = 64
"""Control requests (HEAD, manifests, relays) under way at once, apart from fills."""
_SIZE_DIGITS = 19


class Authorizer(Protocol):
    """Knows what a registry wants to see in ``Authorization``."""

    def authorization(self, scope: str) -> str | None:
        """The header value known to serve *scope*, if any."""

    async def answer(
        self, challenges: Sequence[str], scope: str, refused: str | None, deadline: Deadline
    ) -> str | None:
        """A header value that answers a 401, or None when there is none."""


@frozen
class ManifestHead:
    """What a registry says of a manifest without sending it.

    Attributes:
        digest: None when the registry does not say.
        media_type: The ``Content-Type``.
        size: Bytes, None when the registry does not say.
    """

    digest: Digest | None
    media_type: str
    size: int | None


@frozen
class ManifestBody:
    """A manifest as a registry sent it; nothing of it is verified yet.

    Attributes:
        data: The bytes.
        media_type: The ``Content-Type``.
        digest: ``Docker-Content-Digest``, None when the registry does not say.
    """

    data: bytes
    media_type: str
    digest: Digest | None


class Upstream:
    """A registry's upstream.

    Attributes:
        name: The registry's canonical name.
        circuit: Whether it is worth asking.
        transfers: Bounds transfers of blobs.
        headers_timeout: Seconds from a request to its answer's headers.
        clock: Runs limits and deadlines.
        passage: For requests that are passed on as they are.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        exchange: Exchange,
        authorizer: Authorizer,
        clock: IReactorTime,
        *,
        connections: int,
        headers_timeout: float,
    ) -> None:
        """Args:
        name: The registry's canonical name.
        base_url: Scheme, host and port, no path.
        exchange: Sends single requests.
        authorizer: Answers the registry's challenges to anonymous requests.
        clock: Runs limits and deadlines.
        connections: Transfers of blobs at once.
        headers_timeout: Seconds from a request to its answer's headers.
        """
        self.name = name
        self.circuit = Circuit(clock)
        self.transfers = Limiter(clock, connections)
        self.headers_timeout = headers_timeout
        self.clock = clock
        self._base_url = base_url
        self._exchange = exchange
        self._authorizer = authorizer
        self._control = Limiter(clock, _CONTROL_PLACES)
        self.passage = Passage(name, base_url, exchange, clock)

    async def head_manifest(
        self, repository: str, reference: str, accept: str, deadline: Deadline
    ) -> ManifestHead:
        """What *reference* means now (OCI distribution spec, "Checking if content exists").

        Raises:
            RegistryError: What the registry refused, or why it could not be asked.
        """
        path = f"/v2/{repository}/manifests/{reference}"
        answer = await self._control_request("HEAD", path, {"Accept": accept}, repository, deadline)
        await self._expect(answer, (200,), manifest_unknown, deadline)
        answer.discard()
        media_type = answer.header("Content-Type") or ""
        return ManifestHead(_digest_of(answer), media_type, _size_of(answer))

    async def get_manifest(
        self, repository: str, reference: str, accept: str, limit: int, deadline: Deadline
    ) -> ManifestBody:
        """The manifest under *reference*, at most *limit* bytes.

        Raises:
            RegistryError: What the registry refused, or why it could not be asked.
        """
        path = f"/v2/{repository}/manifests/{reference}"
        answer = await self._control_request("GET", path, {"Accept": accept}, repository, deadline)
        await self._expect(answer, (200,), manifest_unknown, deadline)
        data = await answer.read(limit, deadline)
        return ManifestBody(data, answer.header("Content-Type") or "", _digest_of(answer))

    async def head_blob(self, repository: str, digest: Digest, deadline: Deadline) -> int | None:
        """The size of a blob in bytes if the registry tells it; that it answers proves the holding.

        Raises:
            RegistryError: What the registry refused, or why it could not be asked.
        """
        path = f"/v2/{repository}/blobs/{digest}"
        answer = await self._control_request("HEAD", path, {}, repository, deadline)
        await self._expect(answer, (200,), blob_unknown, deadline)
        answer.discard()
        return _size_of(answer)

    async def get_blob(
        self,
        repository: str,
        digest: Digest,
        start: int,
        deadline: Deadline,
        *,
        stop: int | None = None,
        skip: bool = False,
    ) -> Answer:
        """A blob's bytes from *start* on; the answer's body waits to be delivered.

        Args:
            repository: Where to ask.
            digest: Which blob.
            start: First byte wanted; 0 without *stop* asks for the whole blob.
            deadline: When the answer's headers must be there.
            stop: Behind the last byte wanted; None for the blob's end.
            skip: Whether the whole blob is accepted for its rest; `Answer.skip` then leaves out
                what comes before *start*.

        Raises:
            RegistryError: What the registry refused, why it could not be asked, or 502 for an
                answer that is not the part that was asked for.
        """
        ranged = start > 0 or stop is not None
        last = "" if stop is None else stop - 1
        headers = {"Range": f"bytes={start}-{last}"} if ranged else {}
        path = f"/v2/{repository}/blobs/{digest}"
        answer = await self.request("GET", path, headers, repository, deadline)
        if ranged and answer.status == 200:
            # RFC 9110 section 14.2: a server may ignore Range.
            is_short = answer.length is not None and answer.length < start
            if not skip or stop is not None or is_short:
                answer.discard()
                raise upstream_failed(f"{answer.host}: sent the whole for a range")
            return evolve(answer, skip=start)
        await self._expect(answer, (206,) if ranged else (200,), blob_unknown, deadline)
        if ranged and not _is_range(answer, start, stop):
            answer.discard()
            raise upstream_failed(f"{answer.host}: sent another range than was asked for")
        return answer

    async def relay(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        repository: str,
        authorization: str | None,
        deadline: Deadline,
    ) -> Answer:
        """Whatever the registry answers to a request that is passed on.

        Args:
            method: GET or HEAD.
            path: Path and query under the registry's origin.
            headers: Passed on as they are.
            repository: For the token's scope, "" for the catalog.
            authorization: The client's own ``Authorization``; None asks anonymously.
            deadline: When the answer's headers must be there.

        Raises:
            RegistryError: Why the registry could not be asked; its refusals are answers.
        """
        if authorization is None:
            return await self._control_request(method, path, headers, repository, deadline)
        await self._queue(deadline)
        try:
            url = self._base_url + path
            return await self._follow(method, url, headers, authorization, deadline)
        finally:
            self._control.release()

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        repository: str,
        deadline: Deadline,
    ) -> Answer:
        """The registry's answer to an anonymous request, a token fetched where one is asked for."""
        scope = f"repository:{repository}:pull" if repository else "registry:catalog:*"
        url = self._base_url + path
        authorization = self._authorizer.authorization(scope)
        answer = await self._follow(method, url, headers, authorization, deadline)
        if answer.status != 401 or answer.elsewhere:
            return answer
        challenges = answer.headers("WWW-Authenticate")
        try:
            fresh = await self._authorizer.answer(challenges, scope, authorization, deadline)
        except BaseException:
            answer.discard()
            raise
        if fresh is None:
            return answer
        answer.discard()
        return await self._follow(method, url, headers, fresh, deadline)

    async def _control_request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        repository: str,
        deadline: Deadline,
    ) -> Answer:
        await self._queue(deadline)
        try:
            return await self.request(method, path, headers, repository, deadline)
        finally:
            self._control.release()

    async def _queue(self, deadline: Deadline) -> None:
        waiting = self._control.acquire(deadline.remaining + 1.0)
        await deadline.bound(waiting, f"{self.name}: queue")

    async def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        deadline: Deadline,
    ) -> Answer:
        """Sends a request and follows its redirects; a credential stays with its origin.

        Behind another origin it is never sent again: the path back was chosen over there.
        """
        here = url
        elsewhere = False
        for _ in range(MAX_HOPS + 1):
            sent = dict(headers)
            elsewhere = elsewhere or not same_origin(here, url)
            if authorization is not None and not elsewhere:
                sent["Authorization"] = authorization
            answer = await self._exchange.send(method, here, sent, deadline)
            location = answer.header("Location")
            if answer.status not in REDIRECTS or location is None:
                return evolve(answer, elsewhere=elsewhere)
            answer.discard()
            here = redirect_target(here, location)
        raise upstream_failed(f"{self.name}: more than {MAX_HOPS} redirects")

    async def _expect(
        self,
        answer: Answer,
        statuses: tuple[int, ...],
        unknown: Callable[[str], RegistryError],
        deadline: Deadline,
    ) -> None:
        if answer.status not in statuses:
            raise await refusal(answer, self.name, unknown, deadline)


def _size_of(answer: Answer) -> int | None:
    """What Content-Length tells in an answer to HEAD, which has no body to measure."""
    length = answer.header("Content-Length") or ""
    return int(length) if length.isdecimal() and len(length) <= _SIZE_DIGITS else None


def _is_range(answer: Answer, start: int, stop: int | None) -> bool:
    """Whether a 206 has the bytes from *start* to *stop*, or to the blob's end for None."""
    try:
        first, behind, total = parse_content_range(answer.header("Content-Range") or "")
    except ValueError:
        return False
    if first != start or behind != (total if stop is None else stop):
        return False
    return answer.length is None or answer.length == behind - start


def _digest_of(answer: Answer) -> Digest | None:
    text = answer.header("Docker-Content-Digest")
    if text is None:
        return None
    try:
        return Digest.parse(text)
    except ValueError:
        return None
