"""What tests of a registry's upstream have in common: everything but the sockets."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.access.tokens import AnonymousTokens
from regproxy.deadline import Deadline
from regproxy.model.errors import RegistryError
from regproxy.testing import RecordedRequest, ScriptedUpstream
from regproxy.testing.exchange import ScriptedExchange
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Answer, Exchange

T = TypeVar("T")

REGISTRY = "https://registry.test"
STORAGE = "https://storage.test"
REPOSITORY = "team/app"
DATA = bytes(range(256)) * 400
SECONDS = 25.0
"""Until the headers of an answer must be there."""


class UpstreamCase(SynchronousTestCase):
    """A registry with one blob, and the proxy's way to it.

    Attributes:
        clock: Stands still.
        scripted: Has the registry.
        exchange: Sends single requests.
        upstream: The registry as the proxy asks it.
        digest: The blob's.
        blob: The path of the blob.
    """

    def setUp(self) -> None:
        """Puts `DATA` into `REPOSITORY`."""
        self.clock = Clock()
        # Tokens are dated by the calendar.
        self.clock.advance(1_790_000_000)
        self.scripted = ScriptedUpstream(self.clock)
        self.digest = self.scripted.add_blob(REGISTRY, REPOSITORY, DATA)
        self.blob = f"/v2/{REPOSITORY}/blobs/{self.digest}"
        self.exchange = Exchange(self.scripted, self.clock)
        self.upstream = self.make_upstream(REGISTRY)

    def make_upstream(self, origin: str, connections: int = 4) -> Upstream:
        """A registry named ``registry.test`` at *origin*, with tokens of its own."""
        tokens = AnonymousTokens(self.exchange, self.clock, origin, SECONDS)
        return Upstream(
            "registry.test",
            origin,
            self.exchange,
            tokens,
            self.clock,
            connections=connections,
            headers_timeout=SECONDS,
        )

    def deadline(self, seconds: float = SECONDS) -> Deadline:
        """A deadline from now on."""
        return Deadline.after(self.clock, seconds)

    def start(self, asking: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begins, and runs what is due."""
        waiting = Deferred.fromCoroutine(asking)
        self.clock.advance(0)
        return waiting

    def result(self, asking: Coroutine[Deferred[Any], Any, T]) -> T:
        """What comes of it without time passing."""
        return self.successResultOf(self.start(asking))

    def refused(self, asking: Coroutine[Deferred[Any], Any, T]) -> RegistryError:
        """The refusal that comes of it without time passing."""
        return self.error(self.start(asking))

    def error(self, waiting: Deferred[T]) -> RegistryError:
        """The refusal that has come, whose message is one line."""
        error = self.failureResultOf(waiting, RegistryError).value
        assert isinstance(error, RegistryError)
        self.assertTrue(error.message.isprintable(), repr(error.message))
        self.assertLess(len(error.message), 500)
        return error

    def send(
        self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """The answer to a single request, which is there at once."""
        return self.result(self.exchange.send(method, url, headers or {}, self.deadline()))

    def get_blob(self, start: int = 0) -> Answer:
        """The blob's answer, which is there at once."""
        return self.result(self.upstream.get_blob(REPOSITORY, self.digest, start, self.deadline()))

    def blob_refused(self) -> RegistryError:
        """The refusal that asking for the blob gets at once."""
        return self.refused(self.upstream.get_blob(REPOSITORY, self.digest, 0, self.deadline()))

    def read(self, answer: Answer) -> bytes:
        """The whole body, which is there at once."""
        return self.result(answer.read(1 << 20, self.deadline()))

    @property
    def urls(self) -> list[str]:
        """Everything that was asked for, in order."""
        return [request.url for request in self.scripted.requests]

    @property
    def last(self) -> RecordedRequest:
        """The newest request."""
        return self.scripted.requests[-1]

    def assert_nothing_left(self) -> None:
        """No answer lies about unread, and no timer runs but the script's own."""
        self.clock.advance(0)
        self.assertEqual(self.scripted.connections, 0)
        calls: list[Any] = list(self.clock.getDelayedCalls())
        timers = [
            call
            for call in calls
            if not isinstance(getattr(call.func, "__self__", None), ScriptedExchange)
        ]
        self.assertEqual(timers, [])
