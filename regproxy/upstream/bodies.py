"""Bodies of answers: read whole within a limit, or thrown away."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IPushProducer, IReactorTime, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError, upstream_failed

_DISCARD_LIMIT = 64 * 1024
_DISCARD_SECONDS = 5.0


class TooLarge(Exception):
    """A body passed its limit."""


class _Collector(Protocol):
    """Keeps a body up to a limit, past which the connection is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._length = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        self._length += len(data)
        if self._length > self._limit:
            self._pieces.clear()
            self._stop()
            if not self.done.called:
                self.done.errback(TooLarge(f"more than {self._limit} bytes"))
            return
        self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _stop(self) -> None:
        # Only stopProducing closes a paused TLS connection at once.
        if self.transport is not None:
            cast(IPushProducer, self.transport).stopProducing()


class Tail(Protocol):
    """Hands on a body without its first bytes."""

    def __init__(self, protocol: IProtocol, skip: int) -> None:
        """Args:
        protocol: Takes the rest; while bytes are left out it gets empty pieces, for life signs.
        skip: How many bytes are left out.
        """
        self._protocol = protocol
        self._skip = skip

    def makeConnection(self, transport: ITransport) -> None:
        """See IProtocol."""
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._protocol.dataReceived(data[skipped:])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        self._protocol.connectionLost(reason)


async def read_body(response: IResponse, limit: int, deadline: Deadline, name: str) -> bytes:
    """The whole body of *response*.

    Args:
        response: An answer whose body nobody has asked for yet.
        limit: The most bytes that are accepted.
        deadline: When the body must be there.
        name: The host, for messages.

    Raises:
        RegistryError: 502 when the body is larger than *limit*, incomplete or cut; 504 when the
            deadline came first.
    """
    collector = _Collector(limit)
    length: Any = response.length
    response.deliverBody(collector)
    try:
        body = await deadline.bound(collector.done, f"{name}: body")
    except TooLarge as error:
        raise upstream_failed(f"{name}: answer of more than {limit} bytes refused") from error
    except RegistryError:
        raise
    except Exception as error:
        raise upstream_failed(f"{name}: connection cut in the middle of an answer") from error
    if length is not UNKNOWN_LENGTH and length != len(body):
        raise upstream_failed(f"{name}: answer of {len(body)} bytes where {length} were announced")
    return body


def discard_body(response: IResponse, clock: IReactorTime) -> None:
    """Lets the rest of *response* go; a short body is read, to use its connection again.

    Args:
        response: An answer whose body nobody has asked for yet.
        clock: Bounds the wait for a body that drips.
    """
    collector = _Collector(_DISCARD_LIMIT)
    collector.done.addTimeout(_DISCARD_SECONDS, clock)
    collector.done.addErrback(lambda _: None)
    response.deliverBody(collector)
