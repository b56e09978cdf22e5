"""One HTTP exchange with an upstream through treq, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from attrs import frozen
from OpenSSL import SSL
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.web.client import (
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from regproxy import __version__
from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.upstream.bodies import Tail, discard_body, read_body
from regproxy.upstream.headers import HeadersTooLarge

_STAND_IN = "http://upstream.invalid/"
_CONTENT_ENCODING = b"content-encoding"
_HIDDEN_ENCODING = b"x-regproxy-content-encoding"
_CAUSE_LENGTH = 200
_IDENTITY = (b"identity",)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

T = TypeVar("T")


class Patience(Protocol):
    """How long an answer's headers are waited for, such as a `Deadline`."""

    def bound(self, waiting: Deferred[T], doing: str) -> Deferred[T]:
        """*waiting*, cancelled when patience ends (see `Deadline.bound`)."""


@implementer(IAgent)
class _ExactAgent:
    """Asks for one URL exactly as given, and keeps treq from touching the body.

    treq normalises URLs (which breaks signatures and bracketed IPv6 addresses) and decodes gzip
    bodies (which breaks digests); this agent sits inside it and undoes both.
    """

    def __init__(self, agent: IAgent, url: bytes, encodings: Sequence[bytes]) -> None:
        self._agent = agent
        self._url = url
        self._encodings = list(encodings)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        exact = Headers() if headers is None else headers.copy()
        if self._encodings:
            exact.setRawHeaders(b"Accept-Encoding", self._encodings)
        else:
            exact.removeHeader(b"Accept-Encoding")
        waiting = self._agent.request(method, self._url, exact, bodyProducer)
        return waiting.addCallback(self._hide_encoding)

    def _hide_encoding(self, response: IResponse) -> IResponse:
        response.headers.removeHeader(_HIDDEN_ENCODING)
        labels = response.headers.getRawHeaders(_CONTENT_ENCODING)
        if labels:
            response.headers.setRawHeaders(_HIDDEN_ENCODING, labels)
            response.headers.removeHeader(_CONTENT_ENCODING)
        return response


@frozen
class Answer:
    """What an upstream answered: headers are here, the body waits to be asked for.

    Attributes:
        url: Where the answer came from; it may be signed, so it is never logged or passed on.
        response: The answer, its body not yet delivered.
        clock: Bounds the wait for a body that nobody wants.
        elsewhere: Whether redirects led through another origin than the one that was asked.
        skip: Bytes at the body's start that were not asked for; `deliver` leaves them out.
    """

    url: str
    response: IResponse
    clock: IReactorTime
    elsewhere: bool = False
    skip: int = 0

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.response.code)

    @property
    def length(self) -> int | None:
        """Bytes to deliver as announced by ``Content-Length``, None when not announced."""
        if self.response.length is UNKNOWN_LENGTH:
            return None
        return int(cast(int, self.response.length)) - self.skip

    @property
    def host(self) -> str:
        """The host that answered, for messages."""
        return urlsplit(self.url).hostname or ""

    def header(self, name: str) -> str | None:
        """The first value of a header, or None."""
        values = self.headers(name)
        return values[0] if values else None

    def headers(self, name: str) -> list[str]:
        """All values of a header; bytes outside ASCII become U+FFFD."""
        key = _HIDDEN_ENCODING if name.lower() == "content-encoding" else name.encode("ascii")
        values = self.response.headers.getRawHeaders(key) or []
        return [value.decode("ascii", "replace") for value in values]

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """All headers as they came, save those that concern the connection alone.

        A Content-Length is among them in an answer to HEAD only: elsewhere `length` tells it.
        """
        return [
            (b"Content-Encoding" if name.lower() == _HIDDEN_ENCODING else name, value)
            for name, values in self.response.headers.getAllRawHeaders()
            for value in values
            # treq's decoder has put an empty one where ours was hidden from it.
            if name.lower() != _CONTENT_ENCODING
        ]

    def deliver(self, protocol: IProtocol) -> None:
        """Streams the body to *protocol*, whose transport can be paused and stopped."""
        self.response.deliverBody(Tail(protocol, self.skip) if self.skip else protocol)

    def discard(self) -> None:
        """Lets the body go."""
        discard_body(self.response, self.clock)

    async def read(self, limit: int, deadline: Deadline) -> bytes:
        """The whole body, at most *limit* bytes (see `read_body` for what is raised)."""
        return await read_body(self.response, limit, deadline, self.host)


class Exchange:
    """Sends single requests and knows nothing of registries, redirects or tokens."""

    def __init__(
        self,
        agent: IAgent,
        clock: IReactorTime,
        via: str = "",
        *,
        unpooled: IAgent | None = None,
    ) -> None:
        """Args:
        agent: Connects; has the pool and the trust roots.
        clock: Runs the deadlines.
        via: This proxy in ``Via`` (RFC 9110 section 7.6.3); empty for no such header.
        unpooled: Connects anew for what cannot be sent again when a kept connection turns out to
            be closed: requests with a body or with side effects. By default *agent*.
        """
        self.via = via
        self._agent = agent
        self._unpooled = unpooled or agent
        self._clock = clock

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | Headers,
        deadline: Patience,
        *,
        body: IBodyProducer | None = None,
        as_is: bool = False,
    ) -> Answer:
        """The answer's headers, whatever its status.

        Args:
            method: Such as ``"GET"``.
            url: Absolute, used byte for byte.
            headers: Sent besides Host, User-Agent, Accept-Encoding and Via.
            deadline: When the answer's headers must be there.
            body: Sent with the request, in chunks if its length is unknown.
            as_is: Whether the headers say themselves what is accepted and which program asks;
                else identity and regproxy.

        Raises:
            RegistryError: 502 when the host cannot be reached or trusted or breaks off, 504 when
                it is too slow.
        """
        host = urlsplit(url).hostname or url
        raw = Headers()
        for name, values in _pairs(headers):
            raw.setRawHeaders(name, values)
        if not as_is:
            raw.setRawHeaders("User-Agent", [f"regproxy/{__version__}"])
        if self.via:
            raw.addRawHeader("Via", f"1.1 {self.via}")
        encodings = (raw.getRawHeaders(b"Accept-Encoding") or ()) if as_is else _IDENTITY
        is_repeatable = body is None and method in _SAFE_METHODS
        agent = self._agent if is_repeatable else self._unpooled
        client = HTTPClient(_ExactAgent(agent, url.encode("ascii"), encodings))
        try:
            # A host name that IDNA does not allow is refused before there is a Deferred.
            waiting: Deferred[Any] = client.request(
                method,
                _STAND_IN,
                headers=raw,
                data=cast(Any, body),
                allow_redirects=False,
                unbuffered=True,
                reactor=cast(Any, self._clock),
            )
            response = await deadline.bound(waiting, f"{host}: {method}")
        except (RegistryError, CancelledError):
            raise
        except Exception as error:
            raise upstream_failed(f"{host} cannot be reached: {_cause(error)}") from error
        return Answer(url, response, self._clock)


def _pairs(headers: Mapping[str, str] | Headers) -> list[tuple[Any, list[Any]]]:
    """Names, each with its values."""
    if isinstance(headers, Headers):
        return [(name, list(values)) for name, values in headers.getAllRawHeaders()]
    return [(name, [value]) for name, value in headers.items()]


def one_line(text: str, length: int) -> str:
    """At most *length* printable characters of text from elsewhere, fit for a message."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]


def _cause(error: BaseException) -> str:
    """What an operator wants to read about a failed exchange, on one line."""
    if isinstance(error, ResponseNeverReceived | ResponseFailed | RequestTransmissionFailed):
        reasons = error.reasons
        if reasons:
            return _cause(reasons[0].value)
    if isinstance(error, DNSLookupError):
        return f"name not found ({error})"
    if isinstance(error, TimeoutError):
        return "connecting timed out"
    if isinstance(error, HeadersTooLarge):
        return str(error)
    if isinstance(error, ConnectionClosed):
        return "the connection was lost before an answer came"
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another name"
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "TLS: " + ", ".join(entry[-1] for entry in error.args[0])
    text = one_line(str(error), _CAUSE_LENGTH)
    if isinstance(error, ConnectError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
