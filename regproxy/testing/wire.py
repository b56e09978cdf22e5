"""HTTP/1.1 messages read off a stream of bytes, as strictly as a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from attrs import define, field
from twisted.web.http_headers import Headers


class Framing(StrEnum):
    """How the end of a body is known (RFC 9112 section 6.3)."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class MalformedMessage(Exception):
    """Bytes that are no HTTP/1.1 message."""


@define
class Message:
    """A request or a response while it arrives.

    Attributes:
        start_line: The request line or status line.
        headers: The header section; trailers are dropped.
        body: The bytes so far, without their framing.
        complete: Whether the framing says that this is all.
    """

    start_line: str
    headers: Headers
    body: bytearray = field(factory=bytearray)
    complete: bool = False


class MessageReader:
    """Cuts a stream of bytes into messages."""

    def __init__(
        self,
        on_head: Callable[[Message], bool],
        on_complete: Callable[[Message], None],
        *,
        unframed: Framing,
    ) -> None:
        """Args:
        on_head: Called with each message when its headers are there; says whether a body can
            follow (none does after HEAD, 204 or 304, whatever the headers say).
        on_complete: Called with each message when all of it is there.
        unframed: What a body is that names neither a length nor chunks: `Framing.LENGTH` (of 0)
            in requests, `Framing.CLOSE` in responses.
        """
        self._on_head = on_head
        self._on_complete = on_complete
        self._unframed = unframed
        self._buffer = bytearray()
        self._left = 0
        self._message: Message | None = None
        # Takes something off the buffer, or returns False when there is too little in it.
        self._step: Callable[[], bool] = self._head

    def feed(self, data: bytes) -> None:
        """Reads *data*, which may end anywhere.

        Raises:
            MalformedMessage: The framing is broken.
        """
        self._buffer += data
        while self._step():
            pass

    def close(self) -> None:
        """The stream ended cleanly, which completes a body that only the end can frame."""
        if self._step == self._until_close:
            self._complete()

    def _take_line(self, end: bytes = b"\r\n") -> bytes | None:
        stop = self._buffer.find(end)
        if stop < 0:
            return None
        line = bytes(self._buffer[:stop])
        del self._buffer[: stop + len(end)]
        return line

    def _head(self) -> bool:
        head = self._take_line(b"\r\n\r\n")
        if head is None:
            return False
        start_line, *lines = head.split(b"\r\n")
        message = Message(start_line.decode("latin-1"), Headers())
        if "HTTP/1." not in message.start_line:
            raise MalformedMessage(f"start line: {message.start_line!r}")
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise MalformedMessage(f"header line: {line!r}")
            message.headers.addRawHeader(name, value.strip())
        self._message = message
        self._begin_body(self._on_head(message))
        return True

    def _begin_body(self, expected: bool) -> None:  # noqa: FBT001 - what on_head said
        headers = self._current.headers
        length = headers.getRawHeaders(b"content-length")
        if not expected:
            self._complete()
        elif headers.hasHeader(b"transfer-encoding"):
            if length is not None:
                raise MalformedMessage("both a length and chunks")
            self._step = self._chunk_size
        elif length is not None:
            if len(length) != 1 or not length[0].isdigit():
                raise MalformedMessage(f"Content-Length: {length!r}")
            self._begin_length(int(length[0]))
        elif self._unframed is Framing.LENGTH:
            self._begin_length(0)
        else:
            self._step = self._until_close

    def _begin_length(self, length: int) -> None:
        if length == 0:
            self._complete()
            return
        self._left = length
        self._step = self._counted

    def _counted(self) -> bool:
        if not self._take_counted():
            return False
        if self._left == 0:
            self._complete()
        return True

    def _take_counted(self) -> bool:
        piece = self._buffer[: self._left]
        del self._buffer[: self._left]
        self._current.body += piece
        self._left -= len(piece)
        return bool(piece)

    def _until_close(self) -> bool:
        self._current.body += self._buffer
        self._buffer.clear()
        return False

    def _chunk_size(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        try:
            self._left = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise MalformedMessage(f"chunk size: {line!r}") from error
        self._step = self._chunk if self._left else self._trailers
        return True

    def _chunk(self) -> bool:
        if self._left:
            return self._take_counted()
        if len(self._buffer) < len(b"\r\n"):
            return False
        if self._take_line() != b"":
            raise MalformedMessage("a chunk longer than its size")
        self._step = self._chunk_size
        return True

    def _trailers(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        if not line:
            self._complete()
        return True

    @property
    def _current(self) -> Message:
        if self._message is None:
            raise MalformedMessage("a body before any headers")
        return self._message

    def _complete(self) -> None:
        message = self._current
        message.complete = True
        self._message = None
        self._step = self._head
        self._on_complete(message)
