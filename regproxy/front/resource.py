"""The pipeline: route, grant, freshness, content, delivery."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from regproxy.cache.content import ContentFailed
from regproxy.deadline import Deadline
from regproxy.front.accesslog import AccessLog
from regproxy.front.arrival import HostLookup, arrive
from regproxy.front.blobs import BlobAnswers
from regproxy.front.client import Client
from regproxy.front.early import UNEXPECTED
from regproxy.front.forward import ForwardProxy
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.pages import Page, Pages
from regproxy.front.passing import PassingAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.stall import ClientGone
from regproxy.front.uploads import Uploads
from regproxy.model.errors import RegistryError, denied, shown, unsupported
from regproxy.model.route import (
    Blob,
    Manifest,
    ManifestByTag,
    Other,
    Route,
    Upload,
    VersionCheck,
    WayIn,
    parse_route,
)
from regproxy.upstream.client import Upstream
from regproxy.upstream.passing import Passage

_log = Logger()

_PULLS = (b"GET", b"HEAD")
_PUSHES = (b"POST", b"PUT", b"PATCH", b"DELETE")
_TOKEN_METHODS = (*_PULLS, b"POST", b"OPTIONS")


@frozen
class Rooms:
    """What the pipeline walks through.

    Attributes:
        lookup: Names and aliases of registries, and their hosts.
        upstreams: Each registry's upstream, by canonical name.
        manifests: Answers for manifests.
        blobs: Answers for blobs.
        relays: Answers for what is passed on.
        uploads: Answers for pushes.
        passing: Answers for what is passed on to a registry's host besides.
        others: Where that goes, by the registry's canonical name; registries that are not in here
            refuse it.
        forward: Answers for what is asked of other hosts.
        pages: The proxy's own.
        headers_timeout: Seconds until a client has the headers of its answer.
        via: This proxy in ``Via``; what comes with it has been here before.
    """

    lookup: HostLookup
    upstreams: Mapping[str, Upstream]
    manifests: ManifestAnswers
    blobs: BlobAnswers
    relays: RelayAnswers
    uploads: Uploads
    passing: PassingAnswers
    others: Mapping[str, Passage]
    forward: ForwardProxy
    pages: Pages
    headers_timeout: float
    via: str


class RegistryResource(Resource):
    """Answers every request that a listener receives."""

    isLeaf = True

    def __init__(self, rooms: Rooms, clock: IReactorTime, access_log: AccessLog) -> None:
        """Args:
        rooms: What requests are answered with.
        clock: Runs deadlines.
        access_log: Gets one line a request.
        """
        super().__init__()
        self._rooms = rooms
        self._clock = clock
        self._access_log = access_log

    def render(self, request: Request) -> int:
        """Starts the answer to *request*."""
        client = Client(request, self._clock)
        Deferred.fromCoroutine(self._answer(client)).addErrback(self._failed, client).addBoth(
            self._logged, client
        )
        return NOT_DONE_YET

    async def _answer(self, client: Client) -> None:
        rooms = self._rooms
        client.entry.reference = _path(client)
        self._check_loop(client)
        arrival = client.arrival = arrive(client.request, rooms.lookup)
        client.entry.reference = _path(client)
        deadline = Deadline.after(self._clock, rooms.headers_timeout)
        if arrival.foreign is not None:
            client.entry.way = WayIn.FORWARD.value
            client.entry.reference = str(arrival.foreign)
            await rooms.forward.answer(client, arrival.foreign, deadline)
            return
        if arrival.reached is None and self._own_page(client):
            return
        route = parse_route(arrival.target, rooms.lookup, arrival.reached)
        _describe(client, route)
        method = client.request.method
        if isinstance(route.asked, Other):
            await self._pass_on(client, route, deadline)
        elif method in _PUSHES or isinstance(route.asked, Upload):
            await rooms.uploads.answer(client, route, rooms.upstreams[route.registry], deadline)
        elif method in _PULLS:
            await self._serve(client, route, deadline)
        else:
            raise unsupported(f"found method {shown(method.decode('latin-1'))}")

    def _check_loop(self, client: Client) -> None:
        """Stops a request that this proxy has sent, and that came back by a name's new address.

        Raises:
            RegistryError: 508.
        """
        if any(self._rooms.via in value for value in client.headers("via")):
            raise RegistryError(
                508,
                "UNKNOWN",
                "this request has been here before: upstream's name leads back to this proxy; "
                "resolve, in the registry's table, pins upstream's addresses",
            )

    def _own_page(self, client: Client) -> bool:
        """Answers with one of the proxy's own pages, if that is what is asked for."""
        path = client.target.partition("?")[0]
        if path.startswith("/v2/") or client.request.method not in _PULLS:
            return False
        if path == "/healthz":
            media_type, body = "text/plain", b"ok\n"
        elif (page := self._page(path, client.arrival.origin)) is not None:
            media_type, body = page.media_type, page.body
        else:
            return False
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
        client.head(200, headers, None)
        client.finish(body)
        return True

    def _page(self, path: str, origin: str) -> Page | None:
        """A page of the proxy's own.

        Raises:
            RegistryError: 503 without a certificate authority, of which the log says more.
        """
        try:
            return self._rooms.pages.find(path, origin)
        except (OSError, ValueError) as error:
            _log.error("{path} cannot be served: {error}", path=path, error=error)
            raise RegistryError(
                503, "UNKNOWN", "the certificate authority cannot be used; the log says why"
            ) from error

    async def _pass_on(self, client: Client, route: Route, deadline: Deadline) -> None:
        """Passes on what is asked of a registry's host and is none of the API."""
        destination = self._rooms.others.get(route.registry)
        if destination is None:
            raise denied(
                f"only images come from {route.registry} through this proxy: "
                f'[registries."{route.registry}"] has other_requests = "deny"'
            )
        if client.target.startswith("/v2/") and client.request.method not in _TOKEN_METHODS:
            raise unsupported("a token endpoint takes GET and POST")
        await self._rooms.passing.answer(client, client.target, destination, client.body, deadline)

    async def _serve(self, client: Client, route: Route, deadline: Deadline) -> None:
        rooms = self._rooms
        asked = route.asked
        if isinstance(asked, VersionCheck):
            client.head(200, _VERSION_CHECK, None)
            client.finish(b"{}")
            return
        upstream = rooms.upstreams[route.registry]
        if client.authorization is not None:
            await rooms.relays.answer(client, route, upstream, deadline)
        elif isinstance(asked, Manifest):
            await rooms.manifests.by_digest(client, route, asked, upstream, deadline)
        elif isinstance(asked, ManifestByTag):
            await rooms.manifests.by_tag(client, route, asked, upstream, deadline)
        elif isinstance(asked, Blob):
            await rooms.blobs.answer(client, route, asked, upstream, deadline)
        else:
            await rooms.relays.answer(client, route, upstream, deadline)

    def _failed(self, failure: Failure, client: Client) -> None:
        error = failure.value
        if isinstance(error, RegistryError):
            client.refuse(error)
        elif isinstance(error, ContentFailed | ClientGone):
            if client.request.startedWriting or isinstance(error, ClientGone):
                client.cut(str(error))
            else:
                client.refuse(RegistryError(502, "UNKNOWN", str(error)))
        else:
            _log.failure("answering {path}", failure=failure, path=_path(client))
            client.refuse(UNEXPECTED)

    def _logged(self, result: object, client: Client) -> None:
        if isinstance(result, Failure):
            _log.failure("refusing {path}", failure=result, path=_path(client))
            client.cut(UNEXPECTED.message)
        self._access_log.add(client.described())


_VERSION_CHECK = [
    ("Content-Type", "application/json"),
    ("Content-Length", "2"),
    ("Docker-Distribution-Api-Version", "registry/2.0"),
]


def _path(client: Client) -> str:
    """The path that is asked for, as far as it is worth a place in a log."""
    return client.target.partition("?")[0][:300]


def _describe(client: Client, route: Route) -> None:
    entry = client.entry
    entry.way = route.way.value
    entry.registry = route.registry
    entry.repository = route.repository
    match route.asked:
        case ManifestByTag(tag):
            entry.reference = tag
        case Manifest(digest) | Blob(digest):
            entry.reference = str(digest)
        case _:
            pass
