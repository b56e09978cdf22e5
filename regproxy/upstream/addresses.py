"""Where names lead: which addresses are public, and connections to none but those that may be.

A name may resolve to other addresses whenever it is asked (DNS rebinding), so it is resolved once,
every address is checked, and the connection goes to one of these and not to the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError, denied, upstream_failed
from regproxy.model.hosts import HostPort
from regproxy.upstream.racing import Address, connect_to, resolve

Network = IPv4Network | IPv6Network


class Kind(StrEnum):
    """What an address is, as it stands in a message."""

    PUBLIC = "a public address"
    LOOPBACK = "a loopback address"
    PRIVATE = "a private address"
    LINK_LOCAL = "a link-local address"
    METADATA = "the address of a cloud's metadata service"
    MULTICAST = "a multicast address"
    UNSPECIFIED = "an unspecified address"
    RESERVED = "a reserved address"


# The registries of special-purpose addresses, https://www.iana.org/assignments/
# iana-ipv4-special-registry and iana-ipv6-special-registry. Those of the standard library are not
# used: what they say depends on the version of Python. The first match wins.
_SPECIAL: Sequence[tuple[Network, Kind]] = [
    (ip_network(text), kind)
    for text, kind in (
        ("0.0.0.0/8", Kind.UNSPECIFIED),
        ("10.0.0.0/8", Kind.PRIVATE),
        ("100.100.100.200/32", Kind.METADATA),
        ("100.64.0.0/10", Kind.PRIVATE),  # carriers' NAT
        ("127.0.0.0/8", Kind.LOOPBACK),
        ("168.63.129.16/32", Kind.METADATA),
        ("169.254.0.0/16", Kind.LINK_LOCAL),  # most clouds' metadata
        ("172.16.0.0/12", Kind.PRIVATE),
        ("192.0.0.192/32", Kind.METADATA),
        ("192.0.0.0/24", Kind.RESERVED),
        ("192.0.2.0/24", Kind.RESERVED),
        ("192.88.99.0/24", Kind.RESERVED),
        ("192.168.0.0/16", Kind.PRIVATE),
        ("198.18.0.0/15", Kind.RESERVED),
        ("198.51.100.0/24", Kind.RESERVED),
        ("203.0.113.0/24", Kind.RESERVED),
        ("224.0.0.0/4", Kind.MULTICAST),
        ("240.0.0.0/4", Kind.RESERVED),
        ("0.0.0.0/0", Kind.PUBLIC),
        ("::/128", Kind.UNSPECIFIED),
        ("::1/128", Kind.LOOPBACK),
        ("64:ff9b:1::/48", Kind.PRIVATE),  # local-use NAT64 (RFC 8215)
        ("2001::/23", Kind.RESERVED),  # Teredo among others
        ("2001:db8::/32", Kind.RESERVED),
        ("3fff::/20", Kind.RESERVED),
        ("2000::/3", Kind.PUBLIC),
        ("fd00:42::42/128", Kind.METADATA),
        ("fd00:ec2::254/128", Kind.METADATA),
        ("fd20:ce::254/128", Kind.METADATA),
        ("fc00::/7", Kind.PRIVATE),
        ("fe80::/10", Kind.LINK_LOCAL),
        ("fec0::/10", Kind.PRIVATE),  # site-local, deprecated by RFC 3879
        ("ff00::/8", Kind.MULTICAST),
        ("::/0", Kind.RESERVED),
    )
]

# IPv6 forms of IPv4 addresses: where the IPv4 address ends, counted in bits from the right, and
# whether the form of a public one is public.
_EMBEDDING: Sequence[tuple[IPv6Network, int, bool]] = [
    (IPv6Network("::ffff:0:0/96"), 0, True),  # mapped (RFC 4291 section 2.5.5.2)
    (IPv6Network("64:ff9b::/96"), 0, True),  # NAT64 (RFC 6052)
    (IPv6Network("2002::/16"), 80, True),  # 6to4 (RFC 3056)
    (IPv6Network("::ffff:0:0:0/96"), 0, False),  # translated (RFC 2765)
    (IPv6Network("::/96"), 0, False),  # compatible, deprecated by RFC 4291
]


def classify(address: Address) -> Kind:
    """What *address* is; IPv6 forms of an IPv4 address are what that one is."""
    if isinstance(address, IPv6Address) and int(address) > 1:
        for network, shift, public in _EMBEDDING:
            if address in network:
                kind = classify(IPv4Address(int(address) >> shift & 0xFFFF_FFFF))
                return Kind.RESERVED if kind is Kind.PUBLIC and not public else kind
    return next(kind for network, kind in _SPECIAL if address in network)


@frozen
class Reach:
    """Which of a host's addresses may be connected to.

    Attributes:
        public: Every public one.
        named: Every one whatever it is, since the operator named this very host.
        networks: Those in here, whatever they are.
        kinds: Those of these kinds.
        singly: Kinds that a network does not name unless it is of one address.
    """

    public: bool = False
    named: bool = False
    networks: Sequence[Network] = ()
    kinds: frozenset[Kind] = frozenset()
    singly: frozenset[Kind] = frozenset()

    def names(self, address: Address) -> bool:
        """Whether the operator has named this address, by itself, its kind or the host."""
        if self.named:
            return True
        kind = classify(address)
        return kind in self.kinds or any(
            address in network and (kind not in self.singly or network.num_addresses == 1)
            for network in self.networks
        )

    def allows(self, address: Address) -> bool:
        """Whether it may be connected to."""
        return self.names(address) or (self.public and classify(address) is Kind.PUBLIC)


Refusal = Callable[[HostPort, str, Address], RegistryError]
"""Makes the error for a host (with the port), what of it is refused in words, and its address."""


def refuse_tunnel(host: HostPort, what: str, address: Address) -> RegistryError:
    """403: a client asked for what the configuration does not let clients reach."""
    by_address = HostPort(str(address), host.port)
    pattern = f'"{host}"' if host.name == by_address.name else f'"{host}" or "{by_address}"'
    return denied(
        f"nothing is passed on to {what}: a pattern of the proxy's [connect] tunnel has to name "
        f"it, such as {pattern}"
    )


def check_addresses(
    host: HostPort, addresses: Iterable[Address], reach: Reach, refuse: Refusal = refuse_tunnel
) -> list[Address]:
    """The addresses that may be connected to.

    One private address among public ones refuses them all: that is how rebinding looks.

    Args:
        host: What resolved to them, with the port.
        addresses: All that it resolved to.
        reach: What is allowed.
        refuse: Makes the error.

    Raises:
        RegistryError: With what resolved to what and how the operator allows it.
    """
    # One behind an IPv4-mapped address is reached over IPv4, and matched as such.
    every = list(dict.fromkeys(getattr(each, "ipv4_mapped", None) or each for each in addresses))
    for address in every:
        kind = classify(address)
        if kind is not Kind.PUBLIC and not reach.names(address):
            raise refuse(host, _found(host, f"{address}, {kind}"), address)
    allowed = [address for address in every if reach.allows(address)]
    if every and not allowed:
        raise refuse(host, _found(host, f"{every[0]}"), every[0])
    return allowed


def _found(host: HostPort, found: str) -> str:
    return found if host.is_address else f"{host.name}, which resolves to {found}"


def check_machine(host: HostPort, protocol: Any, reach: Reach, refuse: Refusal) -> None:
    """Hangs up on this machine: its services may trust whoever is here already.

    Raises:
        RegistryError: As for any other address that has to be named.
    """
    transport = protocol.transport
    peer = transport.getPeer().host
    if transport.getHost().host == peer and not reach.names(ip_address(peer)):
        transport.abortConnection()
        raise refuse(host, _found(host, f"{peer}, the proxy's own address"), ip_address(peer))


@frozen
@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """A host and port at those of its addresses that may be reached.

    Attributes:
        reactor: Resolves, connects and tells the time.
        host: A DNS name or an IP address.
        port: From 1 to 65535.
        reach: Which addresses may be connected to.
        timeout: Seconds for all of it: resolving, and connecting to one address or another.
    """

    reactor: Any
    host: str
    port: int
    reach: Reach
    timeout: float

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint.

        Raises:
            RegistryError: (as a failure) 403 for an address that may not be reached, 502 when
                none answers or the name has none, 504 when the time is up.
        """
        connecting = Deferred.fromCoroutine(self._connect(factory))
        deadline = Deadline.after(self.reactor, self.timeout)
        return deadline.bound(connecting, f"connecting to {self._target}")

    @property
    def _target(self) -> HostPort:
        return HostPort(self.host, self.port)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host = self._target
        try:
            addresses = await resolve(self.reactor, self.host, self.port)
        except DNSLookupError as error:
            raise upstream_failed(f"{self.host} cannot be resolved") from error
        allowed = check_addresses(host, addresses, self.reach)
        try:
            protocol = await connect_to(self.reactor, allowed, self.port, factory, self.timeout)
        except ConnectError as error:
            raise upstream_failed(f"connecting to {host}: {error}") from error
        check_machine(host, protocol, self.reach, refuse_tunnel)
        return protocol
