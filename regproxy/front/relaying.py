"""Bodies that pass through without the cache: checked against a digest where one is known."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.cache.content import ContentFailed
from regproxy.front.delivery import Consumer
from regproxy.front.stall import ClientGone, StallWatch
from regproxy.model.digest import Digest, Hasher
from regproxy.upstream.exchange import Answer
from regproxy.upstream.transfer import Transfer

_log = Logger()


@define
class Check:
    """What a relayed body must hash to.

    Attributes:
        digest: Of the whole content.
        hasher: Holds the hash of the content up to where the relay starts; belongs to the relay.
        size: The content's size in bytes, None while unknown.
    """

    digest: Digest
    hasher: Hasher
    size: int | None


@implementer(IPushProducer)
class Relay:
    """Sends what upstream sends to one client, at the client's pace.

    With a check the last byte is held back until the digest is right, as in a fill.

    Attributes:
        sent: Bytes handed to the client.
    """

    def __init__(
        self,
        answer: Answer,
        consumer: Consumer,
        clock: IReactorTime,
        *,
        silence: float,
        stall: float,
        offset: int = 0,
        window: tuple[int, int | None] = (0, None),
        check: Check | None = None,
    ) -> None:
        """Args:
        answer: Upstream's answer, its body not yet asked for.
        consumer: The client's request, its headers already set.
        clock: Runs deadlines.
        silence: Seconds without a byte from upstream after which it counts as cut.
        stall: Seconds in which the client must take something.
        offset: Where in the content upstream's first byte is.
        window: The first byte of the content that the client wants, and behind the last one;
            None for the end.
        check: What the content must hash to.
        """
        self.sent = 0
        self._answer = answer
        self._consumer = consumer
        self._position = offset
        self._start, self._stop = window
        length = answer.length
        # Leaving at the very end would cost upstream's connection.
        self._ends_early = self._stop is not None and (
            length is None or self._stop < offset + length
        )
        self._check = check
        self._held = b""
        self._over = False
        self._transfer = Transfer(self._take, clock, silence)
        self._watch = StallWatch(consumer, clock, stall, self._gone)
        self._done: Deferred[None] = Deferred()

    def deliver(self) -> Deferred[None]:
        """Starts; fires when the last byte has been handed over.

        Returns:
            A Deferred that fails with `ClientGone`, `ContentFailed` or `TransferCut`.
        """
        self._consumer.registerProducer(self, True)
        self._transfer.done.addCallbacks(self._whole, self._end)
        self._answer.deliver(self._transfer)
        return self._done

    def pauseProducing(self) -> None:
        """See IPushProducer: the client's buffers are full."""
        self._watch.paused()
        self._transfer.pause()

    def resumeProducing(self) -> None:
        """See IPushProducer: the client takes more."""
        self._watch.resumed()
        self._transfer.resume()

    def stopProducing(self) -> None:
        """See IPushProducer: the client has gone."""
        self._gone(ClientGone())

    def _gone(self, gone: ClientGone) -> None:
        self._end(Failure(gone))

    def _take(self, data: bytes) -> None:
        offset, self._position = self._position, self._position + len(data)
        if self._check is not None:
            if self._check.size is not None and self._position > self._check.size:
                raise ContentFailed("upstream sent more bytes than it announced")
            self._check.hasher.update(data)
        stop = self._position if self._stop is None else min(self._stop, self._position)
        wanted = data[max(0, self._start - offset) : max(0, stop - offset)]
        if self._check is not None and wanted and stop == self._check.size:
            wanted, self._held = wanted[:-1], wanted[-1:]
        self._send(wanted)
        if self._ends_early and stop == self._stop and not self._held:
            # A range is there; what upstream sends behind it is nobody's.
            self._end(None)

    def _send(self, data: bytes) -> None:
        if data and not self._over:
            self.sent += len(data)
            self._consumer.write(data)

    def _whole(self, _: None) -> None:
        check = self._check
        if check is not None:
            short = check.size is not None and self._position != check.size
            actual = check.hasher.hexdigest()
            if short or actual != check.digest.hex:
                said = f"upstream sent {check.digest.algorithm}:{actual} for {check.digest}"
                _log.error("{said}, its client is cut off", said=said)
                self._end(Failure(ContentFailed(said)))
                return
        self._send(self._held)
        self._end(None)

    def _end(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        self._watch.stop()
        self._consumer.unregisterProducer()
        self._transfer.abort()
        if failure is None:
            self._done.callback(None)
        else:
            self._done.errback(failure)
