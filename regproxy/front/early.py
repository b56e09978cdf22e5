"""What a connection says by itself: answers to requests that never reach a resource."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from twisted.web.http_headers import Headers

from regproxy.model.errors import RegistryError, body_too_large, unsupported

TLS_HANDSHAKE = b"\x16"
"""The first byte of a ClientHello (RFC 8446 section 5.1); no HTTP request starts with it."""

LINGER_SECONDS = 3.0
"""How long what a refused client still sends is thrown away, so that it can read the refusal."""

HEADERS_TOO_LARGE = RegistryError(431, "UNSUPPORTED", "the request's headers are too large")
HEADERS_TOO_SLOW = RegistryError(
    408, "UNSUPPORTED", "the request's headers took too long to arrive"
)
UNEXPECTED = RegistryError(500, "UNKNOWN", "regproxy has a bug; its log has the traceback")

PHRASES = {status.value: status.phrase for status in HTTPStatus}
"""What a status is called; Twisted does not know them all."""


def malformed(message: str = "malformed request") -> RegistryError:
    """400: the request is broken, or parsers disagree about what it says."""
    return RegistryError(400, "UNSUPPORTED", message)


def early_answer(error: RegistryError) -> tuple[bytes, bytes]:
    """The head and the body of an answer that is the last on its connection.

    Args:
        error: What is answered.
    """
    body = error.body()
    lines = [f"HTTP/1.1 {error.status} {PHRASES.get(error.status, 'Refused')}"]
    lines += [f"{name}: {value}" for name, value in error.headers]
    lines += [
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), body


def refusal(line: Sequence[bytes], headers: Headers, length: int | None) -> RegistryError | None:
    """Why a request is not processed whose headers are there, None if it is.

    Args:
        line: The request line's method, target and version, ``HTTP/1.0`` or ``HTTP/1.1``.
        headers: The request's.
        length: Bytes of the body, None for chunks.
    """
    method, target, version = line
    if target == b"*":
        # Twisted would answer OPTIONS * by itself.
        return unsupported("nothing but pulls is served here")
    codings = headers.getRawHeaders(b"Transfer-Encoding")
    # RFC 9112 section 6.1; Twisted knows chunked, and passes over identity.
    if codings and (len(codings) > 1 or length is not None or version != b"HTTP/1.1"):
        return malformed("a transfer coding that is not chunked, or not in HTTP/1.1")
    hosts = len(headers.getRawHeaders(b"Host") or ())
    # RFC 9112 section 3.2: exactly one, unless the client is older than HTTP/1.1.
    if hosts > 1 or (not hosts and version == b"HTTP/1.1"):
        return malformed(f"found {hosts} Host headers")
    # RFC 9112 section 6.3: a body is there if either header says so.
    if length != 0 and method in (b"GET", b"HEAD"):
        return body_too_large("a request for content has no body")
    if length != 0 and method == b"CONNECT":
        return malformed("a CONNECT with a body")
    return None
