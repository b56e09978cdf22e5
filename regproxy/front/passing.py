"""Requests that are passed on whatever they are, and their answers passed back, both streamed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from regproxy.cache.content import ContentFailed
from regproxy.deadline import Deadline
from regproxy.front.bodies import RequestBody
from regproxy.front.client import Client
from regproxy.front.relaying import Relay
from regproxy.front.stall import ClientGone
from regproxy.model.errors import RegistryError, shown, unsupported
from regproxy.model.outcome import Outcome
from regproxy.upstream.exchange import Answer
from regproxy.upstream.passing import Passage, end_to_end
from regproxy.upstream.transfer import TransferCut

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
_TARGET = re.compile(r"[!-~]+")
_WITHOUT_BODY = frozenset({204, 304})

_NOT_PASSED_UP = re.compile(
    rb"host|authorization|expect|forwarded|x[-_]forwarded[-_].*|x[-_]real[-_]ip|proxy[-_].*",
    re.IGNORECASE,
)
"""Besides what concerns the connection alone: what is written anew, and who is said to ask.

Registries build the URLs of uploads from ``X-Forwarded-Host``: a client must not choose those.
"""


Rewrite = Callable[[Answer, str], str]
"""Makes the ``Location`` of an answer one that the client can use."""


@frozen
class PassingAnswers:
    """Answers with what a destination answers to the very request.

    Attributes:
        clock: Runs deadlines.
        silence: Seconds without progress after which a body, of either direction, is given up.
        stall: Seconds in which a client must take something.
        via: This proxy in ``Via``; empty for no such header.
    """

    clock: IReactorTime
    silence: float
    stall: float
    via: str = ""

    async def answer(
        self,
        client: Client,
        target: str,
        destination: Passage,
        body: RequestBody | None,
        deadline: Deadline,
        *,
        location: Rewrite | None = None,
        heard: Callable[[int], None] | None = None,
        patience: float | None = None,
    ) -> None:
        """Passes a request on and its answer back.

        Args:
            client: Its method and headers are passed on.
            target: Path and query at the destination, or an absolute URL.
            destination: Gets the request.
            body: The request's body, None without one.
            deadline: When the answer's headers must be there, counted from the end of the body.
            location: Rewrites ``Location``; None leaves it as it is.
            heard: Told the answer's status before the client is.
            patience: Seconds for the answer from the end of a body on; by default as many as the
                deadline gives.

        Raises:
            RegistryError: 400 or 405 for what cannot be passed on; 502 or 504 when the
                destination cannot be asked.
            ContentFailed: The answer had begun and cannot be completed.
            ClientGone: Nobody is there any more.
        """
        method = _method(client)
        if _TARGET.fullmatch(target) is None:
            raise RegistryError(400, "UNSUPPORTED", f"found target {shown(target)}, expected ASCII")
        waiting = Deferred.fromCoroutine(
            destination.pass_on(
                method,
                target,
                _passed_up(client),
                body,
                client.header("authorization"),
                deadline,
                silence=self.silence,
                patience=patience,
            )
        )
        client.request.notifyFinish().addErrback(lambda _: waiting.cancel())
        try:
            answer = await waiting
        except (RegistryError, CancelledError):
            if body is not None and body.failure is not None:
                raise body.failure from None
            if client.gone:
                raise ClientGone from None
            raise
        finally:
            if body is not None:
                client.entry.received = body.received
        if heard is not None:
            heard(answer.status)
        client.check_here(answer)
        await self._pass_back(client, answer, destination.name, location)

    async def _pass_back(
        self, client: Client, answer: Answer, name: str, location: Rewrite | None
    ) -> None:
        bodiless = client.is_head or answer.status in _WITHOUT_BODY
        try:
            headers = _passed_down(answer, location)
        except RegistryError:
            answer.discard()
            raise
        if self.via:
            headers.append((b"Via", f"1.1 {self.via}".encode("ascii")))
        if bodiless:
            # The length of an answer to HEAD is a header, not the length of what follows.
            length = answer.header("Content-Length")
        else:
            length = None if answer.length is None else str(answer.length)
        client.head(answer.status, [("Content-Length", length)] if length else [], Outcome.RELAY)
        _set_headers(client, headers)
        if bodiless:
            answer.discard()
            client.finish()
            return
        client.begin()
        relay = Relay(answer, client.request, self.clock, silence=self.silence, stall=self.stall)
        try:
            await relay.deliver()
        except TransferCut as error:
            raise ContentFailed(f"{name}: {error}") from error
        finally:
            client.entry.sent += relay.sent
        client.finish()


def _method(client: Client) -> str:
    method = client.request.method.decode("latin-1")
    if _METHOD.fullmatch(method) is None:
        raise RegistryError(400, "UNSUPPORTED", f"found method {shown(method)}, expected a name")
    if method in _REFUSED_METHODS:
        raise unsupported(f"{method} is not passed on")
    return method


def _passed_up(client: Client) -> Headers:
    headers = Headers()
    pairs = [
        (name, value)
        for name, values in client.request.requestHeaders.getAllRawHeaders()
        for value in values
    ]
    for name, value in end_to_end(pairs):
        if _NOT_PASSED_UP.fullmatch(name) is None:
            headers.addRawHeader(name, value)
    return headers


def _passed_down(answer: Answer, location: Rewrite | None) -> list[tuple[bytes, bytes]]:
    headers = end_to_end(answer.raw_headers())
    if answer.elsewhere:
        # The client takes it for the registry's.
        headers = [(name, value) for name, value in headers if name.lower() != b"set-cookie"]
    if location is None:
        return headers
    return [
        (
            name,
            location(answer, value.decode("latin-1")).encode("ascii")
            if name.lower() == b"location"
            else value,
        )
        for name, value in headers
    ]


def _set_headers(client: Client, headers: list[tuple[bytes, bytes]]) -> None:
    """Adds headers byte for byte; what is the destination's comes in place of what is ours."""
    ours: Any = client.request.responseHeaders
    for name in (b"Date", b"Server"):
        if any(theirs.lower() == name.lower() for theirs, _ in headers):
            ours.removeHeader(name)
    for name, value in headers:
        ours.addRawHeader(name, value)
