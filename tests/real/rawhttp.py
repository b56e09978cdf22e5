"""Plain HTTP exchanges whose every byte and header a test can look at."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from attrs import frozen

_PIECE = 256 * 1024
_KEPT = 1 << 20


@frozen
class Answer:
    """One response, read to its end.

    Args:
        status: the status code.
        headers: by lower-case name; repeated ones are joined with a comma.
        size: how many bytes of body came.
        digest: the digest of the body.
        body: the body's first MiB.
        first_byte: seconds from the request to the first byte of the body.
        seconds: seconds from the request to the end of the body.
    """

    status: int
    headers: Mapping[str, str]
    size: int
    digest: str
    body: bytes
    first_byte: float
    seconds: float

    def error_code(self) -> str:
        """The code of the first error in an OCI error body, or what came instead of one."""
        try:
            return str(json.loads(self.body)["errors"][0]["code"])
        except (ValueError, KeyError, IndexError, TypeError):
            return f"no OCI error: {self.body[:200]!r}"


def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
    seconds: float = 60.0,
    until: Callable[[int], bool] = lambda _: False,
) -> Answer:
    """One request on a connection of its own; a redirect is an answer like any other.

    Args:
        url: where to.
        method: the request's method.
        headers: what is sent beside Host.
        trust: whom to trust, for https.
        seconds: the longest silence.
        until: told the bytes received so far; True hangs up at once.

    Raises:
        OSError: no connection, or cut.
        http.client.HTTPException: the response was cut short.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=seconds, context=trust)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    try:
        started = time.monotonic()
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(
            method, target, headers={"Accept-Encoding": "identity", **(headers or {})}
        )
        response = connection.getresponse()
        hasher, size, body, first = hashlib.sha256(), 0, b"", 0.0
        # read1 gives what has come; read would wait for a whole piece and hide the first byte.
        while piece := response.read1(_PIECE):
            first = first or time.monotonic() - started
            hasher.update(piece)
            body += piece[: _KEPT - len(body)]
            size += len(piece)
            if until(size):
                break
        else:
            _check_length(response, size, method)
        return Answer(
            response.status,
            _joined(response),
            size,
            f"sha256:{hasher.hexdigest()}",
            body,
            first,
            time.monotonic() - started,
        )
    finally:
        connection.close()


def fetch_together(
    url: str, clients: int, *, headers: Mapping[str, str] | None = None
) -> list[Answer]:
    """The same GET by many clients at once."""
    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(fetch, url, headers=headers) for _ in range(clients)]
        return [each.result() for each in running]


def _check_length(response: http.client.HTTPResponse, size: int, method: str) -> None:
    # http.client's read1 takes a body that was cut short for a whole one.
    declared = response.getheader("Content-Length")
    bodiless = method == "HEAD" or response.status in (204, 304)
    if declared is not None and not bodiless and size != int(declared):
        raise http.client.IncompleteRead(b"", int(declared) - size)


def _joined(response: http.client.HTTPResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers
