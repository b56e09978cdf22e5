"""Freshness in any order of events, against a model of its rules."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.index import Index
from regproxy.cache.manifests import Manifests, ServedManifest
from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.model.outcome import Outcome
from regproxy.testing import Fault, ImmediateWorker, ScriptedUpstream
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Exchange
from tests.cache.upstreams import LIMIT, NAME, ORIGIN, REPOSITORY, NoCredentials, image

TTL, STALE_IF_ERROR, PAUSE = 300.0, 1000.0, 30.0
RULES = FreshnessRules(tag_ttl=TTL, stale_if_error=STALE_IF_ERROR, revalidate=3.0)
IMAGES = {Digest.of(image(bytes([n]))): image(bytes([n])) for n in range(3)}
DIGESTS = list(IMAGES)

FAULTS = {
    "refused": Fault(connect_failure=ConnectionRefusedError()),
    "500": Fault(status=500),
    "429": Fault(status=429),
    "404": Fault(status=404),
    "401": Fault(status=401),
    "silent": Fault(silent=True),
}
BELIEVED = {"404": 404, "401": 401}


class FreshnessMachine(RuleBasedStateMachine):
    """One tag, upstream's changes and troubles, and a client that asks at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.agent = ScriptedUpstream(self.clock)
        self.agent.add_blob(ORIGIN, REPOSITORY, b"")
        self.upstream = Upstream(
            NAME,
            ORIGIN,
            Exchange(self.agent, self.clock),
            NoCredentials(),
            self.clock,
            connections=2,
            headers_timeout=25.0,
        )
        self.store = Store(self.directory)
        self.store.prepare()
        self.index = Index(self.directory / "index.sqlite", self.clock, ImmediateWorker())
        self.index.open()
        self.restart()
        # The model: what upstream has, and what the proxy must have learnt.
        self.there: Digest | None = None
        self.push(DIGESTS[0])
        self.fault = ""
        self.known: Digest | None = None
        self.verified = 0.0
        self.told: tuple[Digest, float] | None = None
        self.kept: set[Digest] = set()
        self.retry_at = 0.0
        self.methods: list[str] | None = None

    def teardown(self) -> None:
        """Closes the index."""
        self.index.close()
        shutil.rmtree(self.directory)

    @rule()
    def restart(self) -> None:
        """Nothing is in memory any more, except that upstream was in trouble."""
        self.manifests = Manifests(
            self.store,
            self.index,
            self.clock,
            ImmediateWorker(),
            FileReader(ImmediateWorker()),
            LIMIT,
        )
        self.freshness = Freshness(self.index, self.manifests, self.clock, LIMIT)

    @rule(digest=st.sampled_from(DIGESTS))
    def push(self, digest: Digest) -> None:
        """Somebody pushes the tag."""
        self.agent.add_manifest(ORIGIN, REPOSITORY, IMAGES[digest], OCI_MANIFEST, "latest")
        self.there = digest

    @rule()
    def delete(self) -> None:
        """Somebody deletes the tag; its manifest stays."""
        if self.there is not None:
            self.agent.remove_tag(ORIGIN, REPOSITORY, "latest")
            self.there = None

    @rule(fault=st.sampled_from(list(FAULTS)))
    def fail(self, fault: str) -> None:
        """Upstream fails from now on."""
        self.heal()
        self.agent.script(FAULTS[fault], times=None)
        self.fault = fault

    @rule(digest=st.sampled_from(DIGESTS))
    def fetch(self, digest: Digest) -> None:
        """A client comes for a digest."""
        question = self.manifests.get(
            self.upstream, REPOSITORY, digest, Deadline.after(self.clock, 20.0)
        )
        results: list[object] = []
        Deferred.fromCoroutine(question).addBoth(results.append)
        self.clock.advance(25.0 if self.fault == "silent" else 0.0)
        if isinstance(results[0], ServedManifest):
            self.kept.add(digest)

    @rule()
    def heal(self) -> None:
        """Upstream works again."""
        self.agent.heal()
        self.fault = ""

    @rule(
        seconds=st.sampled_from(
            [0.0, 0.0, 1.0, PAUSE - 1, PAUSE, TTL - 1, TTL, TTL, STALE_IF_ERROR - TTL]
        ),
        head=st.sampled_from([False, False, True]),
    )
    def ask(self, seconds: float, head: bool) -> None:
        """A client asks after some time, and gets what the rules say."""
        self.clock.advance(seconds)
        self.agent.requests.clear()
        now = self.clock.seconds()
        expected, methods = self.expect(now, head)
        question = self.freshness.get(
            self.upstream,
            REPOSITORY,
            "latest",
            31,
            RULES,
            Deadline.after(self.clock, 20.0),
            head=head,
        )
        results: list[object] = []
        Deferred.fromCoroutine(question).addBoth(results.append)
        self.clock.advance(0)
        for patience in (3.0, 17.0):
            if not results:
                self.clock.advance(patience)
        if self.fault == "silent":
            # The question itself ends a little later than who asked it.
            self.clock.advance(25.0)
        (result,) = results
        if isinstance(result, Failure):
            assert isinstance(result.value, RegistryError), result
            actual: object = result.value.status
        else:
            assert isinstance(result, ServedManifest)
            assert result.digest is not None
            actual = (result.outcome, result.digest)
            if not head:
                assert result.data == IMAGES[result.digest]
        assert actual == expected, (actual, expected)
        if methods is not None:
            assert [request.method for request in self.agent.requests] == methods

    def expect(self, now: float, head: bool) -> tuple[object, list[str] | None]:
        """The model's answer: an outcome with a digest, or a status; and the questions upstream."""
        self.methods = None
        return self.answered(now, head), self.methods

    def answered(self, now: float, head: bool) -> object:
        """An outcome with a digest, or the status of an error."""
        if self.told is not None and now - self.verified >= TTL and self.told[0] in self.kept:
            self.known, self.verified = self.told
            self.told = None
        stored = self.known is not None and self.known in self.kept
        age = now - self.verified
        if stored and age < TTL:
            return self.answer(Outcome.HIT, [])
        if not stored:
            if self.known is not None and age < TTL and not head and not self.fault:
                # By its digest, whatever the tag means by now.
                self.kept.add(self.known)
                return self.answer(Outcome.MISS, ["GET"])
            return self.cold(now, head)
        usable = age < STALE_IF_ERROR
        if usable and now < self.retry_at:
            return self.answer(Outcome.STALE, [])
        failure = self.failure()
        if failure in {404, 401}:
            self.known = self.told = None
            return failure
        if failure is not None:
            if not usable:
                return failure
            self.retry_at = now + (PAUSE + 3.0 if self.fault == "silent" else PAUSE)
            return self.answer(Outcome.STALE, ["HEAD"])
        self.retry_at = 0.0
        if self.there == self.known:
            self.verified, self.told = now, None
            return self.answer(Outcome.REVALIDATED, ["HEAD"])
        return self.learn(now, head)

    def cold(self, now: float, head: bool) -> object:
        """What is answered with nothing stored."""
        failure = self.failure()
        if failure is not None:
            return failure
        self.retry_at = 0.0
        return self.learn(now, head)

    def learn(self, now: float, head: bool) -> object:
        """Upstream says what the tag means, and sends it unless its head is wanted."""
        assert self.there is not None
        if not head:
            self.kept.add(self.there)
        if self.known in self.kept and self.there not in self.kept:
            self.told = self.there, now
        else:
            self.known, self.verified, self.told = self.there, now, None
        return Outcome.MISS, self.there

    def failure(self) -> int | None:
        """The status that a question to upstream comes to, None if it is answered."""
        if self.fault:
            return BELIEVED.get(self.fault) or {"silent": 504, "429": 429}.get(self.fault, 502)
        return 404 if self.there is None else None

    def answer(self, outcome: Outcome, methods: list[str]) -> object:
        """What is known, so come by, and for which upstream was asked so."""
        self.methods = methods
        return outcome, self.known


class FreshnessStatesTests(SynchronousTestCase):
    """Any order of events."""

    def test_any_order(self) -> None:
        """Whatever upstream does, the rules of freshness hold."""
        run_state_machine_as_test(
            FreshnessMachine,
            settings=settings(
                max_examples=100,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
