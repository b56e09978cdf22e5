"""Where the body of a request ends in the bytes that a client sends (RFC 9112 sections 6 and 7)."""

from __future__ import annotations

import re
from typing import Protocol

_LINE_LIMIT = 1024
"""Bytes of a chunk's size with its extensions, or of a trailer."""

_TRAILERS_LIMIT = 16 * 1024
"""Bytes of all trailers; they are dropped."""

# Fifteen digits are more bytes than anyone sends, and no integer of absurd size.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?")


class MalformedBody(Exception):
    """Bytes that are not framed as RFC 9112 section 7.1 has it."""


class Framing(Protocol):
    """Finds the end of a body."""

    def cut(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Takes the framing off the next bytes of a connection.

        Args:
            data: The bytes.

        Returns:
            What belongs to the body, and the bytes behind its end, None while it goes on.

        Raises:
            MalformedBody: The framing is broken.
        """
        ...


class CountedFraming:
    """A body whose length is announced (RFC 9112 section 6.2)."""

    def __init__(self, length: int) -> None:
        """Args:
        length: Bytes, at least 1.
        """
        self._left = length

    def cut(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See Framing."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, None
        body, rest = data[: self._left], data[self._left :]
        self._left = 0
        return body, rest


class ChunkedFraming:
    """A body in chunks (RFC 9112 section 7.1), read without any of the leniency that is allowed."""

    def __init__(self) -> None:
        self._line = b""
        self._left = 0
        self._in_chunk = self._in_trailers = False
        self._trailers = 0

    def cut(self, data: bytes) -> tuple[bytes, bytes | None]:
        """See Framing."""
        data, self._line = self._line + data, b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            if self._left:
                pieces.append(data[at : at + self._left])
                at += len(pieces[-1])
                self._left -= len(pieces[-1])
                continue
            end = data.find(b"\n", at) + 1
            if not end:
                self._line = data[at:]
                if len(self._line) > _LINE_LIMIT:
                    raise MalformedBody("a line between chunks is too long")
                break
            if self._ends_with(data[at:end]):
                return b"".join(pieces), data[end:]
            at = end
        return b"".join(pieces), None

    def _ends_with(self, line: bytes) -> bool:
        """Whether a line between chunks is the last of the body."""
        if len(line) > _LINE_LIMIT:
            raise MalformedBody("a line between chunks is too long")
        # A line feed alone ends lines for some parsers and not for others: a way to smuggle.
        if line[-2:] != b"\r\n":
            raise MalformedBody("a bare line feed between chunks")
        line = line[:-2]
        if self._in_trailers:
            self._trailers += len(line)
            if self._trailers > _TRAILERS_LIMIT:
                raise MalformedBody("the trailers are too large")
            return not line
        if self._in_chunk:
            if line:
                raise MalformedBody("a chunk is longer than its size")
            self._in_chunk = False
            return False
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise MalformedBody("a chunk has no size")
        self._left = int(size[1], 16)
        self._in_chunk = bool(self._left)
        self._in_trailers = not self._left
        return False
