"""Reading single values that say where something is: hosts, addresses, domains and patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from regproxy.config_mistakes import Mistake, describe
from regproxy.model.hosts import HostPort, parse_host
from regproxy.model.names import parse_registry

_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")
_ANY = "*"
_BELOW = "*."

_HOST = 'a host or host:port such as "proxy.corp" or "proxy.corp:5000"'
_ADDRESS = 'an IP address such as "10.1.2.3" or "fd00::5"'
_NETWORK = 'an IP address or a network such as "10.1.2.3", "10.1.0.0/16" or "fd00::/8"'
_DOMAIN = 'a domain, an IP address or a network such as "corp.example", "10.1.2.3" or "fd00::/8"'
_PATTERN = (
    'a pattern of host and port such as "example.com:443", "*.example.com:*", "10.0.0.0/8:22" or '
    '"[fd00::5]:443"'
)


def read_registry_name(value: object) -> str:
    """Read the name of a registry.

    Raises:
        Mistake: It is none.
    """
    if isinstance(value, str):
        try:
            return parse_registry(value)
        except ValueError:
            pass
    raise Mistake(describe(value), 'a registry name such as "quay.io" or "registry.corp:5000"')


def read_host(value: object) -> str:
    """Read a host with or without a port, in its one spelling.

    Raises:
        Mistake: It is none.
    """
    text = _text(value, _HOST)
    if (host := _host(text)) is not None:
        return str(host)
    address = _address(text)
    raise Mistake(describe(value), _HOST, meant=f"[{address}]" if address else "")


def read_address(value: object) -> str:
    """Read an IP address, in its one spelling, IPv6 without brackets.

    Raises:
        Mistake: It is none.
    """
    text = _text(value, _ADDRESS)
    if (address := _address(text)) is not None:
        return str(address)
    raise Mistake(describe(value), _ADDRESS, meant=_address_within(text))


def read_network(value: object) -> str:
    """Read an IP address or a network, in its one spelling, IPv6 without brackets.

    Raises:
        Mistake: It is none of them.
    """
    return _read_network(_text(value, _NETWORK), _NETWORK)


def _read_network(text: str, expected: str) -> str:
    if "/" not in text and (address := _address(text)) is not None:
        return str(address)
    network = _network(text) if "/" in text else None
    if network is not None and _has_no_host_bits(text, network):
        return str(network)
    meant = str(network or "") or _address_within(text)
    raise Mistake(describe(text), expected, meant=meant)


def read_domain(value: object) -> str:
    """Read a domain, which stands for what is below it as well, an IP address or a network.

    Raises:
        Mistake: It is none of them.
    """
    text = _text(value, _DOMAIN)
    if "/" in text or _address(text) is not None:
        return _read_network(text, _DOMAIN)
    if (host := _host(text)) is not None and host.port is None and not host.is_address:
        return host.name
    # Both ways of writing "and below" would mean something else, or nothing, in a certificate.
    domain = _host(text.removeprefix(_ANY).removeprefix("."))
    raise Mistake(describe(value), _DOMAIN, meant=domain.name if domain else "")


def read_pattern(value: object) -> str:
    """Read a pattern of what may be tunnelled to; it stays as it is written.

    Before the last colon stands a name, ``*.`` and a domain, ``*`` for every name and address, or
    an IP address or network, with brackets around all of it for IPv6; behind it a port or ``*``.

    Raises:
        Mistake: It is none.
    """
    text = _text(value, _PATTERN)
    name, colon, port = text.rpartition(":")
    if colon and _is_port(port):
        if _is_place(name):
            return text
        network = _network(name.replace("[", "").replace("]", ""))
        meant = f"{_bracketed(network)}:{port}" if network else ""
    else:
        meant = f"{text}:443" if _is_place(text) else ""
    raise Mistake(describe(value), _PATTERN, meant=meant)


def permits(domains: Iterable[str], host: HostPort) -> bool:
    """Whether a host lies within domains, addresses and networks, as :func:`read_domain` gives.

    This is what name constraints of a certificate authority allow (RFC 5280 section 4.2.1.10).
    """
    if host.is_address:
        address = ip_address(host.name)
        return any(address in network for network in map(_network, domains) if network)
    return any(host.name == domain or host.name.endswith(f".{domain}") for domain in domains)


def _text(value: object, expected: str) -> str:
    if isinstance(value, str):
        return value
    raise Mistake(describe(value), expected)


def _host(text: str) -> HostPort | None:
    try:
        return parse_host(text)
    except ValueError:
        return None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    # With a scope, an address means something on this machine alone.
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _address_within(text: str) -> str:
    """The address that stands between brackets or before a port, or ""."""
    host = _host(text)
    return host.name if host is not None and host.is_address else ""


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """The network of an address alone or with a prefix length, whose host bits may be set."""
    address, slash, length = text.partition("/")
    if _address(address) is None or (slash and _PREFIX_LENGTH.fullmatch(length) is None):
        return None  # ip_network() reads masks as well
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _has_no_host_bits(text: str, network: IPv4Network | IPv6Network) -> bool:
    return ip_address(text.partition("/")[0]) == network.network_address


def _bracketed(network: IPv4Network | IPv6Network) -> str:
    single = network.prefixlen == network.max_prefixlen
    text = str(network.network_address if single else network)
    return f"[{text}]" if network.version == 6 else text


def _is_port(text: str) -> bool:
    if text == _ANY:
        return True
    host = _host(f"host:{text}")
    return host is not None and host.port is not None


def _is_place(text: str) -> bool:
    """Whether this is what may stand before the port of a pattern."""
    if text == _ANY:
        return True
    if text.startswith("["):
        inner = text.removeprefix("[").removesuffix("]")
        network = _network(inner)
        return (
            text.endswith("]")
            and network is not None
            and network.version == 6
            and _has_no_host_bits(inner, network)
        )
    if "/" in text:
        network = _network(text)
        return network is not None and network.version == 4 and _has_no_host_bits(text, network)
    host = _host(text.removeprefix(_BELOW))
    if host is None or host.port is not None or ":" in text:
        return False
    return not (text.startswith(_BELOW) and host.is_address)
