"""Hosts with and without a port, as they stand in ``Host`` headers, CONNECT targets and URLs."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from attrs import frozen

from regproxy.model.errors import shown

_HIGHEST_PORT = 65_535
_LONGEST = 253
"""Characters of a DNS name without its trailing dot (RFC 1035 section 2.3.4)."""

# Underscores are no part of a host name, and of many names all the same.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_AUTHORITY = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@/?#\s]+))(?::(?P<port>|[1-9][0-9]{0,4}))?"
)
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")


@frozen
class HostPort:
    """A host, and the port if one was given.

    Attributes:
        name: A DNS name in lower case without a trailing dot, or an IP address in its canonical
            form, IPv6 without brackets.
        port: From 1 to 65535, None when none was given.
    """

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address."""
        return ":" in self.name or _NUMERIC.fullmatch(self.name.rpartition(".")[2]) is not None


@lru_cache(maxsize=1024)
def parse_host(text: str) -> HostPort:
    """The host and port in ``host``, ``host:port``, ``[address]`` or ``[address]:port``.

    An empty port counts as none (RFC 3986 section 3.2.3). A name whose last label is a number is
    an IPv4 address or nothing: parsers that read ``127.1`` or ``0x7f000001`` as addresses would
    see another host than regproxy does.

    Raises:
        ValueError: It is none, with what was expected.
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise ValueError(f"found {shown(text)}, expected a host or host:port")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= _HIGHEST_PORT:
        raise ValueError(f"found {shown(text)}, expected a port from 1 to {_HIGHEST_PORT}")
    if match["literal"] is not None:
        try:
            return HostPort(str(ipaddress.IPv6Address(match["literal"])), port)
        except ValueError:
            raise ValueError(f"found {shown(text)}, expected an IPv6 address") from None
    # str.lower() would make letters of what is no ASCII.
    if not text.isascii():
        raise ValueError(f"found {shown(text)}, expected ASCII")
    name = match["name"].lower().removesuffix(".")
    if len(name) > _LONGEST or _NAME.fullmatch(name) is None:
        raise ValueError(f"found {shown(text)}, expected a host name or address")
    host = HostPort(name, port)
    if host.is_address:
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise ValueError(f"found {shown(text)}, expected an IPv4 address") from None
    return host
