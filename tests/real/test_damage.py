"""A cache directory that lost something: colder, and never wrong."""

from __future__ import annotations

import os
import sqlite3

from tests.real.case import RealCase
from tests.real.library import library
from tests.real.registries import transfers


class DamageTests(RealCase):
    """An image is stored, and then its cache is damaged."""

    def setUp(self) -> None:
        """Starts an upstream and a regproxy, and pulls."""
        super().setUp()
        self.registry = self.start_registry()
        self.proxy = self.start_proxy_for(self.registry)
        self.image = library().images["small"]
        self.name = f"{self.proxy.host}/registry-a.test/team/app"
        self.skopeo().pull(f"{self.name}:small")
        self.proxy.wait_for_fills()

    def test_index_lost(self) -> None:
        """Without its index it asks upstream again, and transfers no blob a second time."""
        self.proxy.stop()
        for path in self.proxy.cache.glob("index.sqlite*"):
            path.unlink()
        self.proxy.restart()
        self.assert_pulled(self.skopeo().pull(f"{self.name}:small"), self.image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})

    def test_index_is_garbage(self) -> None:
        """An index that is no database any more counts as lost."""
        self.proxy.stop()
        for path in self.proxy.cache.glob("index.sqlite*"):
            path.write_bytes(b"garbage" * 1000)
        self.proxy.restart()
        self.assert_pulled(self.skopeo().pull(f"{self.name}:small"), self.image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})

    def test_index_locked(self) -> None:
        """While somebody holds the index's lock, pulls go on."""
        index = sqlite3.connect(self.proxy.cache / "index.sqlite", isolation_level=None)
        self.addCleanup(index.close)
        index.execute("BEGIN EXCLUSIVE")
        for tag in ("small", "multi", "multi"):
            pulled = self.skopeo().pull(f"{self.name}:{tag}")
            self.assert_pulled(pulled, library().images[tag])

    def test_blobs_lost(self) -> None:
        """Blobs and manifests that are gone from the disk are fetched again."""
        for path in self.proxy.stored():
            path.unlink()
        self.assert_pulled(self.skopeo().pull(f"{self.name}:small"), self.image)

    def test_blobs_cut_short(self) -> None:
        """Files that are shorter than they were are not served, and are replaced."""
        self.proxy.stop()
        for path in self.proxy.stored():
            os.truncate(path, path.stat().st_size // 2)
        self.proxy.restart()
        self.assert_pulled(self.skopeo().pull(f"{self.name}:small"), self.image)
        self.proxy.wait_for_fills()
        self.assertEqual(self.proxy.unverified(), [])
