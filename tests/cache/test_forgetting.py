"""Tags that were pushed or deleted, and digests that were deleted: what was known of them goes."""

from __future__ import annotations

from regproxy.cache.index import Holding, Index
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.model.outcome import Outcome
from regproxy.testing import BEFORE_HEADERS, HeldWorker, ImmediateWorker
from tests.cache.case import IndexCase
from tests.cache.test_freshness import D_NEW, D_OLD, LATEST, TTL, FreshnessCase
from tests.cache.upstreams import NAME, REPOSITORY

PLACE = ("registry.test", "team/app")
NAMED = (*PLACE, "latest")
TAG = (*NAMED, 31)
D1, D2 = Digest.of(b"one"), Digest.of(b"two")


class ForgottenTagTests(IndexCase):
    """Tags in the index."""

    def setUp(self) -> None:
        """An index whose writes wait."""
        super().setUp()
        self.held = HeldWorker()
        self.index = self.opened(self.held)

    def known(self, index: Index | None = None) -> Digest | None:
        """What the tag is known to mean."""
        tag = (index or self.index).tag(*TAG)
        return None if tag is None else tag.digest

    def test_every_variant(self) -> None:
        """No variant is known any more; other tags are."""
        for variant in (0, 1, 31, 63):
            self.index.put_tag(*NAMED, variant, D1)
        self.index.put_tag(*PLACE, "other", 31, D1)
        self.held.run_all()
        self.clock.advance(1)
        self.index.forget_tag(*NAMED)
        for _ in self.stages():
            for variant in (0, 1, 31, 63):
                self.assertIsNone(self.index.tag(*NAMED, variant))
            self.assertIsNotNone(self.index.tag(*PLACE, "other", 31))

    def test_not_committed(self) -> None:
        """What was said just before goes, too."""
        self.index.put_tag(*TAG, D1)
        self.index.forget_tag(*NAMED)
        for _ in self.stages():
            self.assertIsNone(self.known())

    def test_asked_before(self) -> None:
        """An answer to a question from before is not kept, however late it comes."""
        self.clock.advance(10)
        self.index.forget_tag(*NAMED)
        self.clock.advance(10)
        self.index.put_tag(*TAG, D1, asked=10.0)
        for _ in self.stages():
            self.assertIsNone(self.known())

    def test_asked_afterwards(self) -> None:
        """An answer to a question from afterwards counts."""
        self.clock.advance(10)
        self.index.forget_tag(*NAMED)
        self.clock.advance(1)
        self.index.put_tag(*TAG, D2, asked=10.5)
        for _ in self.stages():
            self.assertEqual(self.known(), D2)

    def test_again(self) -> None:
        """A tag is forgotten as often as it is pushed."""
        for _ in range(3):
            self.clock.advance(1)
            self.index.put_tag(*TAG, D1)
            self.assertEqual(self.known(), D1)
            self.index.forget_tag(*NAMED)
            self.assertIsNone(self.known())
            self.held.run_all()
            self.assertIsNone(self.known())

    def test_other_process(self) -> None:
        """Answers that another process gets to a question from before do not count, either."""
        other = self.opened(ImmediateWorker())
        self.index.put_tag(*TAG, D1)
        self.held.run_all()
        self.assertEqual(self.known(other), D1)
        self.clock.advance(10)
        self.index.forget_tag(*NAMED)
        self.held.run_all()
        self.assertIsNone(self.known(other))
        other.put_tag(*TAG, D1, asked=5.0)
        self.assertIsNone(self.known(other))
        self.assertIsNone(self.known())
        self.clock.advance(1)
        other.put_tag(*TAG, D2, asked=11.0)
        self.assertEqual((self.known(other), self.known()), (D2, D2))

    def test_bounded(self) -> None:
        """However many tags are pushed, they are forgotten in little memory."""
        self.index.forget_tag(*NAMED)
        for number in range(5000):
            self.index.forget_tag(*PLACE, f"tag{number}")
        self.held.run_all()
        # The oldest is remembered in the database alone, where it still counts.
        self.index.put_tag(*TAG, D1, asked=0.0)
        self.held.run_all()
        self.assertIsNone(self.known())


class ForgottenDigestTests(IndexCase):
    """Holdings in the index."""

    def setUp(self) -> None:
        """An index whose writes wait, with a manifest."""
        super().setUp()
        self.held = HeldWorker()
        self.index = self.opened(self.held)
        self.index.put_holding(*PLACE, D1, OCI_MANIFEST)

    def test_dropped(self) -> None:
        """It is not known any more, whether what was known had been committed or not."""
        self.index.drop_holding(*PLACE, D1)
        for _ in self.stages():
            self.assertIsNone(self.index.holding(*PLACE, D1))

    def test_committed(self) -> None:
        """That of another repository stays."""
        self.index.put_holding(PLACE[0], "other", D1)
        self.held.run_all()
        self.index.drop_holding(*PLACE, D1)
        for _ in self.stages():
            self.assertIsNone(self.index.holding(*PLACE, D1))
            self.assertIsNotNone(self.index.holding(PLACE[0], "other", D1))

    def test_held_again(self) -> None:
        """Held again it is what is said of it now: no manifest, until that is said again."""
        self.held.run_all()
        self.index.drop_holding(*PLACE, D1)
        self.index.put_holding(*PLACE, D1)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*PLACE, D1), Holding(None, None))
        self.index.put_holding(*PLACE, D1, OCI_MANIFEST)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*PLACE, D1), Holding(OCI_MANIFEST, None))

    def test_referred_to_again(self) -> None:
        """A manifest that needs it says that it is held."""
        self.held.run_all()
        self.index.drop_holding(*PLACE, D1)
        self.index.put_references(*PLACE, D2, [(str(D1), 3)])
        for _ in self.stages():
            self.assertEqual(self.index.holding(*PLACE, D1), Holding(None, None))


class ForgetTests(FreshnessCase):
    """A stored tag that somebody pushes through the proxy."""

    def setUp(self) -> None:
        """Pulls once."""
        super().setUp()
        self.served(Outcome.MISS)
        self.served(Outcome.HIT)
        self.asked()

    def forget(self) -> None:
        """The tag was pushed; time goes on."""
        self.freshness.forget(NAME, REPOSITORY, "latest")
        self.clock.advance(0.001)

    def test_fresh(self) -> None:
        """A tag that was fresh is asked for at once, and then known again."""
        self.move()
        self.forget()
        self.served(Outcome.MISS, D_NEW)
        self.served(Outcome.HIT, D_NEW)

    def test_same_instant(self) -> None:
        """Nor is it served in the very instant."""
        self.move()
        self.freshness.forget(NAME, REPOSITORY, "latest")
        self.served(Outcome.MISS, D_NEW)

    def test_restart(self) -> None:
        """It stays forgotten when the process ends."""
        self.forget()
        self.restart()
        self.move()
        self.served(Outcome.MISS, D_NEW)

    def test_get_meanwhile(self) -> None:
        """A GET from before tells its asker what the tag meant then, and nobody else."""
        self.clock.advance(TTL)
        self.index.drop_tag(NAME, REPOSITORY, "latest", 31)
        # The answer is on its way: what it says is decided.
        self.agent.hold(LATEST, at=1)
        waiting = self.ask()
        self.move()
        self.forget()
        joining = self.ask()
        self.assertEqual(self.asked(), ["GET", "GET"])
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting).digest, D_OLD)
        self.assertEqual(self.successResultOf(joining).digest, D_NEW)
        self.served(Outcome.HIT, D_NEW)

    def test_late_get(self) -> None:
        """Such a GET may be the last to end."""
        self.index.drop_tag(NAME, REPOSITORY, "latest", 31)
        self.agent.hold(LATEST, at=1)
        waiting = self.ask()
        self.move()
        self.forget()
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting).digest, D_OLD)
        self.served(Outcome.MISS, D_NEW)

    def test_revalidation_meanwhile(self) -> None:
        """A revalidation from before does not make the tag fresh."""
        self.clock.advance(TTL)
        self.agent.hold(LATEST, at=BEFORE_HEADERS)
        waiting = self.ask()
        self.forget()
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(waiting).outcome, Outcome.REVALIDATED)
        self.move()
        self.asked()
        self.served(Outcome.MISS, D_NEW)
        self.assertEqual(self.asked(), ["GET"])

    def test_head_meanwhile(self) -> None:
        """Nor does it give its answer to those who ask afterwards."""
        self.clock.advance(TTL)
        self.agent.hold(LATEST, at=BEFORE_HEADERS)
        waiting = self.ask(head=True)
        self.forget()
        joining = self.ask(head=True)
        self.assertEqual(self.asked(), ["HEAD", "HEAD"])
        self.agent.release(LATEST)
        self.clock.advance(0)
        self.successResultOf(waiting)
        self.successResultOf(joining)
