"""One request on a connection of its own, answered as scripted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from attrs import define, evolve, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from regproxy.testing.replies import Reply, error_reply
from regproxy.testing.transport import MemoryTransport
from regproxy.testing.wire import Framing, Message, MessageReader
from regproxy.upstream.headers import limit_headers

BEFORE_HEADERS = -1
"""A place in an answer, for `Fault.cut_at` and for holding: before its first byte."""

_HERE = IPv4Address("TCP", "192.0.2.1", 40000)
_THERE = IPv4Address("TCP", "192.0.2.2", 443)
_WITHOUT_BODY = {204, 304}


@frozen(kw_only=True)
class Fault:
    """How an answer differs from what a healthy upstream sends at once.

    Offsets ``cut_at`` count the body bytes of the one answer, `flip` those of the whole content.

    Attributes:
        latency: Seconds between the request's last byte and the answer's first.
        connect_failure: Fails the connection, such as ``ConnectionRefusedError()``.
        silent: The connection stands, and nothing is ever answered.
        status: Answered in place of the content, with an OCI error as the body.
        headers: Set in the answer (a Retry-After, a Content-Encoding); None takes one away.
        body: Sent in place of the body.
        framing: How the end of the body is told; `Framing.CLOSE` and `Framing.CHUNKED` leave
            Content-Length out.
        content_length: What Content-Length says in place of the truth, in bytes.
        piece: Body bytes in each delivery.
        rate: Body bytes per second; None for as fast as they are read.
        cut_at: Body bytes after which the connection is lost, or `BEFORE_HEADERS`.
        cut_cleanly: Cuts with an orderly close where else there is a reset.
        flip: The offset of a byte that is sent wrong, wherever a range of the content has it.
        ignore_range: A request for a range gets the whole.
        answer_after: Bytes of the request's body after which the answer begins, although more of
            it may come.
        read: Bytes of the request, headers included, that are read before `read_on`.
    """

    latency: float = 0.0
    connect_failure: Exception | None = None
    silent: bool = False
    status: int | None = None
    headers: Mapping[str, str | Sequence[str] | None] = field(factory=dict)
    body: bytes | None = None
    framing: Framing = Framing.LENGTH
    content_length: int | None = None
    piece: int = 64 * 1024
    rate: float | None = None
    cut_at: int | None = None
    cut_cleanly: bool = False
    flip: int | None = None
    ignore_range: bool = False
    answer_after: int | None = None
    read: int | None = None

    def apply(self, reply: Reply) -> Reply:
        """*reply* with the status, headers and bytes that are wrong in it."""
        if self.status is not None:
            reply = error_reply(self.status, "as scripted")
        headers = {**reply.headers, **self.headers}
        kept = {name: value for name, value in headers.items() if value is not None}
        body = reply.body if self.body is None else self.body
        if self.flip is not None and 0 <= (at := self.flip - reply.start) < len(body):
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        return evolve(reply, headers=kept, body=body)


@define(eq=False)
class RecordedRequest:
    """A request that was made, and what became of it.

    Attributes:
        method: Such as ``"GET"``.
        url: As it was asked for.
        headers: As they were given to the agent; Host and Connection are not among them.
        at: When it was made, in the clock's seconds.
        body: The request's body so far, without chunks.
        whole: Whether all of the request has been read.
        status: The status that was answered, None before.
        sent: Body bytes of the answer that have been sent.
        finished: Whether the whole answer has been sent.
        cancelled: Whether the asker left before an answer had begun.
        aborted: Whether the asker left in the middle of the answer's body.
    """

    method: str
    url: str
    headers: Headers
    at: float
    body: bytes = b""
    whole: bool = False
    status: int | None = None
    sent: int = 0
    finished: bool = False
    cancelled: bool = False
    aborted: bool = False

    @property
    def path(self) -> str:
        """The URL's path."""
        return urlsplit(self.url).path

    @property
    def query(self) -> str:
        """The URL's query, without the question mark."""
        return urlsplit(self.url).query

    def header(self, name: str) -> str | None:
        """The first value of a request header, or None."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class ScriptedExchange:
    """The server's end of the connection that one request is made on."""

    def __init__(
        self,
        clock: Clock,
        request: RecordedRequest,
        fault: Fault,
        answer: Callable[[RecordedRequest, Headers], Reply],
        hold_at: Callable[[str], int | None],
    ) -> None:
        """Args:
        clock: Runs the turns, the latency and the rate.
        request: What is asked; what becomes of it is noted there.
        fault: What goes wrong.
        answer: Called with the request and its headers when the answer begins.
        hold_at: Tells for a path where an answer waits at the moment, if it does.
        """
        self._clock = clock
        self._request = request
        self._fault = fault
        self._answer = answer
        self._hold_at = hold_at
        self._transport = MemoryTransport(clock, self, _HERE, _THERE)
        self._reader = MessageReader(self._begun, self._received, unframed=Framing.LENGTH)
        self._message: Message | None = None
        self._unread = fault.read
        self._answering = False
        self._body: bytes | None = None
        self._waiting = False
        self._chunked = False
        self._cut = False
        self._step_due = False
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the connection is closed, or was never made."""
        return self._over

    # The connection, as the agent's factory of endpoints and its one endpoint.

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: D102 - the interface's
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connects in the next turn, or fails as scripted."""
        connecting: Deferred[IProtocol] = Deferred(lambda _: self._cancel_connecting())

        def connected() -> None:
            if self._fault.connect_failure is not None:
                self._over = True
                connecting.errback(self._fault.connect_failure)
                return
            limited = limit_headers(protocolFactory).buildProtocol(_THERE)
            self._transport.start(limited)
            connecting.callback(limited.wrappedProtocol)

        self._connect_call = self._clock.callLater(0, connected)
        return connecting

    def _cancel_connecting(self) -> None:
        self._connect_call.cancel()
        self._over = True
        self._request.cancelled = True

    # FarEnd

    def take(self, data: bytes) -> int:
        """Reads the request, as far as it is read at all."""
        if self._unread is not None:
            data = data[: self._unread]
            self._unread -= len(data)
        self._reader.feed(data)
        if self._message is not None:
            self._request.body = bytes(self._message.body)
            after = self._fault.answer_after
            if after is not None and len(self._message.body) >= after:
                self._answer_soon()
        return len(data)

    def resumed(self) -> None:
        """Goes on with the body."""
        if self._body is not None:
            self._step_soon()

    def lost(self, reason: Failure) -> None:
        """Notes whether the asker had everything."""
        self._over = True
        if self._cut or self._request.finished:
            return
        if self._request.status is None:
            self._request.cancelled = True
        else:
            self._request.aborted = True

    # The answer.

    def _begun(self, message: Message) -> bool:
        self._message = message
        return True

    def _received(self, message: Message) -> None:
        self._request.body = bytes(message.body)
        self._request.whole = True
        self._answer_soon()

    def _answer_soon(self) -> None:
        if not self._fault.silent and not self._answering:
            self._answering = True
            self._clock.callLater(self._fault.latency, self._begin)

    def released(self) -> None:
        """Goes on where a hold has ended, if it has."""
        if self._waiting:
            self._begin()
        else:
            self._step_soon()

    def read_on(self) -> None:
        """Reads all of the request from now on."""
        self._unread = None
        self._transport.drain()

    def _begin(self) -> None:
        """Sends the headers, unless the answer is held or cut before them."""
        if self._over:
            return
        self._waiting = self._hold_at(self._request.path) == BEFORE_HEADERS
        if self._waiting:
            return
        if self._fault.cut_at == BEFORE_HEADERS:
            self._hang_up()
            return
        headers = self._request.headers.copy()
        if self._fault.ignore_range:
            headers.removeHeader("Range")
        reply = self._fault.apply(self._answer(self._request, headers))
        self._request.status = reply.status
        self._transport.deliver(self._head(reply))
        without_body = self._request.method == "HEAD" or reply.status in _WITHOUT_BODY
        self._body = b"" if without_body else reply.body
        self._chunked = not without_body and self._fault.framing is Framing.CHUNKED
        self._step_soon()

    def _head(self, reply: Reply) -> bytes:
        try:
            phrase = HTTPStatus(reply.status).phrase
        except ValueError:
            phrase = "Scripted"
        lines = [f"HTTP/1.1 {reply.status} {phrase}"]
        for name, values in reply.headers.items():
            several = [values] if isinstance(values, str) else values
            lines += [f"{name}: {value}" for value in several]
        if reply.status not in _WITHOUT_BODY and self._fault.framing is Framing.CHUNKED:
            lines.append("Transfer-Encoding: chunked")
        elif reply.status not in _WITHOUT_BODY and self._fault.framing is Framing.LENGTH:
            told = self._fault.content_length
            lines.append(f"Content-Length: {len(reply.body) if told is None else told}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _step_soon(self, delay: float = 0.0) -> None:
        if self._body is not None and not self._step_due and not self._over:
            self._step_due = True
            self._clock.callLater(delay, self._step)

    def _step(self) -> None:
        """Sends the next piece of the body, or waits, or ends the answer."""
        self._step_due = False
        if self._over or self._body is None or not self._transport.reading:
            return  # `resumed` calls again
        sent, cut_at = self._request.sent, self._fault.cut_at
        hold_at = self._hold_at(self._request.path)
        if hold_at == BEFORE_HEADERS:
            hold_at = None  # for requests to come
        if hold_at is not None and sent >= hold_at:
            return  # `released` calls again
        stop = min(at for at in (len(self._body), cut_at, hold_at) if at is not None)
        if sent < stop:
            self._send(self._body[sent : min(stop, sent + self._fault.piece)])
        elif sent == cut_at:
            self._hang_up()
        else:
            self._finish()

    def _send(self, piece: bytes) -> None:
        self._request.sent += len(piece)
        if self._chunked:
            self._transport.deliver(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._transport.deliver(piece)
            # By its length the asker knows the end, and may leave at once.
            self._request.finished = self._request.sent == len(self._body or b"")
        self._step_soon(len(piece) / self._fault.rate if self._fault.rate else 0.0)

    def _finish(self) -> None:
        self._request.finished = True
        if self._chunked:
            self._transport.deliver(b"0\r\n\r\n")
        self._transport.hang_up(ConnectionDone())
        self._body = None

    def _hang_up(self) -> None:
        self._cut = True
        self._body = None
        reason = ConnectionDone() if self._fault.cut_cleanly else ConnectionLost()
        self._transport.hang_up(reason)
