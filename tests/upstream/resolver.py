"""A resolver that knows what a test tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer


@implementer(IHostnameResolver)
class FixedResolver:
    """Knows a few names; the answer for a name that is held waits for `release`.

    Attributes:
        names: What they resolve to.
        asked: The names that were looked up, in order.
        held: Whether answers wait.
    """

    def __init__(self, names: dict[str, Sequence[str]]) -> None:
        self.names = names
        self.asked: list[str] = []
        self.held = False
        self._waiting: list[tuple[Any, str, int]] = []

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: object = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See IHostnameResolver."""
        self.asked.append(hostName)
        resolutionReceiver.resolutionBegan(None)
        self._waiting.append((resolutionReceiver, hostName, portNumber))
        if not self.held:
            self.release()
        return cast(IHostResolution, None)

    def release(self) -> None:
        """Answers."""
        waiting, self._waiting = self._waiting, []
        for receiver, name, port in waiting:
            for text in self.names.get(name, ()):
                family = IPv6Address if ":" in text else IPv4Address
                receiver.addressResolved(family("TCP", text, port))
            receiver.resolutionComplete()
