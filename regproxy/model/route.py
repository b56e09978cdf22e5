"""The route: what a request target asks for, of which registry, through which way in.

The target becomes one validated value here and nothing later parses a URL again. Shapes of paths
are those of the OCI distribution specification 1.1, "Endpoints"
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#endpoints).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, TypeAlias
from urllib.parse import unquote

from attrs import frozen

from regproxy.model.digest import Digest
from regproxy.model.errors import (
    RegistryError,
    digest_invalid,
    name_invalid,
    name_unknown,
    not_found,
    shown,
)
from regproxy.model.names import (
    DOCKER_HUB,
    looks_like_registry,
    normalise_repository,
    parse_registry,
    parse_repository,
    parse_tag,
)

# The longest names there can be, every character percent-encoded.
_MAX_PATH = 2048
# Visible ASCII without "#": what is left of a query goes into a URL for upstream.
_VISIBLE = re.compile(r'[!"$-~]*')
_LISTED_REGISTRIES = 20
_SEARCH = "/v1/search"
_TOKEN_ENDPOINT = re.compile(r"/v2/[a-z]+")
_API = re.compile(r"/v[12](?:/|$)")
_PARAMETERS = re.compile(r";[^/]*")
_LAYERS = 4
"""Of percent-encoding that are looked through; who needs more hides something."""


class WayIn(StrEnum):
    """How a client reached the proxy."""

    MIRROR = "mirror"
    NAMESPACE = "namespace"
    PREFIX = "prefix"
    INTERCEPTION = "interception"
    CONNECT = "connect"
    FORWARD = "forward"


@frozen
class VersionCheck:
    """Whether this is a registry at all: ``/v2/``."""


@frozen
class Catalog:
    """The repositories of a registry."""


@frozen
class TagList:
    """The tags of the repository."""


@frozen
class Referrers:
    """The manifests whose subject has this digest."""

    digest: Digest


@frozen
class ManifestByTag:
    """The manifest that a valid tag names now."""

    tag: str


@frozen
class Manifest:
    """The manifest that has this digest."""

    digest: Digest


@frozen
class Blob:
    """The blob that has this digest."""

    digest: Digest


@frozen
class Upload:
    """Any step of a push of a blob."""


@frozen
class Other:
    """What a registry's host serves besides the distribution API: its pages, its token endpoint."""


Asked: TypeAlias = (
    VersionCheck | Catalog | TagList | Referrers | ManifestByTag | Manifest | Blob | Upload | Other
)


@frozen
class Reached:
    """That a client addressed a registry before it named a path: by Host, CONNECT or URL.

    Attributes:
        way: INTERCEPTION, CONNECT or FORWARD.
        registry: The registry's canonical name.
    """

    way: WayIn
    registry: str


@frozen
class Route:
    """A request target, understood.

    Attributes:
        way: How the client reached the proxy.
        registry: The canonical name of a configured registry.
        repository: The repository as the registry knows it, empty for VersionCheck, Catalog and
            Other.
        asked: What is asked for.
        prefix: The first path component as the client wrote it (percent-decoded), empty for other
            ways in than the path prefix.
        client_repository: The repository as the client spelt it, without the prefix.
        query: The raw query string without its ``ns``, visible ASCII.
    """

    way: WayIn
    registry: str
    repository: str
    asked: Asked
    prefix: str = ""
    client_repository: str = ""
    query: str = ""


class RegistryLookup(Protocol):
    """What a route needs to know of the configuration."""

    @property
    def default_registry(self) -> str:
        """The canonical name of the registry that plain mirror requests mean."""

    def find(self, name: str) -> str | None:
        """The canonical name of the registry that has this name or alias, None if none has."""

    def known(self) -> Sequence[str]:
        """The canonical names of all configured registries."""


def parse_route(target: str, lookup: RegistryLookup, reached: Reached | None = None) -> Route:
    """The route of a request.

    A registry that was reached as a host has the whole path to itself. Otherwise the first path
    component wins over ``ns``, and ``ns`` over the default registry. Components are percent-decoded
    once, after the path is split; shapes are recognised from the right end, because a repository
    may have components named ``manifests``, ``blobs`` or ``tags``.

    Args:
        target: The raw request target in origin form, path and query.
        lookup: The configured registries.
        reached: The registry whose host the client believes it talks to, if it is one.

    Raises:
        NotFound: 404, the path is not under ``/v2/`` or has no shape of the API.
        RegistryError: 400 for a malformed name, tag, digest or ``ns``; 404 for a registry that is
            not configured.
    """
    path, _, query = target.partition("?")
    if path == _SEARCH and reached is None:
        reached = Reached(WayIn.MIRROR, lookup.default_registry)
    if reached is not None and _is_other(path):
        return Route(reached.way, reached.registry, "", OTHER)
    first, rest, asked = _shape(path)
    namespace = ""
    if query:
        namespace, query = _namespace(query)

    prefix = ""
    client_repository = f"{first}/{rest}" if rest else first
    if reached is not None:
        way, registry = reached.way, reached.registry
    elif first and (found := _find(first, lookup)) is not None:
        way, registry, prefix, client_repository = WayIn.PREFIX, found, first, rest
    else:
        way = WayIn.NAMESPACE if namespace else WayIn.MIRROR
        registry = _named(first, namespace, lookup)

    if type(asked) is VersionCheck or type(asked) is Catalog:
        if client_repository:
            raise not_found(f"nothing is served at {shown(path)}")
        return Route(way, registry, "", asked, prefix, "", query)
    repository = _repository(registry, client_repository)
    return Route(way, registry, repository, asked, prefix, client_repository, query)


def _is_other(path: str) -> bool:
    """Whether a path of a registry's host is none of the distribution API.

    Token endpoints may be there all the same, as ``/v2/auth`` or ``/v2/token``.

    Raises:
        NotFound: 404 for the API before this one, of which only the search is still in use.
        RegistryError: 400 for a path that means the API to a registry that is lenient.
    """
    if path.startswith("/v1/") and path != _SEARCH:
        raise not_found(f"nothing is served at {shown(path)}: version 1 of the API is gone")
    if not path.startswith("/v2/") and path != "/v2":
        if path != _SEARCH and _API.match(_read_loosely(path)):
            raise name_invalid(f"found path {shown(path)}, expected /v2/ as it is written")
        return True
    return _TOKEN_ENDPOINT.fullmatch(path) is not None


def _read_loosely(path: str) -> str:
    """A path as the most lenient of servers would read it."""
    for _ in range(_LAYERS):
        path, before = unquote(path, errors="replace"), path
        if path == before:
            break
    else:
        return "/v2/"
    path = _PARAMETERS.sub("", path.replace("\\", "/")).lower()
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part.strip() not in {"", "."}:
            parts.append(part.strip())
    return "/" + "/".join(parts)


def _named(first: str, namespace: str, lookup: RegistryLookup) -> str:
    """The registry that ``ns`` names, or the default one."""
    registry = lookup.find(namespace) if namespace else lookup.default_registry
    if registry is None:
        raise _unknown(namespace, lookup)
    # Of a registry that is named in ns, "a.b" may be a repository; docker.io has none such.
    if looks_like_registry(first) and (not namespace or registry == DOCKER_HUB or ":" in first):
        raise _unknown(first, lookup)
    return registry


_VERSION_CHECK = VersionCheck()
_CATALOG = Catalog()
_TAG_LIST = TagList()
_UPLOAD = Upload()
OTHER = Other()


@lru_cache(maxsize=1024)
def _shape(path: str) -> tuple[str, str, Asked]:
    """First component, other components of the name, and what is asked; any may be no name."""
    if path in {"/v2/", "/v2"}:
        return "", "", _VERSION_CHECK
    if not path.startswith("/v2/"):
        raise not_found(f"nothing is served at {shown(path)}")
    if len(path) > _MAX_PATH:
        raise name_invalid(f"found a path of {len(path)} characters, expected at most {_MAX_PATH}")
    if _VISIBLE.fullmatch(path) is None:
        raise name_invalid(f"found path {shown(path)}, expected visible ASCII characters")
    parts = path[4:].split("/")
    if "%" in path:
        parts = [_decoded(part) for part in parts]
    ending = _ending(parts)
    if ending is None:
        return _without_repository(path, parts)
    asked, length = ending
    name = parts[:-length]
    if not name or "" in name:
        raise name_invalid(f"found path {shown(path)}, expected a repository without empty parts")
    return name[0], "/".join(name[1:]), asked


def _ending(parts: list[str]) -> tuple[Asked, int] | None:
    """What the end of a path asks of a repository, and how many components say so."""
    keyword, last = parts[-2:] if len(parts) > 1 else ("", parts[0])
    if keyword == "manifests":
        return Manifest(_digest(last)) if ":" in last else _by_tag(last), 2
    if keyword == "blobs":
        return _UPLOAD if last == "uploads" else Blob(_digest(last)), 2
    if keyword == "referrers":
        return Referrers(_digest(last)), 2
    if keyword == "tags" and last == "list":
        return _TAG_LIST, 2
    if keyword == "uploads" and parts[-3:-2] == ["blobs"]:
        return _UPLOAD, 3
    return None


def _without_repository(path: str, parts: list[str]) -> tuple[str, str, Asked]:
    if parts == ["_catalog"]:
        return "", "", _CATALOG
    if parts[0] and parts[1:] == ["_catalog"]:
        return parts[0], "", _CATALOG
    if parts[0] and parts[1:] in ([], [""]):
        return parts[0], "", _VERSION_CHECK
    raise not_found(f"nothing is served at {shown(path)}")


def _decoded(part: str) -> str:
    try:
        decoded = unquote(part, errors="strict")
    except UnicodeDecodeError:
        decoded = "/"
    # A slash that was encoded is no separator, and no name has one.
    if "/" in decoded:
        raise name_invalid(f"found path component {shown(part)}, expected a name")
    return decoded


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except ValueError as problem:
        raise digest_invalid(str(problem)) from None


def _by_tag(text: str) -> ManifestByTag:
    try:
        return ManifestByTag(parse_tag(text))
    except ValueError as problem:
        raise name_invalid(str(problem)) from None


@lru_cache(maxsize=1024)
def _repository(registry: str, client_repository: str) -> str:
    try:
        return normalise_repository(registry, parse_repository(client_repository))
    except ValueError as problem:
        raise name_invalid(str(problem)) from None


def _namespace(query: str) -> tuple[str, str]:
    """The registry that ``ns`` names, empty without one, and the rest of the query."""
    if _VISIBLE.fullmatch(query) is None:
        raise name_invalid(f"found query {shown(query)}, expected visible ASCII characters")
    if "ns" not in query and "%" not in query:
        return "", query
    kept = []
    found = set()
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name == "ns" or ("%" in name and unquote(name) == "ns"):
            found.add(value)
        else:
            kept.append(parameter)
    try:
        names = {parse_registry(unquote(value)) for value in found}
    except ValueError as problem:
        raise name_invalid(f"ns: {problem}") from None
    if len(names) > 1:
        raise name_invalid(f"found {len(names)} different values of ns, expected one")
    return (names.pop() if names else ""), "&".join(kept)


def _find(first: str, lookup: RegistryLookup) -> str | None:
    registry = lookup.find(first)
    if registry is None and looks_like_registry(first):
        try:
            registry = lookup.find(parse_registry(first))
        except ValueError:
            return None
    return registry


def _unknown(name: str, lookup: RegistryLookup) -> RegistryError:
    """What to say of a registry that is not configured, or is no registry at all."""
    try:
        name = parse_registry(name)
    except ValueError as problem:
        return name_invalid(str(problem))
    known = lookup.known()
    listed = ", ".join(known[:_LISTED_REGISTRIES])
    if len(known) > _LISTED_REGISTRIES:
        listed += f" and {len(known) - _LISTED_REGISTRIES} more"
    return name_unknown(f"registry {shown(name)} is not configured here; configured are: {listed}")
