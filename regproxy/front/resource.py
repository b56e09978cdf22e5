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
from regproxy.front.blobs import BlobAnswers
from regproxy.front.client import Client
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.stall import ClientGone
from regproxy.model.errors import RegistryError, unsupported
from regproxy.model.route import (
    Blob,
    Manifest,
    ManifestByTag,
    RegistryLookup,
    Route,
    Upload,
    VersionCheck,
    parse_route,
)
from regproxy.upstream.client import Upstream

_log = Logger()

_PULLS_ONLY = unsupported("pushing through this proxy is not offered: it only serves pulls")
_UNEXPECTED = RegistryError(500, "UNKNOWN", "regproxy has a bug; its log has the traceback")


@frozen
class Rooms:
    """What the pipeline walks through.

    Attributes:
        lookup: Names and aliases of registries.
        upstreams: Each registry's upstream, by canonical name.
        manifests: Answers for manifests.
        blobs: Answers for blobs.
        relays: Answers for what is passed on.
        headers_timeout: Seconds until a client has the headers of its answer.
    """

    lookup: RegistryLookup
    upstreams: Mapping[str, Upstream]
    manifests: ManifestAnswers
    blobs: BlobAnswers
    relays: RelayAnswers
    headers_timeout: float


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
        request = client.request
        if request.path == b"/healthz":
            client.head(200, [("Content-Type", "text/plain"), ("Content-Length", "3")], None)
            client.finish(b"ok\n")
            return
        client.entry.reference = client.target.partition("?")[0][:300]
        pulls = request.method in (b"GET", b"HEAD")
        try:
            route = parse_route(client.target, self._rooms.lookup)
        except RegistryError:
            if pulls:
                raise
            raise _PULLS_ONLY from None
        _describe(client, route)
        if not pulls or isinstance(route.asked, Upload):
            raise _PULLS_ONLY
        await self._serve(client, route)

    async def _serve(self, client: Client, route: Route) -> None:
        rooms = self._rooms
        asked = route.asked
        if isinstance(asked, VersionCheck):
            client.head(200, _VERSION_CHECK, None)
            client.finish(b"{}")
            return
        upstream = rooms.upstreams[route.registry]
        deadline = Deadline.after(self._clock, rooms.headers_timeout)
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
            path = client.target.partition("?")[0]
            _log.failure("answering {path}", failure=failure, path=path[:300])
            client.refuse(_UNEXPECTED)

    def _logged(self, result: object, client: Client) -> None:
        if isinstance(result, Failure):
            path = client.target.partition("?")[0]
            _log.failure("refusing {path}", failure=result, path=path[:300])
            client.cut(_UNEXPECTED.message)
        self._access_log.add(client.described())


_VERSION_CHECK = [
    ("Content-Type", "application/json"),
    ("Content-Length", "2"),
    ("Docker-Distribution-Api-Version", "registry/2.0"),
]


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
            entry.reference = entry.reference.partition("?")[0]
