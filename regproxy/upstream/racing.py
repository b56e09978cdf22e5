"""Names looked up, and connections to the first of their addresses that answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import zip_longest
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
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

Address = IPv4Address | IPv6Address

_STAGGER = 0.25
"""Seconds until the next address is tried beside one that does not answer (RFC 8305 section 5)."""

_MOST_ATTEMPTS = 8
"""Addresses of one name that are tried: a name with hundreds makes no port scanner of the proxy."""


async def resolve(reactor: Any, host: str, port: int) -> Sequence[Address]:
    """All addresses of a host.

    Args:
        reactor: Looks names up.
        host: A name or an IP address.
        port: What they are for, from 1 to 65535.

    Raises:
        DNSLookupError: There is none.
    """
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise DNSLookupError(f"{host} is no host name") from error
    receiver = _Receiver()
    reactor.nameResolver.resolveHostName(receiver, host, port)
    addresses = await receiver.addresses
    if not addresses:
        raise DNSLookupError(f"{host} has no address")
    return addresses


def connect_to(
    reactor: Any,
    addresses: Sequence[Address],
    port: int,
    factory: IProtocolFactory,
    timeout: float,
) -> Deferred[IProtocol]:
    """A connection to one of a host's addresses: both families in turn, the first to answer wins.

    Args:
        reactor: Connects.
        addresses: At least one.
        port: From 1 to 65535.
        factory: Makes the protocol.
        timeout: Seconds for each attempt.

    Raises:
        ConnectError: (as a failure) None answers.
    """
    endpoints: deque[IStreamClientEndpoint] = deque()
    for address in _alternating(addresses)[:_MOST_ATTEMPTS]:
        family = TCP4ClientEndpoint if isinstance(address, IPv4Address) else TCP6ClientEndpoint
        endpoints.append(family(reactor, str(address), port, timeout=timeout))
    return _Race(reactor, factory, endpoints).run()


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
