"""A limit on what an upstream sends before the body of its answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IProducer, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from regproxy.upstream.sending import Sending

HEADERS_LIMIT = 256 * 1024
"""Bytes of the header section of an answer, interim answers (1xx) before it included.

An answer that comes before the request's body is over may have no more than that as a whole.
"""


class HeadersTooLarge(Exception):
    """An upstream sent more than the limit before a body."""


class _Limited(ProtocolWrapper):
    """A client's connection whose answers must begin within the limit.

    A request goes out by a write. Where a body follows the headers, Twisted's client pauses the
    transport until somebody wants that body: from there on nothing is counted.

    Of an answer that comes before the request's body is over, Twisted's client tells only when all
    of the answer is here, or all of the body gone; so until then no pause takes effect.
    """

    def __init__(self, factory: WrappingFactory[Any], wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self._is_counting = True
        self._count = 0
        self._is_sending = False
        self._pause_is_due = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: FBT001
        """See IConsumer: a request's body is on its way from here on."""
        self._is_sending = True
        if isinstance(producer, Sending):
            producer.connected(self)
        transport: Any = self.transport
        transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See IConsumer: the body is over."""
        transport: Any = self.transport
        transport.unregisterProducer()
        self._is_sending = False
        if self._pause_is_due:
            self.pauseProducing()

    def write(self, data: bytes) -> None:
        """See ITransport."""
        self._begin()
        transport: Any = self.transport
        transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See ITransport."""
        self._begin()
        transport: Any = self.transport
        transport.writeSequence(data)

    def _begin(self) -> None:
        self._is_counting = True
        self._count = 0

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._pause_is_due = self._is_sending
        if self._pause_is_due:
            return
        self._is_counting = False
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._pause_is_due = False
        transport: Any = self.transport
        transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """See IProtocol."""
        if self._count > HEADERS_LIMIT:
            return
        self.wrappedProtocol.dataReceived(data)
        if self._is_counting:
            # Counted afterwards: the piece may have the end of the headers in it, and a body.
            self._count += len(data)
            if self._count > HEADERS_LIMIT:
                transport: Any = self.transport
                transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See IProtocol."""
        if self._count > HEADERS_LIMIT:
            reason = Failure(HeadersTooLarge(f"headers of more than {HEADERS_LIMIT} bytes"))
        wrapper: Any = super()
        wrapper.connectionLost(reason)


def limit_headers(factory: IProtocolFactory) -> WrappingFactory[Any]:
    """*factory* with the limit around each of its protocols, which are their `wrappedProtocol`."""
    limiting: WrappingFactory[Any] = WrappingFactory(factory)
    limiting.protocol = _Limited
    limiting.noisy = False
    return limiting
