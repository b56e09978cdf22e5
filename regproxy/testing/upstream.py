"""Upstreams in memory: registries, token realms and storage behind one agent, on a fake clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from regproxy.model.digest import Digest
from regproxy.testing.exchange import BEFORE_HEADERS, Fault, RecordedRequest, ScriptedExchange
from regproxy.testing.pushing import LOCATION, ScriptedUploads
from regproxy.testing.registry import Page, ScriptedRegistry, ScriptedStorage, TokenRealm
from regproxy.testing.replies import Reply, Responder

_HOUR = 3600.0


@define
class _Script:
    """Which requests a fault is for, and how many of them are left (None: no end)."""

    fault: Fault
    method: str | None
    path_suffix: str
    left: int | None


@implementer(IAgent)
class ScriptedUpstream:
    """Every upstream there is, as an agent that a treq client can use.

    The client's half is Twisted's own `Agent` on a connection in memory, so that responses, their
    transports and their failures are the real ones. Each request has a connection of its own.

    Nothing happens inside a call: ``clock.advance(0)`` runs all that is due. With a rate or a
    latency, advance in steps (``clock.pump([1] * 60)``): after one long step all that was due in
    between happens at the late moment.

    An origin is a scheme and a host with an optional port: ``https://registry-1.docker.io``. A
    request for an origin that nothing was added to fails with `DNSLookupError`.

    Attributes:
        requests: All requests in the order in which they were made.
        most_connections: The most connections that were open at the same time.
    """

    def __init__(self, clock: Clock) -> None:
        """Args:
        clock: Runs everything.
        """
        self._clock = clock
        self._registries: dict[str, ScriptedRegistry] = {}
        # Other origins than registries, which these send their clients to.
        self._storages: dict[str, Responder] = {}
        # By URL without query; these come before whatever is at the origin.
        self._pages: dict[str, Responder] = {}
        self._scripts: list[_Script] = []
        self._holds: dict[str, int] = {}
        self._exchanges: list[ScriptedExchange] = []
        self.requests: list[RecordedRequest] = []
        self.most_connections = 0

    # What the upstreams hold.

    def add_blob(self, origin: str, repository: str, data: bytes) -> Digest:
        """Puts a blob into a repository; returns its digest."""
        digest = Digest.of(data)
        self._registry(origin).repository(repository).blobs[str(digest)] = data
        return digest

    def add_manifest(
        self, origin: str, repository: str, data: bytes, media_type: str, tag: str | None = None
    ) -> Digest:
        """Puts a manifest or index into a repository; returns its digest.

        Args:
            origin: Where the registry is.
            repository: Its canonical name.
            data: The manifest.
            media_type: Its Content-Type.
            tag: Points to it from now on, instead of what it pointed to.
        """
        digest = Digest.of(data)
        held = self._registry(origin).repository(repository)
        held.manifests[str(digest)] = (data, media_type)
        if tag is not None:
            held.tags[tag] = [str(digest)]
        return digest

    def add_variant(self, origin: str, repository: str, tag: str, digest: Digest) -> None:
        """Lets *tag* mean *digest* for those who do not accept what it meant before."""
        self._registry(origin).repository(repository).tags[tag].append(str(digest))

    def remove_tag(self, origin: str, repository: str, tag: str) -> None:
        """Forgets a tag."""
        del self._registry(origin).repository(repository).tags[tag]

    def remove_digest(self, origin: str, repository: str, digest: Digest) -> None:
        """Forgets a blob or manifest."""
        held = self._registry(origin).repository(repository)
        held.blobs.pop(str(digest), None)
        held.manifests.pop(str(digest), None)

    def add_page(
        self,
        url: str,
        body: bytes,
        *,
        status: int = 200,
        headers: Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        """Answers every request for *url*, whatever its query and method, with this."""
        self._pages[url] = Page(Reply(status, headers or {}, body))

    def require_token(
        self,
        origin: str,
        realm: str | None = None,
        service: str | None = None,
        lifetime: float = _HOUR,
    ) -> TokenRealm:
        """Answers 401 with a Bearer challenge until a token comes that *realm* gave.

        Args:
            origin: The registry.
            realm: The URL of the token endpoint, by default ``https://auth.HOST/token``.
            service: The challenge's service, by default the registry's host.
            lifetime: Seconds until a token expires.

        Returns:
            The realm, with the tokens it has issued; forgetting one there revokes it.
        """
        host = urlsplit(origin).netloc
        url = realm or f"https://auth.{host}/token"
        issuer = TokenRealm(self._clock, url, service or host, lifetime)
        self._pages[url.partition("?")[0]] = issuer
        self._registry(origin).realm = issuer
        return issuer

    def redirect_blobs(
        self, origin: str, to_origin: str, status: int = 307, lifetime: float = _HOUR
    ) -> None:
        """Answers blobs with redirects to signed URLs ``TO_ORIGIN/data/DIGEST?signature=…``.

        Args:
            origin: The registry.
            to_origin: The storage, which answers 400 to a request with an Authorization.
            status: The redirect's status.
            lifetime: Seconds until a signed URL expires; then it is answered with 403.
        """
        storage = ScriptedStorage(self._clock, to_origin, lifetime)
        self._storages[to_origin] = storage
        registry = self._registry(origin)
        registry.storage, registry.redirect_status = storage, status

    def accept_pushes(self, origin: str, location: str = LOCATION) -> ScriptedUploads:
        """Lets a registry take pushes.

        Args:
            origin: The registry.
            location: Where an upload goes on (see `ScriptedUploads`), at any origin.

        Returns:
            The uploads that are under way.
        """
        uploads = self._registry(origin).uploads = ScriptedUploads(location)
        parts = urlsplit(location)
        if parts.netloc and not location.startswith(f"{origin}/"):
            self._storages[f"{parts.scheme}://{parts.netloc}"] = uploads
        return uploads

    # What goes wrong.

    def script(
        self,
        fault: Fault,
        path_suffix: str = "",
        *,
        method: str | None = None,
        times: int | None = 1,
    ) -> None:
        """Answers the next requests that match with a fault.

        A request gets the oldest script that matches it, and only that one.

        Args:
            fault: What goes wrong.
            path_suffix: The end of the URL's path; any path ends with the empty one.
            method: Such as ``"HEAD"``; None for any.
            times: For how many requests; None for all to come.
        """
        self._scripts.append(_Script(fault, method, path_suffix, times))

    def heal(self) -> None:
        """Forgets all scripts; answers that have begun keep their faults."""
        self._scripts.clear()

    def hold(self, path_suffix: str, at: int = BEFORE_HEADERS) -> None:
        """Lets answers to URLs whose path ends so wait, until `release`.

        Args:
            path_suffix: The end of the URL's path.
            at: The body bytes that are sent before the wait; `BEFORE_HEADERS` for nothing at all.
        """
        self._holds[path_suffix] = at

    def release(self, path_suffix: str) -> None:
        """Ends a `hold`, for the answers that wait and those to come.

        Raises:
            KeyError: There is no hold with exactly this suffix.
        """
        del self._holds[path_suffix]
        for exchange in self._exchanges:
            exchange.released()

    def read_on(self) -> None:
        """Reads on where requests are read in part (`Fault.read`)."""
        for exchange in self._exchanges:
            exchange.read_on()

    # What was asked.

    def count(self, method: str, path_suffix: str = "") -> int:
        """How many requests with that method were made for URLs whose path ends so."""
        return len(self.find(method, path_suffix))

    def find(self, method: str, path_suffix: str = "") -> list[RecordedRequest]:
        """The requests with that method for URLs whose path ends so, oldest first."""
        return [
            request
            for request in self.requests
            if request.method == method and request.path.endswith(path_suffix)
        ]

    @property
    def connections(self) -> int:
        """How many connections are open or being made: 0 when no answer was left lying."""
        self._exchanges = [exchange for exchange in self._exchanges if not exchange.over]
        return len(self._exchanges)

    # IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Makes a request (see `IAgent.request`)."""
        request = RecordedRequest(
            method.decode("ascii"),
            uri.decode("ascii"),
            Headers() if headers is None else headers.copy(),
            self._clock.seconds(),
        )
        self.requests.append(request)
        fault = self._fault_for(request)
        if fault.connect_failure is None and self._responder(request.url) is None:
            host = urlsplit(request.url).hostname
            return fail(DNSLookupError(f"no results for hostname lookup: {host}"))
        exchange = ScriptedExchange(self._clock, request, fault, self._answer, self._hold_for)
        self._exchanges.append(exchange)
        self.most_connections = max(self.most_connections, self.connections)
        agent: IAgent = Agent.usingEndpointFactory(self._clock, exchange)
        return agent.request(method, uri, headers, bodyProducer)

    def _registry(self, origin: str) -> ScriptedRegistry:
        return self._registries.setdefault(origin, ScriptedRegistry())

    def _responder(self, url: str) -> Responder | None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        places: list[Mapping[str, Responder]] = [self._registries, self._storages]
        found = self._pages.get(origin + parts.path)
        return found or next((place[origin] for place in places if origin in place), None)

    def _answer(self, request: RecordedRequest, headers: Headers) -> Reply:
        responder = self._responder(request.url)
        if responder is None:
            return Reply(404)
        return responder.respond(request.method, request.url, headers, request.body)

    def _fault_for(self, request: RecordedRequest) -> Fault:
        for script in self._scripts:
            if script.method in {None, request.method} and request.path.endswith(
                script.path_suffix
            ):
                if script.left is not None:
                    script.left -= 1
                    if script.left == 0:
                        self._scripts.remove(script)
                return script.fault
        return Fault()

    def _hold_for(self, path: str) -> int | None:
        return next((at for suffix, at in self._holds.items() if path.endswith(suffix)), None)
