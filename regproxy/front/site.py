"""The HTTP side of a listener: limits on what clients may send, and on how long they may take.

Twisted's own idle timeout is renewed by every byte, and it spools request bodies to disk before a
resource sees the request; both are closed here.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from regproxy.front.accesslog import AccessLog, Entry
from regproxy.front.connections import Connections
from regproxy.front.stall import StallWatch
from regproxy.model.errors import RegistryError, body_too_large, unsupported

_TLS_HANDSHAKE = b"\x16"
"""The first byte of a ClientHello (RFC 8446 section 5.1); no HTTP request starts with it."""

_PIPELINED_LIMIT = 256 * 1024
"""Bytes that a client may send behind a request before that has its answer."""

_LINGER_SECONDS = 3.0
"""How long what a refused client still sends is thrown away, so that it can read the refusal."""

_LINE_LOGGED = 1024
"""Bytes of a request line without an end that are looked at for the log."""

_log = Logger()


@frozen
class ClientLimits:
    """What clients are allowed.

    Attributes:
        header_size: Bytes of a request's line and headers.
        request_headers: Seconds from a request's first byte to the end of its headers.
        idle: Seconds that a connection may do nothing between requests.
        write_stall: Seconds in which a client must take something of its answer.
    """

    header_size: int
    request_headers: float
    idle: float
    write_stall: float


class ClientChannel(HTTPChannel):
    """One client's connection."""

    requests: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._in_headers = True
        self._refused = False
        self._request_line = b""
        self._header_size = 0
        self._deadline: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None
        self._full = False
        self._pipelined = 0
        self._undone: Any = None
        self._watch: StallWatch | None = None

    @property
    def limited_site(self) -> LimitedSite:
        """The site that made this channel."""
        return cast(LimitedSite, self.site)

    site: Any = None

    def connectionMade(self) -> None:
        """See HTTPChannel."""
        self.totalHeadersSize = self.MAX_LENGTH = self.limited_site.limits.header_size
        self._watch = StallWatch(
            self,
            self.limited_site.reactor,
            self.limited_site.limits.write_stall,
            lambda _: self.abort(),
        )
        super().connectionMade()
        self.limited_site.connections.idle(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See HTTPChannel."""
        for timer in (self._deadline, self._linger):
            if timer is not None and timer.active():
                timer.cancel()
        if self._watch is not None:
            self._watch.stop()
        self.limited_site.connections.closed(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """See HTTPChannel."""
        if self._refused:
            return
        if self._in_headers and not self._request_line and data[:1] == _TLS_HANDSHAKE:
            # Clients that try TLS first go on to plain HTTP as soon as they are hung up on.
            self._refused = True
            self.abort()
            return
        if not self._in_headers:
            # Twisted keeps what comes behind a request, and stops reading only while answers flow.
            self._pipelined += len(data)
            if self._pipelined > _PIPELINED_LIMIT:
                self.abort()
                return
        if self._in_headers and self._deadline is None:
            self._deadline = self.limited_site.reactor.callLater(
                self.limited_site.limits.request_headers, self._headers_too_slow
            )
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """See HTTPChannel."""
        if self._refused:
            return
        if not self._request_line and line:
            self._request_line = line
        elif line[:1] in (b" ", b"\t"):
            # RFC 9112 section 5.2: obsolete folding is refused; parsers disagree about it.
            self._answer_early(RegistryError(400, "UNSUPPORTED", "folded header line"))
            return
        self._header_size += len(line)
        if self._header_size > self.totalHeadersSize:
            self._answer_early(_HEADERS_TOO_LARGE)
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """See LineReceiver."""
        if not self._refused:
            self._request_line = self._request_line or line[:_LINE_LOGGED]
            self._answer_early(_HEADERS_TOO_LARGE)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's answer to what it cannot parse, which has neither a body nor a log line."""
        if not self._refused:
            self._answer_early(RegistryError(400, "UNSUPPORTED", "malformed request"))

    def allHeadersReceived(self) -> None:
        """See HTTPChannel."""
        self._in_headers = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.limited_site.connections.busy(self)
        request = self.requests[-1]
        if self._request_line.split(b" ")[1:2] == [b"*"]:
            # Twisted would answer OPTIONS * by itself.
            self._answer_early(unsupported("nothing but pulls is served here"))
            return
        # RFC 9112 section 6.3: a body is there if either header says so.
        if self.length is None or self.length > 0:
            method = self._request_line.split(b" ", 1)[0]
            self._answer_early(self.limited_site.refuse_body(method))
            return
        hosts = len(request.requestHeaders.getRawHeaders(b"Host") or ())
        # RFC 9112 section 3.2: exactly one, unless the client is older than HTTP/1.1.
        if hosts > 1 or (not hosts and self._request_line.endswith(b"HTTP/1.1")):
            self._answer_early(RegistryError(400, "UNSUPPORTED", f"found {hosts} Host headers"))
            return
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """See HTTPChannel."""
        if not self._refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """See HTTPChannel."""
        if not self._refused:
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """See HTTPChannel: the next request has to wait until this answer is on its way."""
        if self._full and self._watch is not None:
            self._undone = request
            self._watch.paused()
        else:
            self._done(request)

    def _done(self, request: Any) -> None:
        self._in_headers = True
        self._request_line = b""
        self._header_size = self._pipelined = 0
        self.limited_site.connections.idle(self)
        if not self.persistent:
            # The rest of the answer, and of TLS, has a deadline too.
            self._linger = self.limited_site.reactor.callLater(
                self.limited_site.limits.write_stall, self.abort
            )
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """See IPushProducer: the client's buffers are full."""
        self._full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer: the client's buffers are empty."""
        self._full = False
        super().resumeProducing()
        if self._undone is not None and self._watch is not None:
            request, self._undone = self._undone, None
            self._watch.stop()
            self._done(request)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:  # noqa: FBT001  # IConsumer's
        """See IConsumer; a producer that comes when the buffers are full is told so."""
        super().registerProducer(producer, streaming)
        if self._full and streaming:
            producer.pauseProducing()

    def timeoutConnection(self) -> None:
        """See TimeoutMixin: between requests clients come and go, which is no news for the log."""
        self._linger = self.limited_site.reactor.callLater(_LINGER_SECONDS, self.abort)
        self.loseConnection()

    def _headers_too_slow(self) -> None:
        self._deadline = None
        self._answer_early(
            RegistryError(408, "UNSUPPORTED", "the request's headers took too long to arrive")
        )

    def _answer_early(self, error: RegistryError) -> None:
        """Answers before the request is over, and closes when the client has read it."""
        self._refused = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.setTimeout(None)
        body = error.body()
        head = [f"HTTP/1.1 {error.status} {_REASONS.get(error.status, 'Refused')}"]
        head += [f"{name}: {value}" for name, value in error.headers]
        head += [
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        transport: Any = self.transport
        if self._request_line.startswith(b"HEAD "):
            body = b""
        transport.writeSequence([("\r\n".join(head) + "\r\n\r\n").encode("latin-1"), body])
        self.limited_site.log_refusal(self, self._request_line, error.status, len(body))
        # Closing at once with unread data would reset the connection before the answer is read.
        self._linger = self.limited_site.reactor.callLater(_LINGER_SECONDS, self.abort)
        half_close = getattr(transport, "loseWriteConnection", None)
        if self.isSecure():
            # What is written still waits to be encrypted; this sends it, and reads on.
            self.loseConnection()
        elif half_close is not None:
            half_close()

    def abort(self) -> None:
        """See Connection."""
        cast(Any, self.transport).abortConnection()


_REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
}

_HEADERS_TOO_LARGE = RegistryError(431, "UNSUPPORTED", "the request's headers are too large")


class _NoRoom(Protocol):
    """Hangs up at once."""

    def connectionMade(self) -> None:
        """See IProtocol."""
        cast(Any, self.transport).abortConnection()


class LimitedSite(Site):
    """A site whose clients are held to limits."""

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
        requestFactory: type[Request] | None = None,
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

    def refuse_body(self, method: bytes) -> RegistryError:
        """Why a request's body is not received; nothing that is served needs one.

        Args:
            method: The request's method.
        """
        if method not in (b"GET", b"HEAD"):
            return unsupported("pushing through this proxy is not offered: it only serves pulls")
        return body_too_large("a request for content has no body")

    def log_refusal(self, channel: ClientChannel, line: bytes, status: int, sent: int) -> None:
        """Writes the access-log line of a request that was refused by the channel."""
        parts = line.decode("ascii", "replace").split(" ")
        peer = cast(Any, channel.transport).getPeer()
        self._access_log.add(
            Entry(
                method=parts[0][:32],
                client=str(getattr(peer, "host", "-")),
                reference=(parts[1] if len(parts) > 1 else "").partition("?")[0][:200],
                status=status,
                sent=sent,
            )
        )
