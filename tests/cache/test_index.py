"""Tests for regproxy.cache.index."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cache.index import Holding, Index
from regproxy.cache.statements import SCHEMA_VERSION
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import DOCKER_MANIFEST, OCI_MANIFEST
from regproxy.testing import HeldWorker, ImmediateWorker
from regproxy.worker import Worker
from tests.cache.case import IndexCase

REPOSITORY = ("registry.test", "team/app")
TAG = (*REPOSITORY, "latest", 31)
D1, D2 = Digest.of(b"one"), Digest.of(b"two", "sha512")


class AnswersTests(IndexCase):
    """What is said can be asked for, before it is committed, after it, and after a restart."""

    def setUp(self) -> None:
        """An index whose writes wait."""
        super().setUp()
        self.held = HeldWorker()
        self.index = self.opened(self.held)

    def test_empty(self) -> None:
        """An empty index knows nothing."""
        self.assertIsNone(self.index.tag(*TAG))
        self.assertIsNone(self.index.holding(*REPOSITORY, D1))
        self.assertIsNone(self.index.size(D1))

    def test_tag(self) -> None:
        """A tag has a digest, and the time at which upstream said so."""
        self.clock.advance(1000)
        self.index.put_tag(*TAG, D1)
        for _ in self.stages():
            tag = self.index.tag(*TAG)
            assert tag is not None
            self.assertEqual((tag.digest, tag.verified), (D1, 1000))

    def test_tag_moves(self) -> None:
        """The last word counts."""
        self.index.put_tag(*TAG, D1)
        self.clock.advance(5)
        self.index.put_tag(*TAG, D2)
        for _ in self.stages():
            tag = self.index.tag(*TAG)
            assert tag is not None
            self.assertEqual((tag.digest, tag.verified), (D2, 5))

    def test_tags_apart(self) -> None:
        """Registry, repository, tag and variant each make another tag."""
        self.index.put_tag(*TAG, D1)
        others = [
            ("other.test", "team/app", "latest", 31),
            ("registry.test", "team/other", "latest", 31),
            ("registry.test", "team/app", "edge", 31),
            ("registry.test", "team/app", "latest", 4),
        ]
        for _ in self.stages():
            for key in others:
                self.assertIsNone(self.index.tag(*key), key)

    def test_drop_then_put(self) -> None:
        """A tag that came back is there."""
        self.index.put_tag(*TAG, D1)
        self.index.drop_tag(*TAG)
        self.index.put_tag(*TAG, D2)
        for _ in self.stages():
            tag = self.index.tag(*TAG)
            assert tag is not None
            self.assertEqual(tag.digest, D2)

    def test_put_then_drop(self) -> None:
        """A tag that has gone is not there, though its row may still be on disk."""
        self.index.put_tag(*TAG, D1)
        self.held.run_all()
        self.index.drop_tag(*TAG)
        for _ in self.stages():
            self.assertIsNone(self.index.tag(*TAG))

    def test_drop_put_drop_in_two_batches(self) -> None:
        """A batch that is committed does not uncover what a later one will change."""
        self.index.put_tag(*TAG, D1)
        self.held.run_all()
        self.index.drop_tag(*TAG)
        self.index.put_tag(*TAG, D2)
        self.held.run_next()
        tag = self.index.tag(*TAG)
        assert tag is not None
        self.assertEqual(tag.digest, D2)
        self.index.drop_tag(*TAG)
        for _ in self.stages():
            self.assertIsNone(self.index.tag(*TAG))

    def test_holding(self) -> None:
        """That a repository holds a digest says nothing of how, or of the blob."""
        self.index.put_holding(*REPOSITORY, D1)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(None, None))
            self.assertIsNone(self.index.holding(*REPOSITORY, D2))
            self.assertIsNone(self.index.holding("registry.test", "team/other", D1))

    def test_media_type_belongs_to_a_repository(self) -> None:
        """One manifest may be served as two types, by two repositories."""
        other = ("registry.test", "team/other")
        self.index.put_holding(*REPOSITORY, D1, OCI_MANIFEST)
        self.index.put_holding(*other, D1, DOCKER_MANIFEST)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(OCI_MANIFEST, None))
            self.assertEqual(self.index.holding(*other, D1), Holding(DOCKER_MANIFEST, None))

    def test_media_type_stays(self) -> None:
        """A manifest that an index refers to as well is served as before, at every moment."""
        self.index.put_holding(*REPOSITORY, D1, OCI_MANIFEST)
        self.index.put_holding(*REPOSITORY, D1)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(OCI_MANIFEST, None))
        self.index.put_holding(*REPOSITORY, D1)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(OCI_MANIFEST, None))

    def test_media_type_comes_later(self) -> None:
        """An index's child becomes a manifest once upstream has served it as one."""
        self.index.put_holding(*REPOSITORY, D1)
        self.held.run_next()
        self.index.put_holding(*REPOSITORY, D1, OCI_MANIFEST)
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(OCI_MANIFEST, None))

    def test_size(self) -> None:
        """A stored blob's size goes with every repository that holds it."""
        self.index.put_holding(*REPOSITORY, D1)
        self.index.put_blob(D1, 2**40)
        for _ in self.stages():
            self.assertEqual(self.index.size(D1), 2**40)
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(None, 2**40))

    def test_dropped_blob(self) -> None:
        """A blob that is no longer stored is still held upstream."""
        self.index.put_holding(*REPOSITORY, D1)
        self.index.put_blob(D1, 5)
        self.held.run_all()
        self.index.drop_blob(D1)
        for _ in self.stages():
            self.assertIsNone(self.index.size(D1))
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding(None, None))

    def test_use(self) -> None:
        """Uses are written now and then, the last one of each blob, and at the end."""
        self.index.put_blob(D1, 5)
        self.index.put_blob(D2, 5)
        self.held.run_all()
        for _ in range(20):
            self.index.use(D1)
            self.clock.advance(1)
        self.assertEqual(self.held.held, 0)
        self.clock.advance(11)
        self.held.run_all()
        self.assertEqual(self.rows("SELECT used FROM blobs WHERE size = 5 ORDER BY used"), [0, 19])
        self.index.use(D2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.reopen()
        self.assertEqual(self.rows("SELECT used FROM blobs ORDER BY used"), [19, 31])

    def test_links(self) -> None:
        """A manifest's blobs are noted, each once."""
        self.index.put_references(*REPOSITORY, D1, [(str(D2), 5), (str(D2), 5)])
        self.index.put_references(*REPOSITORY, D1, [(str(D2), 5)])
        self.index.put_references(*REPOSITORY, D1, [])
        self.held.run_all()
        self.assertEqual(self.rows("SELECT digest FROM links"), [str(D2)])

    def test_references(self) -> None:
        """What a manifest needs is held by its repository, and stays what it was known to be."""
        self.index.put_holding(*REPOSITORY, D1, "a/b")
        self.index.put_references(*REPOSITORY, D1, [(str(D1), 1), (str(D2), 2)])
        for _ in self.stages():
            self.assertEqual(self.index.holding(*REPOSITORY, D1), Holding("a/b", None))
            self.assertEqual(self.index.holding(*REPOSITORY, D2), Holding(None, None))

    def test_batches(self) -> None:
        """What is said while a batch is written goes into one batch after it."""
        for number in range(100):
            self.index.put_tag(*REPOSITORY, f"tag{number}", 31, D1)
        self.assertEqual(self.held.run_all(), 2)

    def test_flush(self) -> None:
        """A flush waits for everything said before it, and needs nothing when all is said."""
        self.successResultOf(self.index.flush())
        self.index.put_blob(D1, 1)
        self.index.put_blob(D2, 2)
        done = self.index.flush()
        self.held.run_next()
        self.assertNoResult(done)
        self.held.run_all()
        self.successResultOf(done)


class TroubleTests(IndexCase):
    """A database that does not work."""

    def setUp(self) -> None:
        """An index that knows one tag."""
        super().setUp()
        self.held = HeldWorker()
        self.index = self.opened(self.held)
        self.index.put_tag(*TAG, D1)
        self.held.run_all()

    def other(self) -> sqlite3.Connection:
        """Another process's connection."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def impatient(self) -> None:
        """Lets writes give up at once where they would wait for seconds."""
        assert self.index._writer is not None  # noqa: SLF001 - real seconds would pass
        self.index._writer.execute("PRAGMA busy_timeout = 0")  # noqa: SLF001

    def test_locked(self) -> None:
        """What cannot be written is given up, logged once an episode; reads go on."""
        self.impatient()
        other = self.other()
        other.execute("BEGIN IMMEDIATE")
        with capturedLogs() as events:
            for size in (1, 2):
                self.index.put_blob(D2, size)
                self.held.run_all()
            self.assertIsNone(self.index.size(D2))
            self.assertIsNotNone(self.index.tag(*TAG))
            other.execute("ROLLBACK")
            self.index.put_blob(D2, 3)
            self.held.run_all()
        self.assertEqual(self.index.size(D2), 3)
        self.assertEqual([event["log_level"].name for event in events], ["error", "info"])

    def test_failure_in_the_middle(self) -> None:
        """A batch is written whole or not at all, and the next one is not touched by it."""
        self.other().execute("DROP TABLE links")
        self.index.put_blob(D2, 1)
        self.index.put_references(*REPOSITORY, D1, [(str(D2), 1)])
        self.index.put_holding(*REPOSITORY, D1)
        self.held.run_all()
        self.assertEqual(self.rows("SELECT size FROM blobs"), [1])
        self.assertIsNone(self.index.holding(*REPOSITORY, D1))
        self.index.put_holding(*REPOSITORY, D1)
        self.held.run_all()
        self.assertIsNotNone(self.index.holding(*REPOSITORY, D1))

    def test_commit_fails(self) -> None:
        """A transaction that cannot be committed does not stand in the next one's way."""
        other = self.other()
        other.execute("CREATE TABLE parent (id PRIMARY KEY)")
        other.execute(
            "CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED, digest)"
        )
        other.execute(
            "CREATE TRIGGER refuse AFTER INSERT ON blobs WHEN new.size = 666 "
            "BEGIN INSERT INTO child VALUES (1, new.digest); END"
        )
        assert self.index._writer is not None  # noqa: SLF001 - a commit that fails is hard to come by
        self.index._writer.execute("PRAGMA foreign_keys = ON")  # noqa: SLF001
        self.index.put_blob(D1, 666)
        self.held.run_all()
        self.assertIsNone(self.index.size(D1))
        self.index.put_blob(D2, 5)
        self.held.run_all()
        self.assertEqual(self.index.size(D2), 5)

    def test_read_fails(self) -> None:
        """A question that cannot be answered is a miss, logged once."""
        self.other().execute("DROP TABLE tags")
        with capturedLogs() as events:
            self.assertIsNone(self.index.tag(*TAG))
            self.assertIsNone(self.index.tag(*TAG))
        self.assertEqual(len(events), 1)

    def test_closed(self) -> None:
        """After the end nothing is known, and nothing that is said raises."""
        self.close(self.index)
        self.assertIsNone(self.index.tag(*TAG))
        self.index.put_blob(D1, 1)
        self.index.use(D1)
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def test_closed_while_it_writes(self) -> None:
        """The end waits for everything that was said."""
        self.index.put_blob(D1, 1)
        self.index.put_blob(D2, 2)
        self.index.use(D1)
        closing = self.index.close()
        self.assertNoResult(closing)
        self.held.run_all()
        self.successResultOf(closing)
        self.assertEqual(self.rows("SELECT size FROM blobs ORDER BY size"), [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unexpected(self) -> None:
        """Whatever a write raises, the writes after it are made."""
        with patch("regproxy.cache.index._write", side_effect=ZeroDivisionError):
            self.index.put_blob(D1, 1)
            self.held.run_all()
        self.index.put_blob(D2, 2)
        self.held.run_all()
        self.assertEqual(self.index.size(D2), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OpenTests(SynchronousTestCase):
    """The start."""

    def setUp(self) -> None:
        """No database yet."""
        self.path = Path(self.mktemp()).absolute() / "index.sqlite"
        self.path.parent.mkdir(parents=True)

    def opened(self) -> Index:
        """The index, closed at the end whether it could be opened or not."""
        worker: Worker = ImmediateWorker()
        index = Index(self.path, Clock(), worker)
        self.addCleanup(lambda: self.successResultOf(index.close()))
        index.open()
        return index

    def test_newer_version(self) -> None:
        """An index of a later version is refused in words that say what to do, and unchanged."""
        connection = sqlite3.connect(self.path)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.close()
        with self.assertRaisesRegex(
            ValueError, r"index\.sqlite: written by a newer .*move it away"
        ):
            self.opened()
        connection = sqlite3.connect(self.path)
        self.assertEqual(
            connection.execute("PRAGMA user_version").fetchone(), (SCHEMA_VERSION + 1,)
        )
        self.assertEqual(connection.execute("SELECT count(*) FROM sqlite_master").fetchone(), (0,))
        connection.close()

    def test_no_database(self) -> None:
        """A file that is no database is set aside, with a line in the log, and one is made."""
        data = b"no database, " * 100
        self.path.write_bytes(data)
        with capturedLogs() as events:
            self.opened().put_blob(D1, 1)
        self.assertEqual(self.path.with_name("index.sqlite.broken").read_bytes(), data)
        self.assertEqual([event["log_level"].name for event in events], ["error"])
        self.assertEqual(self.opened().size(D1), 1)

    def test_no_directory(self) -> None:
        """A directory that is not there fails the start."""
        self.path = self.path.parent / "absent" / "index.sqlite"
        with self.assertRaises(sqlite3.OperationalError):
            self.opened()

    def test_twice(self) -> None:
        """Two processes share one index."""
        first, second = self.opened(), self.opened()
        first.put_blob(D1, 1)
        self.assertEqual(second.size(D1), 1)
        second.drop_blob(D1)
        self.assertIsNone(first.size(D1))

    def test_strange_path(self) -> None:
        """Characters that mean something in a URI mean nothing in a path."""
        self.path = self.path.parent / "a?b#c%20d.sqlite"
        self.opened().put_blob(D1, 1)
        self.assertTrue(self.path.exists())
        self.assertEqual(self.opened().size(D1), 1)
