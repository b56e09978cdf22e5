"""Which registry, or whether the proxy itself, is meant by a host and port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from attrs import frozen

from regproxy.config_tables import Registry
from regproxy.model.hosts import HostPort, parse_host

OWN = ""
"""What a host of the proxy itself means; no registry has this name."""

DOCKER_PROXY = HostPort("docker.proxy")
"""A name of the proxy that older set-ups have in their ``/etc/hosts``."""

_PORTS = {"https": 443, "http": 80}
WEB_PORTS = tuple(_PORTS.values())
"""Ports that clients leave out, the likelier one first."""


@frozen
class HostIndex:
    """What hosts mean: the canonical name of a registry, or :data:`OWN`.

    A name with a port means that port alone; it wins over a name without one, which means every
    port. Names win over the hosts of upstreams. A client that gives no port may have left out 443
    or 80: it gets to the name without a port, else to the one with 443 or 80. When several have
    the same, the proxy wins over registries, and a registry over those after it.

    Attributes:
        exact: By name and port.
        any_port: By the name alone, for the names without a port.
        upstreams: By host and port of upstreams.
    """

    exact: Mapping[HostPort, str]
    any_port: Mapping[str, str]
    upstreams: Mapping[HostPort, str]

    @classmethod
    def of(cls, names: Iterable[str], registries: Iterable[Registry]) -> HostIndex:
        """Index names of the proxy and of registries, and the hosts of upstreams.

        Args:
            names: Hosts, with or without a port.
            registries: Their names and aliases are valid hosts, their upstreams valid URLs.
        """
        registries = list(registries)
        meanings = [(DOCKER_PROXY, OWN), *((parse_host(name), OWN) for name in names)]
        for registry in registries:
            names = (registry.name, *registry.aliases)
            meanings.extend((parse_host(name), registry.name) for name in names)
        any_port: dict[str, str] = {}
        exact: dict[HostPort, str] = {}
        for host, meaning in meanings:
            if host.port is None:
                any_port.setdefault(host.name, meaning)
            else:
                exact.setdefault(host, meaning)
        for port in WEB_PORTS:
            for host, meaning in meanings:
                if host.port == port and host.name not in any_port:
                    exact.setdefault(HostPort(host.name), meaning)
        upstreams: dict[HostPort, str] = {}
        for registry in registries:
            for host in _spellings(registry.upstream):
                upstreams.setdefault(host, registry.name)
        return cls(exact, any_port, upstreams)

    def meaning(self, host: HostPort) -> str | None:
        """Give what a host means, None when it means nothing here."""
        # On the path of every request: no more than look-ups.
        found = self.exact.get(host)
        if found is None:
            found = self.any_port.get(host.name)
            if found is None:
                found = self.upstreams.get(host)
        return found


def same_place(one: HostPort, other: HostPort) -> bool:
    """Whether two names cannot mean different things.

    Ports that clients leave out count as none.
    """
    ports = [None if host.port in WEB_PORTS else host.port for host in (one, other)]
    return one.name == other.name and ports[0] == ports[1]


def _spellings(upstream: str) -> Sequence[HostPort]:
    """The hosts that mean an upstream: with its port, and without where that is its scheme's."""
    parts = urlsplit(upstream)
    host = parse_host(parts.netloc)
    default = _PORTS[parts.scheme]
    if host.port in {None, default}:
        return HostPort(host.name, default), HostPort(host.name)
    return (host,)
