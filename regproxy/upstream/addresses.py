"""Where names lead: which addresses are public, and connections to none but those that may be.

A name may resolve to other addresses whenever it is asked (DNS rebinding), so it is resolved once,
every address is checked, and the connection goes to one of these and not to the name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from itertools import zip_longest
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError, denied, upstream_failed
from regproxy.model.hosts import HostPort

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_STAGGER = 0.25
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 section 5)."""

_MOST_ATTEMPTS = 8
"""Addresses of one name that are tried: a name with hundreds makes no port scanner of the proxy."""


class Kind(StrEnum):
    """What an address is, as it stands in a message."""

    PUBLIC = "a public address"
    LOOPBACK = "a loopback address"
    PRIVATE = "a private address"
    LINK_LOCAL = "a link-local address"
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
        ("100.64.0.0/10", Kind.PRIVATE),  # carriers' NAT; some clouds' metadata
        ("127.0.0.0/8", Kind.LOOPBACK),
        ("168.63.129.16/32", Kind.LINK_LOCAL),  # a cloud's host, seen from its machines alone
        ("169.254.0.0/16", Kind.LINK_LOCAL),  # most clouds' metadata
        ("172.16.0.0/12", Kind.PRIVATE),
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
    """

    public: bool = False
    named: bool = False
    networks: Sequence[Network] = ()

    def names(self, address: Address) -> bool:
        """Whether the operator has named this address, by itself or by the host."""
        return self.named or any(address in network for network in self.networks)

    def allows(self, address: Address) -> bool:
        """Whether it may be connected to."""
        return self.names(address) or (self.public and classify(address) is Kind.PUBLIC)


def check_addresses(host: HostPort, addresses: Iterable[Address], reach: Reach) -> list[Address]:
    """The addresses that may be connected to.

    One private address among public ones refuses them all: that is how rebinding looks.

    Args:
        host: What resolved to them, with the port.
        addresses: All that it resolved to.
        reach: What is allowed.

    Raises:
        RegistryError: 403, with what resolved to what and how the operator allows it.
    """
    # One behind an IPv4-mapped address is reached over IPv4, and matched as such.
    every = list(dict.fromkeys(getattr(each, "ipv4_mapped", None) or each for each in addresses))
    for address in every:
        kind = classify(address)
        if kind is not Kind.PUBLIC and not reach.names(address):
            raise _refused(host, f"{address}, {kind}", address)
    allowed = [address for address in every if reach.allows(address)]
    if every and not allowed:
        raise _refused(host, f"{every[0]}", every[0])
    return allowed


def _refused(host: HostPort, found: str, address: Address) -> RegistryError:
    what = found if host.is_address else f"{host.name}, which resolves to {found}"
    by_address = HostPort(str(address), host.port)
    pattern = f'"{host}"' if host.name == by_address.name else f'"{host}" or "{by_address}"'
    return denied(
        f"nothing is passed on to {what}: a pattern of the proxy's [connect] tunnel has to name "
        f"it, such as {pattern}"
    )


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
        addresses = await self._resolve()
        if not addresses:
            raise upstream_failed(f"{self.host} cannot be resolved")
        allowed = check_addresses(self._target, addresses, self.reach)
        endpoints = [self._endpoint(each) for each in _alternating(allowed)[:_MOST_ATTEMPTS]]
        try:
            protocol = await _Race(self.reactor, factory, deque(endpoints)).run()
        except ConnectError as error:
            raise upstream_failed(f"connecting to {self._target}: {error}") from error
        self._check_machine(protocol)
        return protocol

    async def _resolve(self) -> Sequence[Address]:
        try:
            return [ip_address(self.host)]
        except ValueError:
            receiver = _Receiver()
            self.reactor.nameResolver.resolveHostName(receiver, self.host, self.port)
            return await receiver.addresses

    def _endpoint(self, address: Address) -> IStreamClientEndpoint:
        family = TCP4ClientEndpoint if isinstance(address, IPv4Address) else TCP6ClientEndpoint
        endpoint: IStreamClientEndpoint = family(
            self.reactor, str(address), self.port, timeout=self.timeout
        )
        return endpoint

    def _check_machine(self, protocol: Any) -> None:
        """Hangs up on this machine: its services may trust whoever is here already.

        Raises:
            RegistryError: 403, as for any other address that has to be named.
        """
        transport = protocol.transport
        peer = transport.getPeer().host
        if transport.getHost().host == peer and not self.reach.names(ip_address(peer)):
            transport.abortConnection()
            raise _refused(self._target, f"{peer}, the proxy's own address", ip_address(peer))


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """Both families in turn, beginning with that of the first (RFC 8305 section 4)."""
    families: tuple[list[Address], list[Address]] = ([], [])
    for address in addresses:
        families[address.version != addresses[0].version].append(address)
    return [each for pair in zip_longest(*families) for each in pair if each is not None]


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects what a name resolves to."""

    def __init__(self) -> None:
        self.addresses: Deferred[Sequence[Address]] = Deferred()
        self._found: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing: a look-up in the reactor's threads cannot be cancelled."""

    def addressResolved(self, address: IAddress) -> None:
        """See IResolutionReceiver."""
        found: Any = address
        self._found.append(ip_address(found.host))

    def resolutionComplete(self) -> None:
        """See IResolutionReceiver."""
        self.addresses.callback(self._found)


@define(eq=False)
class _Race:
    """Several attempts to connect, each begun a little after the one before; the first wins."""

    reactor: Any
    factory: IProtocolFactory
    waiting: deque[IStreamClientEndpoint]
    _running: set[Deferred[IProtocol]] = field(factory=set, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _winner: Deferred[IProtocol] = field(init=False)

    def run(self) -> Deferred[IProtocol]:
        """The first connection, or the failure of the last attempt."""
        self._winner = Deferred(lambda _: self._stop())
        self._next()
        return self._winner

    def _next(self) -> None:
        self._timer = None
        attempt = self.waiting.popleft().connect(self.factory)
        self._running.add(attempt)
        if self.waiting:
            self._timer = self.reactor.callLater(_STAGGER, self._next)
        attempt.addCallbacks(partial(self._won, attempt), partial(self._lost, attempt))

    def _won(self, attempt: Deferred[IProtocol], protocol: IProtocol) -> None:
        self._running.discard(attempt)
        self._stop()
        self._winner.callback(protocol)

    def _lost(self, attempt: Deferred[IProtocol], failure: Failure) -> None:
        if attempt not in self._running:
            return  # cancelled
        self._running.discard(attempt)
        if self.waiting:
            if self._timer is not None:
                self._timer.cancel()
            self._next()
        elif not self._running:
            self._winner.errback(failure)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        running, self._running = self._running, set()
        for attempt in running:
            attempt.cancel()
