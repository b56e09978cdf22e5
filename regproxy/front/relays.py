"""Requests that are passed on: lists, referrers, and whatever brings its own credential."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from regproxy.cache.content import ContentFailed
from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.front.naming import renames_body, rewrite_body, rewrite_link
from regproxy.front.relaying import Check, Relay
from regproxy.model.digest import Digest
from regproxy.model.errors import blob_unknown, manifest_unknown, upstream_failed
from regproxy.model.outcome import Outcome
from regproxy.model.ranges import parse_content_range
from regproxy.model.route import Blob, Catalog, Manifest, ManifestByTag, Referrers, Route, TagList
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer
from regproxy.upstream.refusals import refusal
from regproxy.upstream.transfer import TransferCut

_PASSED_UP = ("Accept", "Range", "If-Range", "If-None-Match", "If-Modified-Since")
_PASSED_DOWN = (
    "Accept-Ranges",
    "Content-Range",
    "Content-Type",
    "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
    "ETag",
    "Last-Modified",
    "OCI-Filters-Applied",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "Docker-RateLimit-Source",
    "Vary",
)
_SUCCESSES = (200, 206, 304)
_LIST_LIMIT = 16 * 1024 * 1024
"""Bytes of a list whose names are rewritten, for which it must be read whole."""


@frozen
class RelayAnswers:
    """Answers with what upstream says, and keeps nothing of it.

    Attributes:
        clock: Runs deadlines.
        silence: Seconds without a byte after which upstream counts as gone.
        stall: Seconds in which a client must take something.
    """

    clock: IReactorTime
    silence: float
    stall: float

    async def answer(
        self, client: Client, route: Route, upstream: Upstream, deadline: Deadline
    ) -> None:
        """Passes a request on and its answer back.

        Raises:
            RegistryError: What the registry refused, or why it could not be asked.
            ContentFailed: The answer had begun and cannot be completed.
            ClientGone: Nobody is there any more.
        """
        passed_up = {
            name: ", ".join(client.headers(name)) for name in _PASSED_UP if client.headers(name)
        }
        answer = await upstream.relay(
            "HEAD" if client.is_head else "GET",
            upstream_path(route),
            passed_up,
            route.repository,
            client.authorization,
            deadline,
        )
        if answer.status not in _SUCCESSES:
            unknown = blob_unknown if isinstance(route.asked, Blob) else manifest_unknown
            raise await refusal(answer, upstream.name, unknown, deadline)
        client.check_here(answer)
        headers = [(name, value) for name in _PASSED_DOWN for value in answer.headers(name)]
        headers += [("Link", rewrite_link(value, route)) for value in answer.headers("Link")]
        if not isinstance(route.asked, Blob | Manifest | ManifestByTag):
            # What has a digest is identified by the bytes as they are, label or not.
            headers += [("Content-Encoding", value) for value in answer.headers("Content-Encoding")]
        renames = renames_body(route) and not answer.headers("Content-Encoding")
        if renames and not client.is_head and answer.status == 200:
            body = rewrite_body(await answer.read(_LIST_LIMIT, deadline), route)
            client.head(
                answer.status, [*headers, ("Content-Length", str(len(body)))], Outcome.RELAY
            )
            client.finish(body)
            return
        if client.is_head and not renames and (length := answer.header("Content-Length")):
            # The length of an answer to HEAD is a header, not the length of what follows.
            headers.append(("Content-Length", length))
        await self._stream(client, route, answer, headers)

    async def _stream(
        self, client: Client, route: Route, answer: Answer, headers: list[tuple[str, str]]
    ) -> None:
        check = _check(route, answer)
        if (
            not client.is_head
            and answer.status == 200
            and answer.length == 0
            and check is not None
            and not check.digest.is_of_nothing
        ):
            # The head alone would be a whole answer: there is no last byte to hold back.
            answer.discard()
            raise upstream_failed(f"{route.registry}: sent no bytes for {check.digest}")
        if not client.is_head and answer.length is not None and answer.status != 304:
            headers.append(("Content-Length", str(answer.length)))
        client.head(answer.status, headers, Outcome.RELAY)
        if client.is_head or answer.status == 304:
            answer.discard()
            client.finish()
            return
        client.begin()
        relay = Relay(
            answer,
            client.request,
            self.clock,
            silence=self.silence,
            stall=self.stall,
            check=check,
        )
        try:
            await relay.deliver()
        except TransferCut as error:
            raise ContentFailed(f"{route.registry}: {error}") from error
        finally:
            client.entry.sent += relay.sent
        client.finish()


def upstream_path(route: Route) -> str:
    """The path and query under which upstream knows what a route asks for."""
    repository = f"/v2/{route.repository}"
    match route.asked:
        case Catalog():
            path = "/v2/_catalog"
        case TagList():
            path = f"{repository}/tags/list"
        case Referrers(digest):
            path = f"{repository}/referrers/{digest}"
        case ManifestByTag(tag):
            return f"{repository}/manifests/{tag}"
        case Manifest(digest):
            return f"{repository}/manifests/{digest}"
        case Blob(digest):
            return f"{repository}/blobs/{digest}"
        case _:
            path = "/v2/"
    return f"{path}?{route.query}" if route.query else path


def _check(route: Route, answer: Answer) -> Check | None:
    """What the body must hash to, where all of it is there."""
    digest: Digest
    match route.asked:
        case Manifest(digest) | Blob(digest):
            size = answer.length
        case _:
            return None
    if answer.status == 206:
        try:
            start, stop, total = parse_content_range(answer.header("Content-Range") or "")
        except ValueError:
            return None
        if start != 0 or stop != total:
            return None
    return Check(digest, digest.hasher(), size)
