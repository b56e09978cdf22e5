"""Delivery: one producer sends a part of a content to a client as it becomes available."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorFDSet, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.cache.content import Content
from regproxy.cache.reading import FileReader
from regproxy.front.direct import DirectSocket, direct_socket
from regproxy.front.stall import ClientGone, StallWatch

_PIECE = 112 * 1024
"""As many whole TLS records as fit, encrypted, into one of the transport's writes of 128 KiB."""

_PIECE_CROWDED = 64 * 1024
_DIRECT_PIECE = 1024 * 1024
_STEPS = 16
"""Pieces in one turn of the reactor; a transport that takes more is closing, or memory."""

_CROWD = 96
"""Deliveries at once from which on each gets smaller pieces, so that memory stays bounded."""


class Consumer(Protocol):
    """The part of a request that a delivery writes to."""

    @property
    def transport(self) -> Any:
        """The client's transport."""

    def write(self, data: bytes, /) -> None:
        """Sends more of the body."""

    def registerProducer(self, producer: IPushProducer, streaming: bool, /) -> None:  # noqa: FBT001  # IConsumer's
        """Takes a producer to pause and resume."""

    def unregisterProducer(self) -> None:
        """The producer is done."""


@define
class Deliveries:
    """All deliveries: what they share, and how many of them run.

    Attributes:
        reader: Reads the files of contents.
        clock: Runs the write-stall deadline.
        stall: Seconds in which a client must take something.
        descriptors: Watches sockets that are sent to directly; None sends through transports.
        running: How many there are now.
    """

    reader: FileReader
    clock: IReactorTime
    stall: float
    descriptors: IReactorFDSet | None = None
    running: int = field(default=0, init=False)

    @property
    def piece(self) -> int:
        """Bytes that one delivery hands to its client at a time."""
        return _PIECE if self.running <= _CROWD else _PIECE_CROWDED


@implementer(IPushProducer)
class Delivery:
    """Sends ``content[start:stop]``; a hit, a join and a range are the same to it.

    Attributes:
        sent: Bytes handed to the client so far.
    """

    def __init__(
        self,
        content: Content,
        start: int,
        stop: int | None,
        consumer: Consumer,
        deliveries: Deliveries,
    ) -> None:
        """Args:
        content: What is sent.
        start: Its first byte.
        stop: Behind its last byte; None for its end, wherever that will be.
        consumer: The client's request, its headers already set.
        deliveries: What it shares with others.
        """
        self.sent = 0
        self._content = content
        self._position = start
        self._stop = stop
        self._consumer = consumer
        self._deliveries = deliveries
        self._file = content.open()
        self._paused = False
        self._busy = False
        self._direct: DirectSocket | None = None
        self._loaded = 0
        self._waiting: Deferred[None] | None = None
        self._over = False
        self._watch = StallWatch(consumer, deliveries.clock, deliveries.stall, self._stalled)
        self._done: Deferred[None] = Deferred()

    def deliver(self) -> Deferred[None]:
        """Starts; fires when the last byte has been handed over.

        Returns:
            A Deferred that fails with `ClientGone`, with `ContentFailed` when the content will
            never be whole (everything good of it has been sent), or with OSError when its file
            cannot be read.
        """
        self._deliveries.running += 1
        self._consumer.registerProducer(self, True)
        self._go()
        return self._done

    def pauseProducing(self) -> None:
        """See IPushProducer: the client's buffers are full."""
        self._paused = True
        self._watch.paused()

    def resumeProducing(self) -> None:
        """See IPushProducer: all that was written has been sent, and the client takes more."""
        # Without a known end the body is chunked, and chunks are the request's to frame.
        if self._direct is None and self._stop is not None and not self._over:
            self._direct = direct_socket(
                self._deliveries.descriptors, self._consumer.transport, self._writable
            )
        self._writable()

    def _writable(self) -> None:
        self._paused = False
        self._watch.resumed()
        if not self._busy:
            self._go()

    def stopProducing(self) -> None:
        """See IPushProducer: the client has gone."""
        self._end(Failure(ClientGone()))

    def _go(self) -> None:
        """Sends pieces until the client is full, the content is not there yet, or it is the end."""
        self._busy = True
        try:
            for _ in range(_STEPS):
                if self._over or self._paused or self._waiting is not None:
                    return
                self._step()
        finally:
            self._busy = False
        # No live transport takes so much without a pause.
        if _is_closing(self._consumer.transport):
            self._end(Failure(ClientGone("hung up")))
        elif not self._over and not self._paused and self._waiting is None:
            self._deliveries.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if not self._busy and not self._over:
            self._go()

    def _step(self) -> None:
        stop = self._stop if self._stop is not None else self._end_of_content()
        if stop is not None and self._position >= stop:
            self._end(None)
            return
        ready = self._content.available(self._position)
        if stop is not None:
            ready = min(ready, stop - self._position)
        if not ready:
            if self._direct is not None:
                self._direct.rest()
            self._await(self._content.wait(self._position))
            return
        if self._direct is not None:
            self._step_direct(self._direct, min(ready, _DIRECT_PIECE))
            return
        try:
            piece = self._deliveries.reader.read(
                self._file, self._position, min(ready, self._deliveries.piece)
            )
        except OSError:
            self._end(Failure())
            return
        if isinstance(piece, bytes):
            self._send(piece)
        else:
            self._await(piece.addCallback(self._send))

    def _step_direct(self, direct: DirectSocket, length: int) -> None:
        """Sends one piece past the transport, and no more before the reactor has looked around."""
        try:
            loading = None
            if self._position >= self._loaded:
                loading = self._deliveries.reader.load(self._file, self._position, length)
            if loading is not None:
                # Once read it is sent, even if the page cache has let go of it again.
                self._loaded = self._position + length
                direct.rest()
                self._await(loading)
                return
            count = direct.send(self._file.descriptor, self._position, length)
        except (BrokenPipeError, ConnectionResetError):
            self._end(Failure(ClientGone()))
            return
        except OSError:
            self._end(Failure())
            return
        if count == 0:
            self._end(Failure(OSError("the file is shorter than the content")))
            return
        if count is not None:
            self._position += count
            self.sent += count
        if self._position == self._stop:
            # Now, and not a turn later, when the client may have hung up on its whole blob.
            self._end(None)
            return
        self._paused = True
        self._watch.paused()
        direct.await_writable()

    def _end_of_content(self) -> int | None:
        """Where a content of unknown size ends, None while that is open."""
        size = self._content.size
        return size if size is not None and self._content.available(size - 1) > 0 else None

    def _send(self, piece: bytes) -> None:
        if self._over:
            return
        if not piece:
            self._end(Failure(OSError("the file is shorter than the content")))
            return
        self._position += len(piece)
        self.sent += len(piece)
        self._consumer.write(piece)

    def _await(self, waiting: Deferred[None]) -> None:
        self._waiting = waiting

        def arrived(_: None) -> None:
            self._waiting = None
            if not self._busy and not self._paused:
                self._go()

        def failed(failure: Failure) -> None:
            self._waiting = None
            self._end(failure)

        waiting.addCallbacks(arrived, failed)

    def _stalled(self, gone: ClientGone) -> None:
        self._end(Failure(gone))

    def _end(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._deliveries.running -= 1
        self._watch.stop()
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.addErrback(lambda _: None)
            waiting.cancel()
        if self._direct is not None:
            self._direct.close()
        self._consumer.unregisterProducer()
        self._file.close()
        if failure is None:
            self._done.callback(None)
        else:
            self._done.errback(failure)


def _is_closing(transport: Any) -> bool:
    """Whether a transport takes bytes only to throw them away.

    A TLS client that has said goodbye and keeps its connection open leaves Twisted's transport
    resuming its producer, and dropping what that writes.
    """
    # TLS wraps the transport that has the socket.
    return any(
        getattr(each, "disconnecting", False)
        for each in (transport, getattr(transport, "transport", None))
    )
