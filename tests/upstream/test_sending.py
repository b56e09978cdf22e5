"""Bodies on their way upstream, and the wait for the answer to them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.upstream.sending import Sending


@implementer(IBodyProducer)
class Body:
    """A body that the test writes."""

    def __init__(self) -> None:
        self.length = UNKNOWN_LENGTH
        self.calls: list[str] = []
        self.done: Deferred[None] = Deferred()
        self.consumer: IConsumer | None = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """See IBodyProducer."""
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """See IBodyProducer."""
        self.calls.append("stop")


class Connection:
    """Takes what is written, and says whether it was aborted."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.aborted = 0

    def write(self, data: bytes) -> None:
        """See IConsumer."""
        self.taken.append(data)

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.aborted += 1


class SendingTest(SynchronousTestCase):
    """A deadline of 10 s, and 60 s for an upstream that takes nothing."""

    def setUp(self) -> None:
        """A body that nobody has asked for yet."""
        self.clock = Clock()
        self.body = Body()
        self.connection = Connection()
        self.cancelled = 0
        self.sending = Sending(self.body, self.clock, Deadline.after(self.clock, 10.0), 60.0)
        self.waiting: Deferred[str] = Deferred(self.cancel)

    def cancel(self, _: object) -> None:
        """The wait for the answer is given up."""
        self.cancelled += 1

    def start(self) -> Deferred[None]:
        """The connection is there."""
        self.sending.connected(self.connection)
        return self.sending.startProducing(self.connection)  # type: ignore[arg-type]

    def bound(self) -> Deferred[str]:
        """The wait for the answer."""
        return self.sending.bound(self.waiting, "host: PUT")

    def assert_too_slow(self, bound: Deferred[str]) -> str:
        """Asserts that the wait is over, and returns why."""
        error = self.failureResultOf(bound, RegistryError).value
        self.assertEqual((error.status, self.cancelled), (504, 1))
        return str(error.message)

    def test_never_begun(self) -> None:
        """Until the body flows the request's deadline holds."""
        bound = self.bound()
        self.clock.advance(9.9)
        self.assertNoResult(bound)
        self.clock.advance(0.1)
        self.assertIn("no answer", self.assert_too_slow(bound))

    def test_flowing(self) -> None:
        """While it flows there is no deadline, whether it began before the wait or after."""
        self.start()
        bound = self.bound()
        self.clock.advance(1000.0)
        self.assertNoResult(bound)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flows_later(self) -> None:
        """The deadline of a request that waited for its connection ends when the body flows."""
        bound = self.bound()
        self.clock.advance(9.0)
        self.start()
        self.clock.advance(1000.0)
        self.assertNoResult(bound)

    def test_paused(self) -> None:
        """An upstream that takes nothing for too long is given up; what it takes renews that."""
        self.start()
        bound = self.bound()
        for _ in range(3):
            self.sending.pauseProducing()
            self.clock.advance(59.0)
            self.sending.resumeProducing()
        self.assertNoResult(bound)
        self.sending.pauseProducing()
        self.clock.advance(60.0)
        self.assertIn("took nothing", self.assert_too_slow(bound))
        self.assertEqual(self.body.calls, ["pause", "resume"] * 3 + ["pause"])

    def test_answer_after_the_end(self) -> None:
        """From its end on the answer has as long as the deadline gave."""
        self.start()
        bound = self.bound()
        self.clock.advance(500.0)
        self.body.done.callback(None)
        self.clock.advance(9.9)
        self.assertNoResult(bound)
        self.clock.advance(0.1)
        self.assert_too_slow(bound)

    def test_answered(self) -> None:
        """An answer leaves no timer behind."""
        self.start()
        bound = self.bound()
        self.body.done.callback(None)
        self.waiting.callback("answer")
        self.assertEqual(self.successResultOf(bound), "answer")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_failures(self) -> None:
        """A failure that is no question of time is passed on."""
        bound = self.bound()
        self.waiting.errback(ZeroDivisionError())
        self.failureResultOf(bound, ZeroDivisionError)

    def test_empty_piece(self) -> None:
        """An empty piece, which would be the end of a body in chunks, is not written."""
        self.start()
        for piece in (b"a", b"", b"b"):
            self.sending.write(piece)
        self.assertEqual(self.connection.taken, [b"a", b"b"])

    def test_stop(self) -> None:
        """Half a body ends with its connection, once, and nothing of it is written any more."""
        done = self.start()
        self.sending.stop()
        self.sending.stop()
        self.sending.stopProducing()
        self.sending.write(b"late")
        self.assertEqual((self.body.calls, self.connection.aborted), (["stop"], 1))
        self.assertEqual(self.connection.taken, [])
        self.assertNoResult(done)

    def test_stop_at_the_end(self) -> None:
        """A body that is over leaves the connection to the next request."""
        done = self.start()
        self.body.done.callback(None)
        self.sending.stop()
        self.successResultOf(done)
        self.assertEqual((self.body.calls, self.connection.aborted), ([], 0))

    def test_stopped_by_the_connection(self) -> None:
        """A connection that is lost stops the body, and what that then says is nobody's concern."""
        self.start()
        self.sending.stopProducing()
        self.body.done.errback(ZeroDivisionError())
        self.assertEqual(self.body.calls, ["stop"])

    def test_broken(self) -> None:
        """A body that breaks off fails."""
        done = self.start()
        self.body.done.errback(ZeroDivisionError())
        self.failureResultOf(done, ZeroDivisionError)
