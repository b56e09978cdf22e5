"""Who may use the proxy at all: clients by their addresses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from regproxy.model.errors import RegistryError, denied

_REMEMBERED = 4096
_HEALTH = b"/healthz"


class Admission:
    """Admits clients whose address lies in one of some networks."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Args:
        networks: IP addresses and networks; none admit everyone.
        """
        self._networks = tuple(map(ip_network, networks))
        self._admits = lru_cache(maxsize=_REMEMBERED)(self._lies_within)

    def refusal(self, peer: Any, target: bytes) -> RegistryError | None:
        """Why a request is refused, None if it is admitted.

        Whoever asks for ``/healthz`` is: load balancers look from other networks than clients.

        Args:
            peer: The client's address, as its transport tells it. One that is no IP address is
                admitted: who may use a Unix socket, its permissions say.
            target: The request's target.
        """
        if not self._networks or target == _HEALTH or self._admits(getattr(peer, "host", None)):
            return None
        return denied("clients from this address are not served here: see clients in [access]")

    def _lies_within(self, host: str | None) -> bool:
        if host is None:
            return True
        address = ip_address(host.partition("%")[0])
        # A socket for both families shows IPv4 clients so.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)
