"""Tests for regproxy.cache.freshness: what HEAD tells of tags whose manifests are stored."""

from __future__ import annotations

from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.model.outcome import Outcome
from regproxy.testing import Fault
from tests.cache.test_freshness import (
    D_NEW,
    DOWN,
    LATEST,
    OLD,
    TTL,
    FreshnessCase,
)
from tests.cache.upstreams import ORIGIN, REPOSITORY


class HeadTests(FreshnessCase):
    """A tag that moved, of which clients ask for the head first."""

    def setUp(self) -> None:
        """Pulls once."""
        super().setUp()
        self.served(Outcome.MISS)
        self.asked()

    def test_moved_head_and_down(self) -> None:
        """What a HEAD tells does not displace what is stored while only its head is known."""
        self.clock.advance(TTL)
        self.move()
        self.served(Outcome.MISS, D_NEW, head=True)
        self.down()
        self.restart()
        for head in (False, True):
            self.served(Outcome.STALE, head=head)

    def test_moved_head_then_digest(self) -> None:
        """Once the manifest that a HEAD told has been fetched, it is what the tag means."""
        self.clock.advance(TTL)
        self.move()
        self.served(Outcome.MISS, D_NEW, head=True)
        by_digest = self.manifests.get(self.upstream, REPOSITORY, D_NEW, self.deadline())
        self.successResultOf(self.begin(by_digest))
        self.asked()
        self.down()
        self.restart()
        self.served(Outcome.HIT, D_NEW)
        self.served(Outcome.HIT, D_NEW, head=True)
        self.clock.advance(TTL)
        self.served(Outcome.STALE, D_NEW)
        self.agent.heal()
        self.clock.advance(30)
        self.served(Outcome.REVALIDATED, D_NEW)
        self.served(Outcome.HIT, D_NEW)

    def test_moved_back(self) -> None:
        """What a HEAD told is forgotten when the tag means again what is stored, or is gone."""
        self.clock.advance(TTL)
        self.move()
        self.served(Outcome.MISS, D_NEW, head=True)
        self.agent.add_manifest(ORIGIN, REPOSITORY, OLD, OCI_MANIFEST, "latest")
        self.served(Outcome.REVALIDATED)
        by_digest = self.manifests.get(self.upstream, REPOSITORY, D_NEW, self.deadline())
        self.successResultOf(self.begin(by_digest))
        self.served(Outcome.HIT)
        self.clock.advance(TTL)
        self.served(Outcome.REVALIDATED)
        self.clock.advance(TTL)
        self.agent.script(Fault(status=404))
        self.error(self.ask(), 404)
        self.agent.script(DOWN)
        self.error(self.ask(), 502)

    def test_no_head(self) -> None:
        """A registry that knows no HEAD is asked by GET."""
        self.agent.script(Fault(status=405), LATEST, method="HEAD", times=None)
        for head in (False, True):
            self.clock.advance(TTL)
            self.served(Outcome.MISS, head=head)
            self.assertEqual(self.asked(), ["HEAD", "GET"])
            self.served(Outcome.HIT)
        self.clock.advance(TTL)
        self.agent.script(DOWN, LATEST, method="GET", times=None)
        self.served(Outcome.STALE)
