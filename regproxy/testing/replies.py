"""Answers of scripted upstreams: their parts, and how content becomes one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen
from twisted.web.http_headers import Headers

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}


@frozen
class Reply:
    """An answer before faults.

    Attributes:
        status: The status code.
        headers: Without those that frame the body; one that comes several times has a list.
        body: The body as a GET gets it; for HEAD its length is told.
        start: Where *body* begins in the content, in bytes.
    """

    status: int
    headers: Mapping[str, str | Sequence[str]] = field(factory=dict)
    body: bytes = b""
    start: int = 0


class Responder(Protocol):
    """Whoever answers at an origin."""

    def respond(self, method: str, url: str, headers: Headers, body: bytes) -> Reply:
        """The answer to a request."""
        ...


def error_reply(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """An error as registries word it (OCI distribution spec, "Error codes").

    Args:
        status: The status code.
        message: The message in the body.
        code: The OCI code; by default the one that goes with *status*.
        headers: Sent besides Content-Type.
    """
    error = {"code": code or _CODES.get(status, "UNKNOWN"), "message": message}
    body = json.dumps({"errors": [error]}).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, body)


def content_reply(data: bytes, headers: Mapping[str, str], asked: Headers) -> Reply:
    """Content with an ETag: whole, a range of it, 304 or 416 (RFC 9110 sections 13 and 14).

    Several ranges and a failed ``If-Range`` get the whole.
    """
    etag = headers["ETag"]
    if etag in header_value(asked, "If-None-Match").replace(" ", "").split(","):
        return Reply(304, {"ETag": etag})
    headers = {**headers, "Accept-Ranges": "bytes"}
    match = _RANGE.fullmatch(header_value(asked, "Range"))
    if match is None or match[0] == "bytes=-" or header_value(asked, "If-Range") not in {"", etag}:
        return Reply(200, headers, data)
    first, last = match.groups()
    if first:
        start = int(first)
        stop = min(int(last) + 1, len(data)) if last else len(data)
    else:
        start, stop = max(0, len(data) - int(last)), len(data)
    if start >= stop:
        return Reply(416, {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Reply(206, headers, data[start:stop], start)


def header_value(headers: Headers, name: str) -> str:
    """All values of a header as one, empty without it."""
    return ",".join(headers.getRawHeaders(name) or [])
