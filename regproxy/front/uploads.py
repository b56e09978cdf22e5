"""Pushes: every request under ``/v2/`` that changes something, passed on to its registry.

A registry answers the steps of an upload with the URL of the next one, wherever that is (OCI
distribution spec 1.1, "Push"). Its client gets a URL at the proxy instead, which stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from attrs import frozen

from regproxy.cache.freshness import Freshness
from regproxy.cache.index import Index
from regproxy.deadline import Deadline
from regproxy.front.arrival import HostLookup
from regproxy.front.client import Client
from regproxy.front.passing import PassingAnswers
from regproxy.front.relays import upstream_path
from regproxy.front.sealing import BrokenSeal, Seals
from regproxy.model.errors import RegistryError, unsupported, upstream_failed
from regproxy.model.hosts import parse_host
from regproxy.model.names import parse_tag
from regproxy.model.route import (
    Blob,
    Manifest,
    ManifestByTag,
    Route,
    Upload,
    parse_route,
)
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer
from regproxy.upstream.redirects import permitted_url

PURPOSE = "upload location"
"""What the seals are made for."""

_COMMIT_SECONDS = 900.0
"""How long a registry may take for what was sent: it may have to copy gigabytes within its storage.

It is what registries' own recipes for proxies in front of them allow.
"""

_LONGEST = 6 * 1024
"""Characters of a URL that is sealed; sealed it is a third longer, and has to come back."""

_CREATED = 201
_DONE = range(200, 300)
_STATE = "state"
_SESSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REFERENCE = re.compile(r"(?P<kind>blobs|manifests)/(?P<reference>[A-Za-z0-9_.:+-]+)")


@frozen
class Uploads:
    """Answers pushes.

    Attributes:
        passing: Passes them on.
        freshness: Forgets what was pushed over.
        index: Forgets what was deleted.
        lookup: The configured registries.
        offered: The canonical names of those that take pushes through the proxy.
        seals: Seal the URLs of uploads.
    """

    passing: PassingAnswers
    freshness: Freshness
    index: Index
    lookup: HostLookup
    offered: Collection[str]
    seals: Seals

    async def answer(
        self, client: Client, route: Route, upstream: Upstream, deadline: Deadline
    ) -> None:
        """Passes a step of a push on to its registry, and the answer back.

        Args:
            client: Whose credential is passed on as it is.
            route: Of a request that is no GET or HEAD, or that asks for an upload.
            upstream: The registry.
            deadline: When a question must be answered; what changes something has longer.

        Raises:
            RegistryError: 405 for a registry that takes no pushes here, or a method that does not
                go with what is asked; 404 for an upload that is unknown here; 502 or 504 when the
                registry cannot be asked.
            ContentFailed: The answer had begun and cannot be completed.
            ClientGone: Nobody is there any more.
        """
        if route.registry not in self.offered:
            raise unsupported(
                f"pushing to {route.registry} through this proxy is not offered; "
                f'push = "relay" under [registries."{route.registry}"] would offer it'
            )
        method = client.request.method.decode("latin-1")
        match route.asked:
            case Upload():
                target = self._upload(client, route)
            case ManifestByTag() | Manifest() if method in ("PUT", "DELETE"):
                target = _with_query(upstream_path(route), route.query)
            case Blob() if method == "DELETE":
                target = _with_query(upstream_path(route), route.query)
            case _:
                raise unsupported(f"{method[:32]} is not for this")
        patience = None
        if _commits(route, method):
            patience = _COMMIT_SECONDS
            if client.body is None:
                deadline = Deadline.after(self.passing.clock, patience)
        is_heard = False

        def heard(status: int) -> None:
            nonlocal is_heard
            is_heard = True
            if status in _DONE:
                self._forget(route, method)

        try:
            await self.passing.answer(
                client,
                target,
                upstream.passage,
                client.body,
                deadline,
                location=lambda answer, value: self._location(
                    client, route, upstream, answer, value
                ),
                heard=heard,
                patience=patience,
            )
        finally:
            if not is_heard:
                for tag in _tags(route):
                    self.freshness.doubt(route.registry, route.repository, tag)

    def _forget(self, route: Route, method: str) -> None:
        """Makes sure that nothing is served that the registry has no more."""
        registry, repository = route.registry, route.repository
        for tag in _tags(route):
            self.freshness.forget(registry, repository, tag)
        if method == "DELETE" and isinstance(route.asked, Manifest | Blob):
            self.index.drop_holding(registry, repository, route.asked.digest)

    # Where a step of an upload goes.

    def _upload(self, client: Client, route: Route) -> str:
        """The target of a step of an upload: its first, or what a seal stands for."""
        path = client.target.partition("?")[0]
        if path.rstrip("/").endswith("/uploads"):
            return _with_query(
                f"/v2/{route.repository}/blobs/uploads/", self._first_query(client, route)
            )
        state = ""
        others = []
        for parameter in filter(None, route.query.split("&")):
            name, _, value = parameter.partition("=")
            if name == _STATE and not state:
                state = unquote(value)
            else:
                others.append(parameter)
        try:
            url = self.seals.open(state, _subject(route))
        except BrokenSeal as error:
            raise RegistryError(
                404, "BLOB_UPLOAD_UNKNOWN", f"no upload is known here by this URL: {error}"
            ) from None
        return _with_query(url, "&".join(others))

    def _first_query(self, client: Client, route: Route) -> str:
        """The query of an upload's first step, its ``from`` as the registry knows it.

        A blob of another registry cannot be mounted: then the client is to upload it.
        """
        parameters = list(filter(None, route.query.split("&")))
        sources = [value for name, value in parse_qsl(route.query) if name == "from"]
        if not sources:
            return route.query
        source = self._source(client, route, sources[0])
        kept = [p for p in parameters if unquote(p.partition("=")[0]) not in ("mount", "from")]
        mounts = [p for p in parameters if unquote(p.partition("=")[0]) == "mount"]
        if source is None or not mounts:
            return "&".join(kept)
        return "&".join([mounts[0], f"from={quote(source, safe='')}", *kept])

    def _source(self, client: Client, route: Route, spelt: str) -> str | None:
        """The repository that a client names on its way in, None if it is not of the registry."""
        target = _with_query(f"/v2/{quote(spelt)}/tags/list", "&".join(_namespaces(client)))
        try:
            named = parse_route(target, self.lookup, client.arrival.reached)
        except RegistryError:
            return None
        return named.repository if named.registry == route.registry else None

    # Where the client is told to go.

    def _location(
        self, client: Client, route: Route, upstream: Upstream, answer: Answer, value: str
    ) -> str:
        """The proxy's own URL for one that the registry names.

        Raises:
            RegistryError: 502, it is none that the proxy would ask.
        """
        try:
            value = self._without_own_host(route, upstream, answer, value)
            url = permitted_url(answer.url, _with_scheme_of(answer.url, value))
        except ValueError as error:
            raise upstream_failed(f"{route.registry} points to {error}: refused") from error
        name = "/".join(filter(None, (route.prefix, route.client_repository)))
        ours = f"{client.arrival.origin}/v2/{quote(name, safe='/:')}/"
        namespaces = "&".join(_namespaces(client))
        # What is done is there to be pulled, whatever name the registry has for itself.
        is_known = upstream.passage.owns(url) or answer.status == _CREATED
        plain = _plain_path(url, route.repository) if is_known else None
        if plain is not None:
            return _with_query(ours + plain, namespaces)
        if len(url) > _LONGEST:
            raise upstream_failed(f"{route.registry} points to a URL of {len(url)} characters")
        session = answer.header("Docker-Upload-UUID") or ""
        session = session if _SESSION.fullmatch(session) else "session"
        state = f"{_STATE}={self.seals.seal(url, _subject(route))}"
        return _with_query(
            f"{ours}blobs/uploads/{session}", "&".join(filter(None, (namespaces, state)))
        )

    def _without_own_host(
        self, route: Route, upstream: Upstream, answer: Answer, value: str
    ) -> str:
        """*value*, relative if its host is one of the registry's names: upstream is who has that.

        Seen from the proxy the name may lead nowhere, or back to the proxy.
        """
        try:
            parts = urlsplit(value)
            host = parse_host(parts.netloc)
        except ValueError:
            return value
        if parts.scheme not in ("http", "https") or not upstream.passage.owns(answer.url):
            return value
        if self.lookup.hosted(host) != route.registry:
            return value
        return _with_query(parts.path, parts.query) if parts.path.startswith("/v2/") else value


def _commits(route: Route, method: str) -> bool:
    """Whether a request may have the registry move around all that was uploaded."""
    names = {name for name, _ in parse_qsl(route.query)}
    return method in ("PUT", "PATCH") or (method == "POST" and bool(names & {"digest", "mount"}))


def _tags(route: Route) -> list[str]:
    """The tags that a push to this route moves."""
    match route.asked:
        case ManifestByTag(tag):
            return [tag]
        case Manifest():
            # Some registries tag what is pushed by its digest.
            return [v for name, v in parse_qsl(route.query) if name == "tag" and _is_tag(v)]
        case _:
            return []


def _subject(route: Route) -> str:
    """What a seal is bound to; neither name has a space."""
    return f"{route.registry} {route.repository}"


def _with_scheme_of(base: str, location: str) -> str:
    """*location*, with https if that is how its very host was asked.

    A registry behind something that speaks TLS for it may not know better than http.
    """
    host = urlsplit(base).netloc
    if base.startswith("https://") and location.startswith(f"http://{host}/"):
        return f"https{location.removeprefix('http')}"
    return location


def _plain_path(url: str, repository: str) -> str | None:
    """What follows the repository in the URL of a blob or manifest of it, None for other URLs."""
    parts = urlsplit(url)
    start = f"/v2/{repository}/"
    if parts.query or not parts.path.startswith(start):
        return None
    match = _REFERENCE.fullmatch(parts.path[len(start) :])
    return None if match is None or match["reference"] == "uploads" else match[0]


def _namespaces(client: Client) -> list[str]:
    """The ``ns`` that a client sent, as it is spelt."""
    query = client.target.partition("?")[2]
    return [p for p in query.split("&") if unquote(p.partition("=")[0]) == "ns"]


def _with_query(url: str, query: str) -> str:
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _is_tag(text: str) -> bool:
    try:
        parse_tag(text)
    except ValueError:
        return False
    return True
