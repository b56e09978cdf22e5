"""Where a redirect may lead, as pure rules."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from regproxy.model.errors import upstream_failed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Status codes that are followed (RFC 9110 section 15.4)."""

MAX_HOPS = 5
"""Redirects followed for one request."""

_PORTS = {"http": 80, "https": 443}


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return (
        parts.scheme.lower(),
        (parts.hostname or "").lower(),
        parts.port or _PORTS.get(parts.scheme),
    )


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs share scheme, host and port (RFC 6454)."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def redirect_target(current: str, location: str) -> str:
    """The URL that a redirect leads to, byte for byte if absolute: signatures depend on it.

    Args:
        current: The URL that answered.
        location: Its ``Location`` header.

    Raises:
        RegistryError: 502, when the target is no http(s) URL, carries a user name, or would
            leave https for http.
    """
    host = urlsplit(current).hostname
    if not location or not location.isascii() or any(c <= " " or c == "\x7f" for c in location):
        raise upstream_failed(f"{host} redirects to a Location that is no URL")
    try:
        target = location if urlsplit(location).scheme else urljoin(current, location)
        target = target.partition("#")[0]
        parts = urlsplit(target)
        scheme, hostname, _ = _origin(parts)
    except ValueError as error:
        raise upstream_failed(f"{host} redirects to a Location that is no URL") from error
    if scheme not in _PORTS or not hostname:
        raise upstream_failed(f"{host} redirects to a URL that is not http or https")
    if parts.username is not None or parts.password is not None:
        raise upstream_failed(f"{host} redirects to a URL with a user name in it")
    if scheme == "http" and urlsplit(current).scheme == "https":
        raise upstream_failed(f"{host} redirects from https to plain http ({hostname}): refused")
    return target
