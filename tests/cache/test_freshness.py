"""Tests for regproxy.cache.freshness, against a registry in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.logger import capturedLogs

from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.manifests import ServedManifest
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import FULL_VARIANT, OCI_INDEX, OCI_MANIFEST, SCHEMA1
from regproxy.model.outcome import Outcome
from regproxy.testing import Fault
from tests.cache.upstreams import LIMIT, NAME, ORIGIN, REPOSITORY, RegistryCase, image, index_of

OLD, NEW = image(b"old"), image(b"new")
D_OLD, D_NEW = Digest.of(OLD), Digest.of(NEW)
TTL, STALE_IF_ERROR, REVALIDATE = 300.0, 3600.0, 3.0
RULES = FreshnessRules(tag_ttl=TTL, stale_if_error=STALE_IF_ERROR, revalidate=REVALIDATE)
LATEST = "/manifests/latest"
DOWN = Fault(connect_failure=ConnectionRefusedError())


class FreshnessCase(RegistryCase):
    """A registry whose tag ``latest`` means `OLD`."""

    def setUp(self) -> None:
        """Adds it."""
        super().setUp()
        self.agent.add_manifest(ORIGIN, REPOSITORY, OLD, OCI_MANIFEST, "latest")
        self.freshness = Freshness(self.index, self.manifests, self.clock, LIMIT)

    def ask(
        self, *, variant: int = FULL_VARIANT, head: bool = False, patience: float = 25.0
    ) -> Deferred[ServedManifest]:
        """Asks what the tag means."""
        return self.begin(
            self.freshness.get(
                self.upstream,
                REPOSITORY,
                "latest",
                variant,
                RULES,
                self.deadline(patience),
                head=head,
            )
        )

    def served(self, outcome: Outcome, digest: Digest = D_OLD, *, head: bool = False) -> None:
        """Checks what is served at once, and how it was come by."""
        served = self.successResultOf(self.ask(head=head))
        self.assertEqual((served.outcome, served.digest), (outcome, digest))
        if not head:
            self.assertEqual(served.data, {D_OLD: OLD, D_NEW: NEW}[digest])

    def move(self) -> None:
        """Lets the tag mean `NEW`."""
        self.agent.add_manifest(ORIGIN, REPOSITORY, NEW, OCI_MANIFEST, "latest")

    def down(self, fault: Fault = DOWN) -> None:
        """Upstream fails from now on."""
        self.agent.script(fault, times=None)

    def asked(self) -> list[str]:
        """The methods of the requests since this was asked last."""
        methods = [request.method for request in self.agent.requests]
        self.agent.requests.clear()
        return methods

    def restart(self) -> None:
        """Nothing is in memory any more."""
        self.manifests = self.new_manifests()
        self.freshness = Freshness(self.index, self.manifests, self.clock, LIMIT)


class ColdTests(FreshnessCase):
    """Tags of which nothing is stored."""

    def test_get(self) -> None:
        """One GET, never HEAD and GET; the manifest is there by its digest as well."""
        self.served(Outcome.MISS)
        self.assertEqual(self.asked(), ["GET"])
        by_digest = self.manifests.get(self.upstream, REPOSITORY, D_OLD, self.deadline())
        self.assertEqual(self.successResultOf(self.begin(by_digest)).outcome, Outcome.HIT)
        self.assertEqual(self.asked(), [])

    def test_head(self) -> None:
        """A client's HEAD is one HEAD, and nothing is fetched."""
        served = self.successResultOf(self.ask(head=True))
        self.assertEqual(served, ServedManifest(D_OLD, OCI_MANIFEST, len(OLD), None, Outcome.MISS))
        self.assertEqual(self.asked(), ["HEAD"])
        self.assertIsNone(self.stored(D_OLD))

    def test_head_then_digest(self) -> None:
        """HEAD by tag and GET by digest, as containerd does it, make the tag a hit."""
        self.served(Outcome.MISS, head=True)
        by_digest = self.manifests.get(self.upstream, REPOSITORY, D_OLD, self.deadline())
        self.successResultOf(self.begin(by_digest))
        self.asked()
        self.down()
        for head in (True, False):
            self.served(Outcome.HIT, head=head)
        self.clock.advance(TTL)
        for head in (True, False):
            self.served(Outcome.STALE, head=head)

    def test_head_then_get(self) -> None:
        """A digest that a HEAD has told is what a GET fetches, while it is fresh."""
        self.served(Outcome.MISS, head=True)
        self.served(Outcome.MISS)
        self.assertEqual(self.asked(), ["HEAD", "GET"])
        self.served(Outcome.HIT)

    def test_head_then_the_manifest_is_gone(self) -> None:
        """A digest that upstream no longer has is no reason to refuse its tag."""
        self.served(Outcome.MISS, head=True)
        self.move()
        self.agent.remove_digest(ORIGIN, REPOSITORY, D_OLD)
        self.served(Outcome.MISS, D_NEW)

    def test_shared(self) -> None:
        """All who ask at once share one question, and one who leaves takes nobody along."""
        self.agent.hold(LATEST)
        asked = [self.ask() for _ in range(3)]
        asked[0].cancel()
        asked[0].addErrback(lambda _: None)
        self.agent.release(LATEST)
        self.clock.advance(0)
        outcomes = [self.successResultOf(each).outcome for each in asked[1:]]
        self.assertEqual(outcomes, [Outcome.JOIN] * 2)
        self.assertEqual(self.asked(), ["GET"])

    def test_refused(self) -> None:
        """What upstream says is passed on, and asked for again by the next one."""
        for status in (401, 403, 404, 429):
            self.agent.script(Fault(status=status))
            self.error(self.ask(), status)
        for fault in (Fault(status=500), DOWN):
            self.agent.script(fault)
            self.error(self.ask(head=True), 502)
        self.served(Outcome.MISS)

    def test_too_slow(self) -> None:
        """With nothing stored there is nothing to serve when the time is up."""
        self.agent.hold(LATEST)
        waiting = self.ask(patience=5)
        self.clock.advance(5)
        self.error(waiting, 504)
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.served(Outcome.HIT)

    def test_no_digest_told(self) -> None:
        """A registry that does not tell digests is asked with GET, and by HEAD in vain."""
        self.agent.script(Fault(headers={"Docker-Content-Digest": None}), LATEST, times=None)
        self.assertIsNone(self.successResultOf(self.ask(head=True)).digest)
        self.served(Outcome.MISS)
        self.served(Outcome.HIT)
        self.clock.advance(TTL)
        self.asked()
        self.served(Outcome.MISS)
        self.assertEqual(self.asked(), ["HEAD", "GET"])

    def test_schema_1(self) -> None:
        """Old manifests are passed on and never kept."""
        self.agent.add_manifest(ORIGIN, REPOSITORY, b"{}", min(SCHEMA1), "latest")
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.ask()).outcome, Outcome.RELAY)
        self.assertEqual(self.asked(), ["GET", "GET"])

    def test_evicted(self) -> None:
        """A fresh tag whose manifest is gone from the store is fetched by digest."""
        self.served(Outcome.MISS)
        self.store.set_aside(D_OLD)
        self.restart()
        self.served(Outcome.MISS)
        self.assertTrue(self.agent.requests[-1].path.endswith(str(D_OLD)))


class StoredTests(FreshnessCase):
    """Tags whose manifests are stored."""

    def setUp(self) -> None:
        """Pulls once."""
        super().setUp()
        self.served(Outcome.MISS)
        self.asked()

    def test_fresh(self) -> None:
        """A fresh tag is served without a question, restarts included."""
        self.down()
        for _ in range(2):
            self.served(Outcome.HIT)
            self.served(Outcome.HIT, head=True)
            self.restart()
        self.clock.advance(TTL - 1)
        self.served(Outcome.HIT)
        self.assertEqual(self.asked(), [])

    def test_revalidated(self) -> None:
        """A tag that is old is asked for with one HEAD, and is fresh again."""
        self.clock.advance(TTL)
        self.served(Outcome.REVALIDATED)
        self.assertEqual(self.asked(), ["HEAD"])
        self.clock.advance(TTL - 1)
        self.served(Outcome.HIT)
        self.clock.advance(1)
        self.served(Outcome.REVALIDATED, head=True)
        self.assertEqual(self.asked(), ["HEAD"])

    def test_shared(self) -> None:
        """All who ask for an old tag share one HEAD."""
        self.clock.advance(TTL)
        self.agent.hold(LATEST)
        asked = [self.ask(head=n % 2 == 0) for n in range(4)]
        self.agent.release(LATEST)
        self.clock.advance(0)
        for each in asked:
            self.assertEqual(self.successResultOf(each).outcome, Outcome.REVALIDATED)
        self.assertEqual(self.asked(), ["HEAD"])

    def test_moved(self) -> None:
        """A tag that means something else is fetched, and then fresh."""
        self.clock.advance(TTL)
        self.move()
        self.served(Outcome.MISS, D_NEW)
        self.assertEqual(self.asked(), ["HEAD", "GET"])
        self.served(Outcome.HIT, D_NEW)

    def test_moved_head(self) -> None:
        """A client's HEAD of a tag that moved fetches nothing."""
        self.clock.advance(TTL)
        self.move()
        self.served(Outcome.MISS, D_NEW, head=True)
        self.assertEqual(self.asked(), ["HEAD"])
        self.served(Outcome.MISS, D_NEW)

    def test_moved_and_down(self) -> None:
        """A new manifest that cannot be fetched does not lose the old one."""
        self.clock.advance(TTL)
        self.move()
        self.agent.script(Fault(status=503), LATEST, method="GET", times=None)
        self.served(Outcome.STALE)
        self.down()
        for seconds in (1, 60, TTL):
            self.clock.advance(seconds)
            self.served(Outcome.STALE)
        self.agent.heal()
        self.clock.advance(31)
        self.served(Outcome.MISS, D_NEW)

    def test_believed(self) -> None:
        """That the tag is gone or forbidden is passed on, and so it is when upstream goes down."""
        for status in (404, 401, 403):
            self.clock.advance(TTL)
            self.agent.script(Fault(status=status))
            self.error(self.ask(), status)
            self.agent.script(DOWN)
            self.error(self.ask(), 502)
            self.served(Outcome.MISS)

    def test_not_asked(self) -> None:
        """Whatever else upstream does, the stored manifest is served."""
        faults = [DOWN, *(Fault(status=status) for status in (400, 408, 429, 500, 503))]
        faults.append(Fault(cut_at=-1))
        self.clock.advance(TTL)
        for fault in faults:
            self.down(fault)
            for head in (False, True):
                self.served(Outcome.STALE, head=head)
            self.assertEqual(self.asked(), ["HEAD"])
            self.agent.heal()
            self.clock.advance(30)

    def test_circuit(self) -> None:
        """A registry that failed is left alone for 30 s, then asked by one."""
        self.clock.advance(TTL)
        with capturedLogs() as events:
            self.down()
            for _ in range(3):
                self.served(Outcome.STALE)
            self.clock.advance(29)
            self.served(Outcome.STALE)
            self.assertEqual(self.asked(), ["HEAD"])
            self.clock.advance(1)
            self.agent.heal()
            self.agent.hold(LATEST)
            probe = self.ask()
            self.served(Outcome.STALE)
            self.agent.release(LATEST)
            self.clock.advance(0)
            self.assertEqual(self.successResultOf(probe).outcome, Outcome.REVALIDATED)
            self.assertEqual(self.asked(), ["HEAD"])
            self.served(Outcome.HIT)
        self.assertEqual([event["log_level"].name for event in events], ["warn", "info"])

    def test_cold_in_an_open_circuit(self) -> None:
        """What is not stored is asked for, whatever has failed before, and closes the circuit."""
        self.clock.advance(TTL)
        self.agent.script(DOWN)
        self.served(Outcome.STALE)
        cold = self.successResultOf(self.ask(variant=4))
        self.assertEqual(cold.outcome, Outcome.MISS)
        self.served(Outcome.REVALIDATED)

    def test_slow(self) -> None:
        """After three seconds the stored manifest is served, and the question goes on."""
        self.clock.advance(TTL)
        self.agent.hold(LATEST)
        waiting = self.ask()
        self.clock.advance(REVALIDATE - 0.1)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(waiting).outcome, Outcome.STALE)
        self.assertFalse(self.agent.requests[0].cancelled)
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.served(Outcome.HIT)
        self.assertEqual(self.asked(), ["HEAD"])

    def test_slow_body(self) -> None:
        """The three seconds hold for the HEAD and the GET of a tag that moved together."""
        self.clock.advance(TTL)
        self.move()
        self.agent.script(Fault(latency=2), LATEST, times=None)
        waiting = self.ask()
        self.clock.pump([0.1] * 31)
        self.assertEqual(self.successResultOf(waiting).digest, D_OLD)
        self.clock.pump([0.1] * 20)
        self.served(Outcome.HIT, D_NEW)
        self.assertEqual(self.asked(), ["HEAD", "GET"])

    def test_too_old(self) -> None:
        """A tag that nobody confirmed for too long is not served any more."""
        self.down()
        self.clock.advance(STALE_IF_ERROR - 1)
        self.served(Outcome.STALE)
        self.clock.advance(1)
        self.error(self.ask(), 502)
        self.agent.heal()
        self.served(Outcome.REVALIDATED)

    def test_clock_set_back(self) -> None:
        """A tag from the future is asked for, and served if it cannot be."""
        self.clock.rightNow -= 500_000
        self.down()
        self.served(Outcome.STALE)
        self.agent.heal()
        self.clock.advance(30)
        self.served(Outcome.REVALIDATED)
        self.served(Outcome.HIT)

    def test_lost_index(self) -> None:
        """Without its row a tag is cold, and its manifest, fetched again, is the same."""
        self.index.drop_tag(NAME, REPOSITORY, "latest", FULL_VARIANT)
        self.served(Outcome.MISS)


class VariantTests(FreshnessCase):
    """Clients that accept different types."""

    def test_apart(self) -> None:
        """What a tag means to one is nothing to another, and neither is a refusal."""
        top = index_of(OLD)
        self.agent.add_manifest(ORIGIN, REPOSITORY, top, OCI_INDEX, "latest")
        self.agent.add_variant(ORIGIN, REPOSITORY, "latest", D_OLD)
        self.assertEqual(self.successResultOf(self.ask()).digest, Digest.of(top))
        self.assertEqual(self.successResultOf(self.ask(variant=4)).digest, D_OLD)
        self.error(self.ask(variant=1), 404)
        self.asked()
        self.assertEqual(self.successResultOf(self.ask()).digest, Digest.of(top))
        self.assertEqual(self.successResultOf(self.ask(variant=4)).digest, D_OLD)
        self.assertEqual(self.asked(), [])

    def test_accept(self) -> None:
        """Upstream is asked for what the client accepts."""
        self.successResultOf(self.ask(variant=4))
        self.assertEqual(self.agent.requests[0].header("Accept"), OCI_MANIFEST)
