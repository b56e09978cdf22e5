"""One client's connection: HTTP/1.1 read strictly, within limits, and handed over by CONNECT.

Twisted's own idle timeout is renewed by every byte, and it spools a request's body to disk before
a resource sees the request; both are closed here.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from typing import Any, Protocol, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from regproxy.front.bodies import RequestBody, expects_continue
from regproxy.front.connections import Connections
from regproxy.front.early import (
    HEADERS_TOO_LARGE,
    HEADERS_TOO_SLOW,
    LINGER_SECONDS,
    TLS_HANDSHAKE,
    early_answer,
    malformed,
    refusal,
)
from regproxy.front.framing import MalformedBody
from regproxy.front.handover import Connector, HandOver
from regproxy.front.limits import ClientLimits
from regproxy.front.stall import StallWatch
from regproxy.model.errors import RegistryError, unsupported
from regproxy.model.hosts import HostPort

_PIPELINED_LIMIT = 256 * 1024
"""Bytes that a client may send behind a request before that has its answer."""

_LINE_LOGGED = 1024
"""Bytes of a request line without an end that are looked at for the log."""

_LENGTH_LINE_LIMIT = 100
"""Bytes of a Content-Length line; Python refuses to read integers of thousands of digits."""


class ChannelSite(Protocol):
    """What a channel needs of the site that made it.

    Attributes:
        limits: What clients may do.
        connections: Counts them.
        reactor: Runs deadlines.
        connector: Answers CONNECT, None when nobody does.
    """

    limits: ClientLimits
    connections: Connections
    reactor: IReactorTime
    connector: Connector | None

    def not_admitted(self, channel: ClientChannel, target: bytes) -> RegistryError | None:
        """Why a client may not use the proxy, None if it may."""

    def log_refusal(self, channel: ClientChannel, line: bytes, status: int, sent: int) -> None:
        """Writes the access-log line of a request that was refused by the channel."""


class ClientRequest(Request):
    """A request that its resource sees as soon as its headers are there.

    Attributes:
        body: What follows the headers, None for a request without a body.
        channel: The client's connection.
    """

    body: RequestBody | None = None
    channel: ClientChannel

    def gotLength(self, length: int | None) -> None:
        """See Request, which would keep the body in memory or in a file."""
        self.content = BytesIO()


class ClientChannel(HTTPChannel):
    """One client's connection.

    Attributes:
        site: The site that made this channel.
        connect_target: What the CONNECT around this channel was for, None outside of one.
        arrived: The Host header of the last request and how it arrived: most clients name one.
    """

    # Twisted takes a line feed alone for a part of the line: such lines are refused here.
    delimiter = b"\n"
    requests: list[Any]
    site: ChannelSite
    connect_target: HostPort | None = None
    arrived: tuple[Any, Any] | None = None
    _body: RequestBody | None = None
    _hand_over: HandOver | None = None

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

    @cached_property
    def server_name(self) -> str | None:
        """The name in the client's TLS handshake (RFC 6066 section 3), lower-case, if any."""
        if not self.isSecure():
            return None
        connection = cast(Any, self.transport).getHandle()
        name = connection.get_servername() if connection is not None else None
        return name.decode("ascii", "replace").lower() if name else None

    def connectionMade(self) -> None:
        """See HTTPChannel."""
        self.totalHeadersSize = self.MAX_LENGTH = self.site.limits.header_size
        super().connectionMade()
        self.site.connections.idle(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See HTTPChannel."""
        if self._hand_over is not None and self._hand_over.successor is not None:
            self._hand_over.lost(reason)
            return
        self._refused = True
        self._stop_timers()
        self.site.connections.closed(self)
        super().connectionLost(reason)
        if self._body is not None:
            self._body.failed("client left")
        if self._hand_over is not None:
            self._hand_over.lost(reason)

    def dataReceived(self, data: bytes) -> None:
        """See HTTPChannel."""
        if self._hand_over is not None:
            self._hand_over.received(data)
            return
        if self._refused:
            return
        if self._in_headers:
            if not self._request_line and data[:1] == TLS_HANDSHAKE:
                # Clients that try TLS first go on to plain HTTP as soon as they are hung up on.
                self._refused = True
                self.abort()
                return
            if self._deadline is None:
                self._deadline = self.site.reactor.callLater(
                    self.site.limits.request_headers, self._headers_too_slow
                )
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """See HTTPChannel."""
        if self._refused:
            return
        if line[-1:] != b"\r":
            # RFC 9112 section 2.2 allows it; where parsers disagree about it, requests hide.
            self._request_line = self._request_line or line[:_LINE_LOGGED]
            self._answer_early(malformed("a line that ends in a bare line feed"))
            return
        line = line[:-1]
        if not self._request_line and line:
            self._request_line = line
        elif line[:1] in (b" ", b"\t"):
            # RFC 9112 section 5.2: obsolete folding is refused; parsers disagree about it.
            self._answer_early(malformed("folded header line"))
            return
        elif len(line) > _LENGTH_LINE_LIMIT and line[:15].lower() == b"content-length:":
            self._answer_early(malformed())
            return
        self._header_size += len(line)
        if self._header_size > self.totalHeadersSize:
            self._answer_early(HEADERS_TOO_LARGE)
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """See LineReceiver."""
        if not self._refused:
            self._request_line = self._request_line or line[:_LINE_LOGGED]
            self._answer_early(HEADERS_TOO_LARGE)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Twisted's answer to what it cannot parse, which has neither a body nor a log line."""
        if not self._refused:
            self._answer_early(malformed())

    def allHeadersReceived(self) -> None:
        """See HTTPChannel, which would parse cookies and tell every client to send its body."""
        self._in_headers = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.site.connections.busy(self)
        request, line = self.requests[-1], self._request_line.split(b" ")
        refused = self.site.not_admitted(self, line[1]) or refusal(
            line, request.requestHeaders, self.length
        )
        if refused is not None:
            self._answer_early(refused)
            return
        self.persistent = self.checkPersistence(request, line[2])
        if self.length != 0:
            request.body = self._body = RequestBody(
                self.transport,
                self.site.reactor,
                self.length,
                self.site.limits.body_silence,
                awaited=line[2] == b"HTTP/1.1" and expects_continue(request.requestHeaders),
            )
        # Twisted knows of no body: nothing is spooled, and the request is processed at once.
        self.length = 0
        request.gotLength(0)

    def rawDataReceived(self, data: bytes) -> None:
        """See HTTPChannel: what comes behind the headers of a request."""
        if self._hand_over is not None:
            self._hand_over.received(data)
        elif self._refused:
            return
        elif self._body is not None and not self._body.complete:
            self._body_received(self._body, data)
        else:
            # Twisted keeps what comes behind, and stops reading only while the answer flows.
            self._pipelined += len(data)
            if self._pipelined > _PIPELINED_LIMIT:
                self.abort()
            else:
                super().rawDataReceived(data)

    def _body_received(self, body: RequestBody, data: bytes) -> None:
        try:
            piece, rest = body.cut(data)
        except MalformedBody as error:
            body.failed(f"malformed body: {error}")
            self.abort()
            return
        if rest:
            self.rawDataReceived(rest)
        body.arrived(piece)

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """See HTTPChannel; an answer that comes before the end of the body is the last."""
        if self._body is not None:
            self._body.answered()
            if not self._body.complete:
                self.persistent = False
                headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    def allContentReceived(self) -> None:
        """See HTTPChannel: the headers are there, and a body may follow."""
        if self._refused:
            return
        if self._request_line.startswith(b"CONNECT "):
            self._connect()
        else:
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """See HTTPChannel: the next request has to wait until this answer is on its way."""
        if self._full:
            self._undone = request
            self._watch = StallWatch(
                self, self.site.reactor, self.site.limits.write_stall, lambda _: self.abort()
            )
            self._watch.paused()
        else:
            self._done(request)

    def _done(self, request: Any) -> None:
        self.site.connections.idle(self)
        body, self._body = self._body, None
        if body is not None and not body.complete:
            body.failed("answered before the end of its body")
            self._let_linger()
            return
        self._in_headers = True
        self._request_line = b""
        self._header_size = self._pipelined = 0
        if not self.persistent:
            # The rest of the answer, and of TLS, has a deadline too.
            self._linger = self.site.reactor.callLater(self.site.limits.write_stall, self.abort)
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
        self._linger = self.site.reactor.callLater(LINGER_SECONDS, self.abort)
        self.loseConnection()

    def _headers_too_slow(self) -> None:
        self._deadline = None
        self._answer_early(HEADERS_TOO_SLOW)

    def _answer_early(self, error: RegistryError) -> None:
        """Answers before the request is over, and closes when the client has read it."""
        self._stop_timers()
        self.setTimeout(None)
        head, body = early_answer(error)
        if self._request_line.startswith(b"HEAD "):
            body = b""
        cast(Any, self.transport).writeSequence([head, body])
        self.site.log_refusal(self, self._request_line, error.status, len(body))
        self._let_linger()

    def _let_linger(self) -> None:
        """Closes when the client has read its answer; what it still sends is thrown away."""
        self._refused = True
        # Closing at once with unread data would reset the connection before the answer is read.
        self._linger = self.site.reactor.callLater(LINGER_SECONDS, self.abort)
        cast(Any, self.transport).resumeProducing()
        if self.isSecure():
            # What is written still waits to be encrypted; this sends it, and reads on.
            self.loseConnection()
        else:
            cast(Any, self.transport).loseWriteConnection()

    def _stop_timers(self) -> None:
        for timer in (self._deadline, self._linger):
            if timer is not None and timer.active():
                timer.cancel()
        self._deadline = self._linger = None
        if self._watch is not None:
            self._watch.stop()

    def abort(self) -> None:
        """See Connection."""
        cast(Any, self.transport).abortConnection()

    def _connect(self) -> None:
        connector = self.site.connector
        if self.connect_target is not None:
            self._answer_early(malformed("a CONNECT inside a CONNECT"))
        elif connector is None:
            self._answer_early(unsupported("this proxy does not answer CONNECT"))
        else:
            self.setTimeout(None)
            self.setRawMode()
            self._hand_over = HandOver(self.transport, self._released, self._not_connected)
            target = self._request_line.split(b" ")[1].decode("latin-1")
            headers = self.requests[-1].requestHeaders
            self._hand_over.begin(maybeDeferred(connector.connect, self, target, headers))

    def _released(self) -> None:
        """Nothing of HTTP is left: deadlines and accounts are the successor's from now on."""
        self._stop_timers()
        self.requests.clear()
        self.site.connections.closed(self)
        cast(Any, self.transport).unregisterProducer()

    def _not_connected(self, error: RegistryError) -> None:
        self._hand_over = None
        self._answer_early(error)

    def __conform__(self, interface: object) -> object:
        """See zope.interface: what happens to half of the connection is the successor's."""
        if interface is IHalfCloseableProtocol and self._hand_over is not None:
            return IHalfCloseableProtocol(self._hand_over.successor, None)
        return None
