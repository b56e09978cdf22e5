"""One client's request as the pipeline sees it: what it asked, and how it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.server import Request

from regproxy.front.accesslog import Entry
from regproxy.front.arrival import Arrival
from regproxy.front.bodies import RequestBody
from regproxy.front.early import PHRASES
from regproxy.front.stall import ClientGone
from regproxy.model.errors import RegistryError
from regproxy.model.outcome import Outcome
from regproxy.upstream.exchange import Answer

_SERVER = [b"regproxy"]
_PHRASES = {status: phrase.encode("ascii") for status, phrase in PHRASES.items()}

_EMPTY = {"", "basic", "basic og=="}
"""Credentials that are none; podman sends the last to a mirror for which it has no login."""


class Client:
    """A request and the answer to it.

    Attributes:
        request: Twisted's request.
        arrival: How it reached the proxy; set before anything is served.
        entry: What the access log will say.
        gone: Whether the client has hung up.
    """

    def __init__(self, request: Request, clock: IReactorTime) -> None:
        """Args:
        request: Received whole.
        clock: Measures how long the answer takes.
        """
        self.request = request
        self.arrival = Arrival("", request.uri.decode("latin-1"))
        self.gone = False
        self.finished = False
        self._clock = clock
        self._since = clock.seconds()
        # Not which version of what answers.
        request.responseHeaders.setRawHeaders(b"Server", _SERVER)
        address = request.getClientAddress()
        self.entry = Entry(
            method=request.method.decode("ascii", "replace")[:32],
            client=str(getattr(address, "host", "") or "-"),
        )
        request.notifyFinish().addErrback(self._left)

    @property
    def body(self) -> RequestBody | None:
        """The request's body, None without one."""
        body: RequestBody | None = getattr(self.request, "body", None)
        return body

    @property
    def is_head(self) -> bool:
        """Whether only the head of the answer is wanted."""
        return bool(self.request.method == b"HEAD")

    @property
    def target(self) -> str:
        """The path and query that are asked for, as they came."""
        return self.arrival.target

    def header(self, name: str) -> str | None:
        """The first value of a request header, None without it."""
        values = self.headers(name)
        return values[0] if values else None

    def headers(self, name: str) -> Sequence[str]:
        """All values of a request header."""
        # By a name in bytes the values are bytes: Twisted's own decoding fails on what is no UTF-8.
        values = self.request.requestHeaders.getRawHeaders(name.encode("ascii")) or []
        return [value.decode("latin-1") for value in values]

    @property
    def authorization(self) -> str | None:
        """The credential that the client brought, None without one."""
        value = self.header("authorization")
        if value is None or value.strip().lower() in _EMPTY:
            return None
        return value

    def matches(self, etag: str) -> bool:
        """Whether ``If-None-Match`` names *etag* (RFC 9110 section 13.1.2, weak comparison)."""
        for value in self.headers("if-none-match"):
            for candidate in map(str.strip, value.split(",")):
                if candidate == "*" or candidate.removeprefix("W/") == etag:
                    return True
        return False

    def head(
        self, status: int, headers: Sequence[tuple[str, str]], outcome: Outcome | None
    ) -> None:
        """Sets the status and headers of the answer.

        Args:
            status: The status code.
            headers: Names and values; a name may come several times.
            outcome: How the request is served, for the log and ``Cache-Status``.
        """
        request = self.request
        request.setResponseCode(status, _PHRASES.get(status))
        add = request.responseHeaders.addRawHeader
        request.responseHeaders.removeHeader("Content-Type")
        for name, value in headers:
            add(name, value)
        if outcome is not None:
            self.entry.outcome = outcome.value
            said = outcome.cache_status
            # HEAD stores nothing (RFC 9211 section 2.5).
            add("Cache-Status", said.removesuffix("; stored") if self.is_head else said)

    def begin(self) -> None:
        """Sends the head now: the first byte of the body may be long in coming."""
        self.request.write(b"")

    def finish(self, body: bytes = b"") -> None:
        """Ends the answer, with *body* as all or the last of it."""
        if self.gone or self.finished:
            return
        self.finished = True
        if body and not self.is_head:
            self.entry.sent += len(body)
            self.request.write(body)
        self.request.finish()

    def refuse(self, error: RegistryError) -> None:
        """Answers with an error; one that comes after the headers can only cut the connection."""
        if self.gone or self.finished:
            return
        if self.request.startedWriting:
            self.cut(error.message)
            return
        body = error.body()
        headers = [
            *error.headers,
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        self.head(error.status, headers, None)
        self.finish(body)

    def cut(self, why: str) -> None:
        """Ends the connection so that what was sent cannot pass for a whole answer."""
        self.entry.note = " ".join(why.split())[:200]
        if not self.gone:
            transport: Any = self.request.transport
            transport.abortConnection()

    def described(self) -> Entry:
        """What the access log says once the answer is over."""
        self.entry.status = self.request.code if self.request.startedWriting else 0
        if self.gone and not self.finished and not self.entry.note:
            self.entry.note = "client left"
        self.entry.seconds = self._clock.seconds() - self._since
        return self.entry

    def _left(self, _: Failure) -> None:
        self.gone = True

    def check_here(self, answer: Answer | None = None) -> None:
        """Raises `ClientGone` if nobody waits for the answer any more.

        Args:
            answer: Upstream's, let go of in that case.
        """
        if self.gone:
            if answer is not None:
                answer.discard()
            raise ClientGone
