"""A client of a site, in memory: one keep-alive connection on a fake clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from regproxy.testing.transport import Address, MemoryTransport
from regproxy.testing.wire import Framing, Message, MessageReader

_WITHOUT_BODY = {204, 304}

HeaderValues = Mapping[str, str | Sequence[str]]


class MemoryAnswer:
    """An answer while it arrives.

    Attributes:
        method: The request's method.
        message: What has arrived.
        disconnected: Whether the connection was closed, by whichever end, before all was there.
        aborted: Whether the server closed it so, without an orderly end (`abortConnection`).
    """

    def __init__(self, method: str) -> None:
        self.method = method
        self.disconnected = False
        self.aborted = False
        self.message = Message("", Headers())

    @property
    def status(self) -> int:
        """The status code, 0 until the headers are there."""
        return int(self.message.start_line.split(" ")[1]) if self.message.start_line else 0

    @property
    def headers(self) -> Headers:
        """The header section, empty until it is there."""
        return self.message.headers

    @property
    def body(self) -> bytes:
        """The body bytes so far, without chunks."""
        return bytes(self.message.body)

    @property
    def complete(self) -> bool:
        """Whether all of it is there, as its framing has it."""
        return self.message.complete

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


class MemoryClient:
    """One connection to a site, which may be any factory of HTTP protocols.

    `request` and the other calls that let something arrive run ``clock.advance(0)`` themselves;
    after advancing the clock, or after something else has moved, call `pump`.

    Requests may be made before earlier answers are complete: they are pipelined.

    Attributes:
        answers: All answers, in the order of their requests.
        informational: The statuses of interim answers, such as 100.
        received: The bytes that were read, framing included.
        disconnected: Whether the connection is closed, whoever closed it.
        aborted: Whether the server closed it without an orderly end (`abortConnection`).
        transport: The server's transport, for the state of its buffer and its pauses.
    """

    def __init__(
        self,
        site: IProtocolFactory,
        clock: Clock,
        *,
        host: str = "proxy.test:5000",
        peer: Address | None = None,
        reading: bool = True,
    ) -> None:
        """Connects.

        Args:
            site: Builds the server's protocol; give it *clock* as its reactor.
            clock: Runs the turns.
            host: The Host header of requests that have none of their own.
            peer: The client's address.
            reading: Whether the client reads what arrives.

        Raises:
            ConnectionRefusedError: The site builds no protocol.
        """
        peer = peer or IPv4Address("TCP", "127.0.0.1", 40001)
        self._clock = clock
        self._host = host
        self._reading = reading
        self._allowance = 0
        self._open: deque[MemoryAnswer] = deque()
        self._reader = MessageReader(self._head, lambda _: None, unframed=Framing.CLOSE)
        self.answers: list[MemoryAnswer] = []
        self.informational: list[int] = []
        self.received = 0
        self.disconnected = False
        self.aborted = False
        protocol = site.buildProtocol(peer)
        if protocol is None:
            raise ConnectionRefusedError(f"{site!r} refused {peer!r}")
        self.transport = MemoryTransport(clock, self, IPv4Address("TCP", "127.0.0.1", 5000), peer)
        self.transport.start(protocol)

    def request(
        self,
        method: str,
        target: str,
        headers: Headers | HeaderValues | None = None,
        body: bytes | None = None,
        *,
        chunks: Sequence[bytes] | None = None,
    ) -> MemoryAnswer:
        """Sends a request and runs what is due.

        The body of one that announces it in *headers* is sent with `send`, or with `send_chunk`.

        Args:
            method: Such as ``"GET"``.
            target: The request target, sent as it is; ``host:port`` for CONNECT, whose answer has
                what the tunnel sends as its body.
            headers: Sent besides Host, unless they have one, and what frames a body.
            body: Sent with its length, in one piece with the headers.
            chunks: Sent instead, each as a chunk in a piece of its own, with an end.

        Returns:
            The answer, which fills as it arrives.
        """
        fields = headers if isinstance(headers, Headers) else _headers(headers or {})
        fields = fields.copy()
        if not fields.hasHeader("Host"):
            fields.addRawHeader("Host", self._host)
        if body is not None:
            fields.addRawHeader("Content-Length", str(len(body)))
        if chunks is not None:
            fields.addRawHeader("Transfer-Encoding", "chunked")
        lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
        for name, values in fields.getAllRawHeaders():
            lines += [name + b": " + value for value in values]
        answer = self.expect(method)
        self.send(b"\r\n".join([*lines, b"", body or b""]))
        if chunks is not None:
            for chunk in chunks:
                self.send_chunk(chunk)
            self.send_chunk(b"")
        return answer

    def expect(self, method: str) -> MemoryAnswer:
        """The answer to a request that is sent with `send`, in pieces perhaps."""
        answer = MemoryAnswer(method)
        answer.disconnected, answer.aborted = self.disconnected, self.aborted
        self.answers.append(answer)
        self._open.append(answer)
        return answer

    def send(self, data: bytes) -> None:
        """Sends bytes as they are, and runs what is due.

        An answer that no `expect` waits for becomes an answer to GET in `answers`.
        """
        self.transport.deliver(data)
        self.pump()

    def send_chunk(self, data: bytes) -> None:
        """Sends a chunk of a request's body; an empty one is the last."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def pump(self) -> None:
        """Runs what is due, without letting time pass."""
        self._clock.advance(0)

    @property
    def reading(self) -> bool:
        """Whether the client reads; while it does not, the server's buffer fills."""
        return self._reading

    @reading.setter
    def reading(self, reading: bool) -> None:
        self._reading = reading
        if reading:
            self.transport.drain()
            self.pump()

    def read(self, count: int) -> None:
        """Reads *count* bytes (headers and framing count) though the client does not read."""
        self._allowance += count
        self.transport.drain()
        self.pump()

    def drop(self) -> None:
        """Hangs up, as a client does that was interrupted."""
        if not self.disconnected:
            self._ended(aborted=False)
            self.transport.hang_up(ConnectionLost())
            self.pump()

    # FarEnd

    def take(self, data: bytes) -> int:
        """Reads what the server sends."""
        count = len(data) if self._reading else min(len(data), self._allowance)
        if not self._reading:
            self._allowance -= count
        self.received += count
        self._reader.feed(data[:count])
        return count

    def resumed(self) -> None:
        """The server reads requests again; those that were sent wait in its transport."""

    def lost(self, reason: Failure) -> None:
        """The server closed the connection, or noticed that the client had."""
        if self.disconnected:
            return
        if reason.check(ConnectionDone):
            self._reader.close()
        self._ended(aborted=reason.check(ConnectionAborted) is not None)

    def _ended(self, *, aborted: bool) -> None:
        self.disconnected, self.aborted = True, aborted
        for answer in self.answers:
            if not answer.complete:
                answer.disconnected, answer.aborted = True, aborted

    def _head(self, message: Message) -> bool:
        status = int(message.start_line.split(" ")[1])
        if 100 <= status < 200:
            self.informational.append(status)
            return False
        if not self._open:
            self.expect("GET")
        answer = self._open.popleft()
        answer.message = message
        return answer.method != "HEAD" and status not in _WITHOUT_BODY


def _headers(values: HeaderValues) -> Headers:
    return Headers(
        {name: [value] if isinstance(value, str) else list(value) for name, value in values.items()}
    )
