"""Outgoing proxies: which one leads to a host, as the configuration or the environment says."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import field, frozen

from regproxy.model.hosts import HostPort, parse_host

_DEFAULT_PORT = 80
_PORTS = {"http": 80, "https": 443}


@frozen
class OutgoingProxy:
    """A proxy that speaks HTTP.

    Attributes:
        host: Where it is.
        port: From 1 to 65535.
        authorization: What it wants in ``Proxy-Authorization``, empty for nothing. A secret.
    """

    host: str
    port: int
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Host and port: fit for messages and logs."""
        return str(HostPort(self.host, self.port))


def parse_proxy(url: str) -> OutgoingProxy:
    """The proxy in ``http://[user:password@]host[:port]``.

    What is special in user name or password is percent-encoded (RFC 3986 section 3.2.1).

    Raises:
        ValueError: It is none. The text says why and repeats nothing of it: it may hold a password.
    """
    if not all("!" <= character <= "~" for character in url):
        raise ValueError("a URL with spaces or other than ASCII characters")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError("a URL that does not begin with http://")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("a URL without a host") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a URL with more than user, password, host and port")
    userinfo, at, netloc = parts.netloc.rpartition("@")
    try:
        where = parse_host(netloc)
    except ValueError:
        raise ValueError("a URL without a host, or with a port that is none") from None
    authorization = ""
    if at:
        user, _, password = userinfo.partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        authorization = f"Basic {b64encode(pair).decode('ascii')}"
    return OutgoingProxy(where.name, where.port or _DEFAULT_PORT, authorization)


@frozen
class _Exception:
    """A host, or hosts, to which no proxy leads.

    Attributes:
        domain: A name, or what is behind the dot of one; "" for a network.
        below: Whether names below *domain* alone are meant.
        network: Of addresses.
        port: The one that is meant, None for any.
    """

    domain: str = ""
    below: bool = False
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def matches(self, host: HostPort) -> bool:
        if self.port not in (None, host.port):
            return False
        if self.network is not None:
            address = _address(host.name)
            return address is not None and address in self.network
        if host.name.endswith(f".{self.domain}"):
            return True
        return host.name == self.domain and not self.below


@frozen
class ProxyRules:
    """Which proxy leads where.

    Attributes:
        http: For ``http`` URLs, None for a connection without a proxy.
        https: For ``https`` URLs.
        exceptions: Where none of them leads.
        spares_all: Whether there is no host to which one leads.
        spares_loopback: Whether none leads to this machine.
    """

    http: OutgoingProxy | None = None
    https: OutgoingProxy | None = None
    exceptions: tuple[_Exception, ...] = ()
    spares_all: bool = False
    spares_loopback: bool = False

    @classmethod
    def everywhere(cls, proxy: OutgoingProxy | None) -> ProxyRules:
        """One proxy for all hosts, or none for any."""
        return cls(proxy, proxy)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ProxyRules:
        """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, in lower case or else in upper case.

        ``NO_PROXY`` means what it means to programs written in Go: names with all below them, with
        a leading dot only what is below, addresses, networks, each with or without a port, and
        ``*``. This machine is never reached by a proxy of the environment.

        Raises:
            ValueError: (variable, why) for a proxy that cannot be used; nothing of it is repeated.
        """
        http, https = (_from_variable(environ, name) for name in ("HTTP_PROXY", "HTTPS_PROXY"))
        if http is None and https is None:
            return cls()
        entries = _variable(environ, "NO_PROXY")[1].replace(",", " ").split()
        exceptions = tuple(each for each in map(_exception, entries) if each is not None)
        return cls(http, https, exceptions, "*" in entries, spares_loopback=True)

    def choose(self, scheme: str, host: HostPort) -> OutgoingProxy | None:
        """The proxy that leads to a host, None for a connection without one.

        Args:
            scheme: "http" or "https".
            host: Of the URL; its scheme's port is meant where there is none.
        """
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or self.spares_all or (self.spares_loopback and is_loopback(host.name)):
            return None
        if self.exceptions:
            name = host.name.lower().removesuffix(".")
            exact = HostPort(name, host.port or _PORTS.get(scheme))
            if any(exception.matches(exact) for exception in self.exceptions):
                return None
        return proxy


DIRECT = ProxyRules()
"""No proxy for any host."""


def is_loopback(name: str) -> bool:
    """Whether a host is this machine by its address or by its name (RFC 6761 section 6.3)."""
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """A variable as it is spelt, and its value."""
    spelt = name.lower() if environ.get(name.lower()) else name
    return spelt, environ.get(spelt, "").strip()


def _from_variable(environ: Mapping[str, str], name: str) -> OutgoingProxy | None:
    spelt, url = _variable(environ, name)
    if not url:
        return None
    try:
        return parse_proxy(url if "://" in url else f"http://{url}")
    except ValueError as error:
        raise ValueError(spelt, str(error)) from None


def _exception(entry: str) -> _Exception | None:
    """What an entry of NO_PROXY means; None for one that means nothing."""
    if "/" in entry:
        try:
            return _Exception(network=ip_network(entry, strict=False))
        except ValueError:
            return None
    try:
        return _Exception(network=ip_network(entry))  # an IPv6 address without brackets, too
    except ValueError:
        pass
    below = entry.startswith((".", "*."))
    try:
        host = parse_host(entry.removeprefix("*").removeprefix("."))
    except ValueError:
        return None
    if host.is_address:
        return _Exception(network=ip_network(host.name), port=host.port)
    return _Exception(host.name, below, port=host.port)
