"""A site whose clients are held to limits; what they may do is in `ClientLimits`."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.admission import Admission
from regproxy.front.channel import ClientChannel, ClientRequest
from regproxy.front.connections import Connections
from regproxy.front.handover import Connector
from regproxy.front.limits import ClientLimits
from regproxy.model.errors import RegistryError
from regproxy.model.route import WayIn

__all__ = ["ClientLimits", "LimitedSite"]

_log = Logger()


class _NoRoom(Protocol):
    """Hangs up at once."""

    def connectionMade(self) -> None:
        """See IProtocol."""
        cast(Any, self.transport).abortConnection()


class LimitedSite(Site):
    """A site whose clients are held to limits.

    Attributes:
        limits: What clients may do.
        connections: Counts them.
        connector: Answers CONNECT; None, and it is refused.
        admission: Knows which clients may use the proxy; None for all.
    """

    protocol = cast(Any, ClientChannel)
    noisy = False
    displayTracebacks = False

    def __init__(
        self,
        resource: IResource,
        limits: ClientLimits,
        connections: Connections,
        access_log: AccessLog,
        reactor: IReactorTime,
        requestFactory: type[Request] = ClientRequest,
    ) -> None:
        """Args:
        resource: Answers every request.
        limits: What clients may do.
        connections: Counts them, on all listeners together.
        access_log: Told of requests that never reach the resource.
        reactor: Runs deadlines.
        requestFactory: The class of requests.
        """
        super().__init__(
            resource,
            requestFactory=requestFactory,
            parsePOSTFormSubmission=False,
            timeout=limits.idle,
            reactor=reactor,
        )
        self.limits = limits
        self._access_log = access_log
        self.connections = connections
        self.connector: Connector | None = None
        self.admission: Admission | None = None
        self._full = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See IProtocolFactory."""
        room = self.connections.make_room()
        if room is self._full:
            # Once an episode: the log should not be the next thing that is full.
            self._full = not room
            if not room:
                _log.warn(
                    "connections are refused: all {limit} are busy", limit=self.connections.limit
                )
        # Never None: what wraps this site, such as TLS, would go on without a protocol.
        return super().buildProtocol(addr) if room else _NoRoom()

    def startFactory(self) -> None:
        """Nothing: the access log is not Twisted's."""

    def stopFactory(self) -> None:
        """Nothing: the access log is not Twisted's."""

    def log(self, request: Any) -> None:
        """Nothing: the resource writes the access log."""

    def not_admitted(self, channel: ClientChannel, target: bytes) -> RegistryError | None:
        """Why a client may not use the proxy, None if it may."""
        if self.admission is None:
            return None
        return self.admission.refusal(cast(Any, channel.transport).getPeer(), target)

    def log_refusal(self, channel: ClientChannel, line: bytes, status: int, sent: int) -> None:
        """Writes the access-log line of a request that was refused by the channel."""
        parts = line.decode("ascii", "replace").split(" ")
        peer = cast(Any, channel.transport).getPeer()
        self._access_log.add(
            Entry(
                method=parts[0][:32],
                way=WayIn.CONNECT.value if parts[0] == "CONNECT" else "",
                client=str(getattr(peer, "host", "-")),
                reference=(parts[1] if len(parts) > 1 else "").partition("?")[0][:200],
                status=status,
                sent=sent,
            )
        )
