"""Where a redirect may lead, as pure rules."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urljoin, urlsplit

from regproxy.model.errors import upstream_failed

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Status codes that are followed (RFC 9110 section 15.4)."""

MAX_HOPS = 5
"""Redirects followed for one request."""

_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[!-~]+")
_HOST_LENGTH = 253


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    return (parts.scheme, parts.hostname or "", port)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs share scheme, host and port (RFC 6454)."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def permitted_url(base: str, reference: str) -> str:
    """The URL that the server at *base* names, byte for byte if absolute, without its fragment.

    Args:
        base: The URL whose server names another one.
        reference: Absolute or relative, from the network.

    Raises:
        ValueError: With what *reference* is instead: no http(s) URL, one that carries a user name,
            or one that would leave https for http.
    """
    # urlsplit and urljoin overlook some control characters.
    visible = _VISIBLE.fullmatch(reference) is not None
    try:
        url = reference if urlsplit(reference).scheme else urljoin(base, reference)
        parts = urlsplit(url)
        scheme, hostname, _ = _origin(parts)
    except ValueError:
        visible = False
    if not visible or len(hostname) > _HOST_LENGTH:
        raise ValueError("what is no URL")
    if scheme not in _PORTS or not hostname:
        raise ValueError("a URL that is not http or https")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user name in it")
    if scheme == "http" and urlsplit(base).scheme == "https":
        raise ValueError(f"plain http ({hostname}) from https")
    return url.partition("#")[0]


def redirect_target(current: str, location: str) -> str:
    """The URL that a redirect leads to, byte for byte if absolute: signatures depend on it.

    Args:
        current: The URL that answered.
        location: Its ``Location`` header.

    Raises:
        RegistryError: 502, when it leads where the proxy does not follow (see `permitted_url`).
    """
    try:
        return permitted_url(current, location)
    except ValueError as error:
        host = urlsplit(current).hostname
        raise upstream_failed(f"{host} redirects to {error}: refused") from error
