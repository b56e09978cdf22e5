"""Where a registry's requests may lead: to its own upstream, and from there not inwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import is_loopback
from regproxy.upstream.addresses import (
    Kind,
    Network,
    Reach,
    check_addresses,
    check_machine,
    classify,
)
from regproxy.upstream.racing import Address, connect_to, resolve

_OUTWARDS = (Kind.LOOPBACK, Kind.PRIVATE, Kind.PUBLIC)
"""Where an upstream may be, each further from the proxy than the one before."""

_INNER = {
    Kind.LOOPBACK: frozenset({Kind.LOOPBACK, Kind.PRIVATE}),
    Kind.PRIVATE: frozenset({Kind.PRIVATE}),
    Kind.PUBLIC: frozenset[Kind](),
}
"""What is not public and may be led to, by where the upstream is."""

_SINGLY = frozenset({Kind.LINK_LOCAL, Kind.METADATA, Kind.UNSPECIFIED, Kind.MULTICAST})
"""What has to be named address by address: no network is meant to hold it."""

_OWN = Reach(named=True)


class Destinations:
    """Knows where a registry's upstream is, and judges the hosts that it leads to.

    The operator chose upstream's own host and port: they are connected to at whatever address.
    A redirect or a token realm was chosen by upstream: it may lead to public addresses, to those
    that the operator allows, and to such that are not further inside than upstream itself. How far
    inside that is, all its addresses tell that were ever seen: an upstream whose name points
    elsewhere from one moment to the next (DNS rebinding) counts as the outermost of them.
    """

    def __init__(
        self,
        registry: str,
        upstream: HostPort,
        allowed: Sequence[Network],
        reactor: Any,
        *,
        is_proxied: bool = False,
    ) -> None:
        """Args:
        registry: Its name, for messages.
        upstream: Its upstream's host and port.
        allowed: Further addresses that it may lead to.
        reactor: Looks names up.
        is_proxied: Whether upstream is reached through an outgoing proxy, so that nobody here
            knows its addresses.
        """
        self._registry = registry
        self._upstream = upstream
        self._allowed = tuple(allowed)
        self._reactor = reactor
        self._is_proxied = is_proxied
        self._kind: Kind | None = None

    def is_upstream(self, host: HostPort) -> bool:
        """Whether this is what the operator configured, port included."""
        return host == self._upstream

    def saw(self, addresses: Iterable[Address]) -> None:
        """Takes note of addresses that upstream's name has just resolved to."""
        for address in addresses:
            kind = classify(getattr(address, "ipv4_mapped", None) or address)
            # Whoever is at a link-local address has nobody beside it that others may be led to.
            kind = kind if kind in _OUTWARDS else Kind.PUBLIC
            self._kind = max(self._kind or kind, kind, key=_OUTWARDS.index)

    async def reach(self) -> Reach:
        """What upstream may lead to."""
        if self._kind is None:
            self.saw(await self._look_up())
        return self._reach()

    def check_unresolved(self, host: HostPort) -> None:
        """Checks a host that an outgoing proxy is going to look up, as far as it tells by itself.

        Raises:
            RegistryError: 502, it is an address, or a name of this machine, that upstream may not
                lead to.
        """
        if self.is_upstream(host):
            return
        address = _literal(host.name) or (
            ip_address("127.0.0.1") if is_loopback(host.name) else None
        )
        if address is None:
            return
        own = _literal(self._upstream.name)
        if own is not None:
            self.saw([own])
        check_addresses(host, [address], self._reach(), self.refuse)

    def refuse(self, host: HostPort, what: str, address: Address) -> RegistryError:
        """502: upstream leads where it may not (see `regproxy.upstream.addresses.Refusal`)."""
        return upstream_failed(
            f"{self._registry} leads to {what}: refused unless allowed_addresses of "
            f'registries."{self._registry}" has it, such as "{address}"'
        )

    def _reach(self) -> Reach:
        inner = _INNER[self._kind or Kind.PUBLIC]
        return Reach(public=True, networks=self._allowed, kinds=inner, singly=_SINGLY)

    async def _look_up(self) -> Sequence[Address]:
        own = _literal(self._upstream.name)
        if own is not None:
            return [own]
        if self._is_proxied:
            return []
        try:
            return await resolve(self._reactor, self._upstream.name, self._upstream.port or 0)
        except DNSLookupError:
            return []


@frozen
@implementer(IStreamClientEndpoint)
class DestinationEndpoint:
    """A host and port that a registry's requests go to, at addresses that are right for them.

    Attributes:
        reactor: Resolves and connects.
        destinations: Judges.
        host: With the port.
        timeout: Seconds for each attempt to connect.
    """

    reactor: Any
    destinations: Destinations
    host: HostPort
    timeout: float

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint.

        Raises:
            RegistryError: (as a failure) 502 for an address that may not be reached.
            DNSLookupError: (as a failure) The host has no address.
            ConnectError: (as a failure) None of them answers.
        """
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host, judge, port = self.host, self.destinations, self.host.port or 0
        is_upstream = judge.is_upstream(host)
        reach = _OWN if is_upstream else await judge.reach()
        addresses = await resolve(self.reactor, host.name, port)
        if is_upstream:
            judge.saw(addresses)
        allowed = check_addresses(host, addresses, reach, judge.refuse)
        protocol = await connect_to(self.reactor, allowed, port, factory, self.timeout)
        check_machine(host, protocol, reach, judge.refuse)
        return protocol


def _literal(name: str) -> Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
