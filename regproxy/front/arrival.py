"""How a request reached the proxy: which host its client believes it talks to, and through what.

The target of a request in absolute form comes before its ``Host`` (RFC 9112 section 3.2.2). A
connection's own idea of its end, which is the target of its CONNECT or the name in its ClientHello,
must not mean another registry: 421 (RFC 9110 section 15.5.20).
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen
from twisted.web.server import Request

from regproxy.front.early import malformed
from regproxy.model.errors import RegistryError, shown
from regproxy.model.hosts import HostPort, parse_host
from regproxy.model.route import Reached, RegistryLookup, WayIn

_SCHEMES = ("http://", "https://")


class HostLookup(RegistryLookup, Protocol):
    """What the configuration knows of hosts."""

    def hosted(self, host: HostPort) -> str | None:
        """The canonical name of the registry that clients mean by a host, None if it is none."""

    def is_own(self, host: HostPort) -> bool:
        """Whether a host is the proxy itself by name."""


@frozen
class Arrival:
    """A request's way here.

    Attributes:
        origin: What the client believes it talks to, as ``scheme://host`` with a port if it said
            one; it ends in no slash and holds nothing that a URL may not.
        target: Path and query as they came.
        reached: The registry that the host is, None for a request that names one by its path.
        foreign: The host that a forward proxy is asked for and that is neither a registry nor
            the proxy; None for all others.
    """

    origin: str
    target: str
    reached: Reached | None = None
    foreign: HostPort | None = None


def arrive(request: Request, lookup: HostLookup) -> Arrival:
    """How *request* reached the proxy.

    Raises:
        RegistryError: 400 for a host that is none, and for a target that is neither a path nor a
            URL; 421 when host and connection disagree.
    """
    channel: Any = request.channel
    target = request.uri.decode("latin-1")
    said = request.requestHeaders.getRawHeaders(b"Host")
    if target.startswith("/") and said and (last := channel.arrived) and said == last[0]:
        # As the one before on this connection, in all but the target.
        same: Arrival = last[1]
        return Arrival(same.origin, target, same.reached)
    arrival = _arrive(request, channel, target, lookup)
    if said and target.startswith("/"):
        channel.arrived = (said, arrival)
    return arrival


def _arrive(request: Request, channel: Any, target: str, lookup: HostLookup) -> Arrival:
    scheme = "https" if request.isSecure() else "http"
    host: HostPort | None
    forward = target[:8].lower().startswith(_SCHEMES)
    if forward:
        scheme, host, target = _absolute(target)
    elif not target.startswith("/"):
        # RFC 9112 section 3.2; behind the host of a URL it could make another host of it.
        raise malformed(f"found target {shown(target[:100])}, expected a path or a URL with http")
    else:
        host = _host(request)
    tunnel: HostPort | None = channel.connect_target
    server_name = _server_name(channel) if request.isSecure() else None
    # Who sent none is taken at the connection's word.
    host = host or tunnel or server_name
    if host is None:
        address = channel.getHost()
        return Arrival(f"{scheme}://{_local(address)}", target)
    origin = f"{scheme}://{host}"
    registry = lookup.hosted(host)
    if tunnel is not None:
        _agree(tunnel, host, lookup)
    if server_name is not None:
        # A ClientHello names no port.
        _agree(HostPort(server_name.name, host.port), host, lookup)
    if tunnel is not None:
        way, registry = WayIn.CONNECT, lookup.hosted(tunnel)
    else:
        way = WayIn.FORWARD if forward else WayIn.INTERCEPTION
    if registry is not None:
        return Arrival(origin, target, Reached(way, registry))
    if forward and not (lookup.is_own(host) or str(host) == _local(channel.getHost())):
        if scheme != "http":
            raise malformed("a URL with https in a request; ask a proxy for https by CONNECT")
        return Arrival(origin, target, None, host)
    return Arrival(origin, target)


def _absolute(target: str) -> tuple[str, HostPort, str]:
    """Scheme, host, and path and query of a target in absolute form."""
    scheme, _, rest = target.partition("://")
    authority = rest
    for end in "/?#":
        authority = authority.partition(end)[0]
    path = rest[len(authority) :]
    if not path.startswith("/"):
        path = f"/{path}"
    return scheme.lower(), _parsed(authority), path


def _host(request: Request) -> HostPort | None:
    values = request.requestHeaders.getRawHeaders(b"Host") or [b""]
    value = values[0].strip()
    # RFC 9112 section 3.2: empty is what a client sends whose URL has no authority.
    return _parsed(value.decode("latin-1")) if value else None


def _server_name(channel: Any) -> HostPort | None:
    """The host that the client's ClientHello names."""
    name: str | None = channel.server_name
    return None if name is None else _parsed(name)


def _parsed(text: str) -> HostPort:
    try:
        return parse_host(text)
    except ValueError as problem:
        raise malformed(str(problem)) from None


def _agree(connection: HostPort, host: HostPort, lookup: HostLookup) -> None:
    """Checks that a connection and a request on it do not mean different registries.

    Raises:
        RegistryError: 421, they do.
    """
    meant, asked = lookup.hosted(connection), lookup.hosted(host)
    is_portless = connection.name == host.name and None in {meant, asked}
    if meant != asked and not is_portless:
        raise RegistryError(
            421,
            "UNSUPPORTED",
            f"this connection is for {shown(connection.name)}, not for {shown(host.name)}",
        )


def _local(address: Any) -> str:
    """The address that the client connected to, as it would stand in a URL."""
    name, port = getattr(address, "host", None), getattr(address, "port", None)
    if name is None:
        return "localhost"
    return str(HostPort(str(name), port))
