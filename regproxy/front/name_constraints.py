"""Name constraints (RFC 5280 section 4.2.1.10): what a certificate authority may vouch for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from cryptography import x509

from regproxy.model.hosts import HostPort, parse_host

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EVERY_IPV4 = ipaddress.IPv4Network("0.0.0.0/0")
_EVERY_IPV6 = ipaddress.IPv6Network("::/0")
# A domain without a letter matches every name: RFC 5280 leaves it open, clients agree.
_EVERY_NAME = x509.DNSName("")


def name_constraints(permitted: Sequence[str]) -> x509.NameConstraints | None:
    """The extension that permits these and nothing else, None when nothing is listed.

    A constraint on DNS names alone says nothing about IP addresses, and the other way round: each
    kind of which nothing is listed is excluded.

    Args:
        permitted: DNS domains (each stands for itself and what is below it), IP addresses, and IP
            networks in CIDR form.

    Raises:
        ValueError: One is none of them.
    """
    if not permitted:
        return None
    names = [_subtree(text) for text in permitted]
    networks = [name.value for name in names if isinstance(name, x509.IPAddress)]
    excluded: list[x509.GeneralName] = []
    if len(networks) == len(names):
        excluded.append(_EVERY_NAME)
    if not any(isinstance(network, ipaddress.IPv4Network) for network in networks):
        excluded.append(x509.IPAddress(_EVERY_IPV4))
    if not any(isinstance(network, ipaddress.IPv6Network) for network in networks):
        excluded.append(x509.IPAddress(_EVERY_IPV6))
    return x509.NameConstraints(permitted_subtrees=names, excluded_subtrees=excluded or None)


def same_constraints(one: x509.NameConstraints | None, other: x509.NameConstraints | None) -> bool:
    """Whether both permit the same, in whatever order."""
    return _sets(one) == _sets(other)


def permits(constraints: x509.NameConstraints, host: HostPort) -> bool:
    """Whether a certificate for *host* is within the constraints; its port does not matter."""
    excluded = constraints.excluded_subtrees or ()
    if any(_covers(subtree, host) for subtree in excluded):
        return False
    kind = x509.IPAddress if host.is_address else x509.DNSName
    permitted = [s for s in constraints.permitted_subtrees or () if isinstance(s, kind)]
    return not permitted or any(_covers(subtree, host) for subtree in permitted)


def describe(constraints: x509.NameConstraints | None) -> str:
    """What is permitted, for a message."""
    if constraints is None:
        return "every name"
    if not constraints.permitted_subtrees:
        return f"every name but {_listed(constraints.excluded_subtrees)}"
    return _listed(constraints.permitted_subtrees)


def _subtree(text: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_network(text))
    except ValueError:
        pass
    host = parse_host(text)
    if host.is_address or host.port is not None:
        raise ValueError(f'found "{text}", expected a DNS domain, an IP address or an IP network')
    return x509.DNSName(host.name)


def _covers(subtree: x509.GeneralName, host: HostPort) -> bool:
    if isinstance(subtree, x509.IPAddress):
        network = subtree.value
        return (
            host.is_address
            and isinstance(network, _Network)
            and ipaddress.ip_address(host.name) in network
        )
    if isinstance(subtree, x509.DNSName) and not host.is_address:
        domain = subtree.value.lower()
        # ".example.com", which others write, leaves the domain itself out.
        below = domain if domain.startswith(".") or not domain else f".{domain}"
        return host.name == domain or host.name.endswith(below)
    return False


def _listed(names: Iterable[x509.GeneralName] | None) -> str:
    return ", ".join(sorted(str(name.value) for name in names or ()))


def _sets(constraints: x509.NameConstraints | None) -> tuple[set[object], set[object]] | None:
    if constraints is None:
        return None
    return _set(constraints.permitted_subtrees), _set(constraints.excluded_subtrees)


def _set(names: Iterable[x509.GeneralName] | None) -> set[object]:
    return set(names or ())
