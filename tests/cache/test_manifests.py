"""Tests for regproxy.cache.manifests, against a registry in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError

from regproxy.cache import manifests
from regproxy.cache.index import Holding
from regproxy.cache.manifests import ServedManifest
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from regproxy.model.outcome import Outcome
from regproxy.testing import Fault
from regproxy.upstream.client import Upstream
from tests.cache.case import FaultyWorker
from tests.cache.upstreams import NAME, ORIGIN, REPOSITORY, RegistryCase, image, index_of

DATA = image(b"layer")
DIGEST = Digest.of(DATA)


class ManifestsCase(RegistryCase):
    """A registry with one manifest."""

    def setUp(self) -> None:
        """Adds it."""
        super().setUp()
        self.agent.add_manifest(ORIGIN, REPOSITORY, DATA, OCI_MANIFEST)

    def ask(
        self,
        digest: Digest = DIGEST,
        repository: str = REPOSITORY,
        upstream: Upstream | None = None,
    ) -> Deferred[ServedManifest]:
        """Asks for a manifest."""
        upstream = upstream or self.upstream
        return self.begin(self.manifests.get(upstream, repository, digest, self.deadline()))

    def get(self, digest: Digest = DIGEST, repository: str = REPOSITORY) -> ServedManifest:
        """The manifest, which is there at once."""
        return self.successResultOf(self.ask(digest, repository))

    def down(self) -> None:
        """Upstream cannot be reached from now on."""
        self.agent.script(Fault(connect_failure=ConnectionRefusedError()), times=None)

    def restart(self) -> None:
        """Nothing is in memory any more."""
        self.manifests = self.new_manifests()


class GetTests(ManifestsCase):
    """Manifests by digest."""

    def test_miss_then_hit(self) -> None:
        """What was fetched once is never asked for again, restarts and outages included."""
        self.assertEqual(
            self.get(), ServedManifest(DIGEST, OCI_MANIFEST, len(DATA), DATA, Outcome.MISS)
        )
        self.assertEqual(self.stored(DIGEST), DATA)
        self.down()
        for _ in range(2):
            self.assertEqual(
                self.get(), ServedManifest(DIGEST, OCI_MANIFEST, len(DATA), DATA, Outcome.HIT)
            )
            self.restart()
        self.assertEqual(len(self.agent.requests), 1)

    def test_shared(self) -> None:
        """All who ask at once share one question; one who leaves takes nobody along."""
        self.agent.hold(str(DIGEST))
        asked = [self.ask() for _ in range(3)]
        asked[0].cancel()
        asked[0].addErrback(lambda _: None)
        self.agent.release(str(DIGEST))
        self.clock.advance(0)
        self.assertEqual(
            [self.successResultOf(each).outcome for each in asked[1:]], [Outcome.JOIN] * 2
        )
        self.assertEqual(len(self.agent.requests), 1)

    def test_full_accept(self) -> None:
        """A digest means one thing, so every type is accepted for it."""
        self.get()
        accept = self.agent.requests[0].header("Accept") or ""
        for media_type in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, "*/*"):
            self.assertIn(media_type, accept)

    def test_sha512(self) -> None:
        """A manifest is verified with the algorithm it was asked for by."""
        digest = Digest.of(DATA, "sha512")
        self.agent.add_page(
            f"{ORIGIN}/v2/{REPOSITORY}/manifests/{digest}",
            DATA,
            headers={"Content-Type": OCI_MANIFEST},
        )
        self.assertEqual(self.get(digest).digest, digest)
        self.assertEqual(self.stored(digest), DATA)

    def test_too_slow(self) -> None:
        """A client's patience ends before the question does; the answer is kept all the same."""
        self.agent.hold(str(DIGEST))
        waiting = self.begin(
            self.manifests.get(self.upstream, REPOSITORY, DIGEST, self.deadline(5))
        )
        self.clock.advance(5)
        self.error(waiting, 504)
        self.agent.release(str(DIGEST))
        self.clock.advance(0)
        self.assertEqual(self.get().outcome, Outcome.HIT)


class RightsTests(ManifestsCase):
    """What may be served where."""

    def test_each_repository_for_itself(self) -> None:
        """A manifest is served where upstream served it, as what it was served there."""
        self.get()
        self.error(self.ask(repository="team/other"), 404)
        self.agent.add_manifest(ORIGIN, "team/other", DATA, f"{OCI_MANIFEST}; charset=utf-8")
        for outcome in (Outcome.MISS, Outcome.HIT):
            served = self.get(repository="team/other")
            self.assertEqual(
                (served.outcome, served.media_type), (outcome, f"{OCI_MANIFEST}; charset=utf-8")
            )
        self.assertEqual(self.get().media_type, OCI_MANIFEST)

    def test_each_registry_for_itself(self) -> None:
        """What one registry has says nothing about another."""
        self.get()
        other = self.registry("other.test")
        self.agent.add_blob("https://other.test", REPOSITORY, b"")
        self.error(self.ask(upstream=other), 404)

    def test_blob_is_no_manifest(self) -> None:
        """A stored layer that looks like a manifest is not served as one."""
        looks_like_one = image(b"inner")
        self.agent.add_manifest(ORIGIN, REPOSITORY, image(looks_like_one), OCI_MANIFEST)
        self.get(Digest.of(image(looks_like_one)))
        self.store.put(Digest.of(looks_like_one), looks_like_one)
        self.error(self.ask(Digest.of(looks_like_one)), 404)

    def test_holdings(self) -> None:
        """A repository holds the config, the layers and the children, and no foreign layer."""
        foreign = {
            "digest": str(Digest.of(b"foreign")),
            "size": 7,
            "urls": ["https://elsewhere.test/layer"],
        }
        layer = {"digest": str(Digest.of(b"layer")), "size": 5}
        data = image(layers=[layer, foreign], subject=layer | {"digest": str(Digest.of(b"other"))})
        top = index_of(data)
        self.agent.add_manifest(ORIGIN, REPOSITORY, data, OCI_MANIFEST)
        self.agent.add_manifest(ORIGIN, REPOSITORY, top, OCI_INDEX)
        self.get(Digest.of(data))
        self.get(Digest.of(top))
        held = {
            content: self.index.holding(NAME, REPOSITORY, Digest.of(content))
            for content in (b"{}", b"layer", b"foreign", b"other", data)
        }
        self.assertEqual(
            held,
            {
                b"{}": Holding(None, None),
                b"layer": Holding(None, None),
                b"foreign": None,
                b"other": None,
                data: Holding(OCI_MANIFEST, len(data)),
            },
        )
        self.assertIsNone(self.index.holding(NAME, "team/other", Digest.of(b"layer")))


class WrongTests(ManifestsCase):
    """Answers that are not kept."""

    def wrong(self, fault: Fault) -> None:
        """Gets a wrong answer, of which nothing is kept, and then a right one."""
        self.agent.script(fault)
        self.error(self.ask(), 502)
        self.assertIsNone(self.stored(DIGEST))
        self.assertIsNone(self.index.holding(NAME, REPOSITORY, DIGEST))

    def test_wrong_bytes(self) -> None:
        """Other bytes than the digest says are refused, whatever they are said to be."""
        self.wrong(Fault(flip=5))
        self.wrong(Fault(flip=5, headers={"Content-Type": "text/plain"}))
        self.wrong(Fault(flip=5, headers={"Docker-Content-Digest": None}))
        self.assertEqual(self.get().outcome, Outcome.MISS)

    def test_too_large(self) -> None:
        """An answer beyond the limit is refused."""
        self.wrong(Fault(body=b" " * (1024 * 1024 + 1)))

    def test_cut(self) -> None:
        """Half a manifest is none."""
        self.wrong(Fault(cut_at=20))

    def test_no_manifest(self) -> None:
        """What says it is a manifest and is not is refused, though the digest is right."""
        for data in (b"no JSON", b"[]", b"[" * 100_000, b'{"layers": 5}'):
            digest = self.agent.add_manifest(ORIGIN, REPOSITORY, data, OCI_MANIFEST)
            self.error(self.ask(digest), 502)
            self.assertIsNone(self.stored(digest))

    def test_other_types(self) -> None:
        """What is no manifest that can be kept is passed on and asked for each time."""
        digest = self.agent.add_manifest(ORIGIN, REPOSITORY, b"hello", "text/plain")
        for _ in range(2):
            served = self.get(digest)
            self.assertEqual((served.outcome, served.data), (Outcome.RELAY, b"hello"))
        self.assertIsNone(self.stored(digest))


class TroubleTests(ManifestsCase):
    """Disks that fail."""

    def test_not_kept(self) -> None:
        """A manifest that cannot be stored is served, and from memory while it lasts."""
        self.disk.broken = {"put"}
        self.assertEqual(self.get().outcome, Outcome.MISS)
        self.assertEqual(self.get().outcome, Outcome.HIT)
        self.restart()
        self.assertEqual(self.get().outcome, Outcome.MISS)

    def test_changed_on_disk(self) -> None:
        """Bit rot is found when a manifest is read, and mended from upstream."""
        self.get()
        for rotten in (DATA[:-1] + b" ", DATA[:-1], b""):
            self.store.path(DIGEST).write_bytes(rotten)
            self.restart()
            self.assertEqual(self.get().data, DATA)
            self.assertEqual(self.stored(DIGEST), DATA)

    def test_larger_than_the_limit(self) -> None:
        """What was kept under a larger limit stays, though it is not read under this one."""
        self.get()
        self.manifests = self.new_manifests(limit=len(DATA) - 1)
        self.error(self.ask(), 502)
        self.assertEqual(self.stored(DIGEST), DATA)
        self.restart()
        self.assertEqual(self.get().outcome, Outcome.HIT)

    def test_commits_apart(self) -> None:
        """What waits for fsync is in nobody's way."""
        commits = FaultyWorker()
        self.manifests = self.new_manifests(commits=commits)
        self.get()
        self.assertEqual((commits.ran, self.disk.ran), (["put"], []))

    def test_large(self) -> None:
        """A large manifest is hashed and parsed in a thread, and so it is when it is read back."""
        large = image(b"layer", annotations={"a": "x" * 65536})
        digest = self.agent.add_manifest(ORIGIN, REPOSITORY, large, OCI_MANIFEST)
        hashing = FaultyWorker()
        self.manifests = self.new_manifests(hashing=hashing)
        self.get()
        self.assertEqual(hashing.ran, [])
        for _ in range(2):
            self.assertEqual(self.get(digest).data, large)
        self.assertEqual(hashing.ran, ["of", "parse_references"])
        self.manifests = self.new_manifests(hashing=hashing)
        self.assertEqual(self.get(digest).outcome, Outcome.HIT)
        self.assertEqual(hashing.ran, ["of", "parse_references", "of"])

    def test_gone_from_disk(self) -> None:
        """A manifest that was evicted is fetched again."""
        self.get()
        self.store.set_aside(DIGEST)
        self.restart()
        self.assertEqual(self.get().outcome, Outcome.MISS)

    def test_memory(self) -> None:
        """Memory holds the latest ones, in bytes and not in number."""
        data = [image(bytes([n])) for n in range(4)]
        digests = [self.agent.add_manifest(ORIGIN, REPOSITORY, each, OCI_MANIFEST) for each in data]
        self.patch_memory(3 * len(data[0]))
        for digest in digests[:3]:
            self.get(digest)
        self.get(digests[0])
        self.get(digests[3])
        for digest in digests:
            self.store.set_aside(digest)
        self.down()
        for digest in (digests[0], digests[2], digests[3]):
            self.assertEqual(self.get(digest).outcome, Outcome.HIT)
        self.error(self.ask(digests[1]), 502)

    def patch_memory(self, size: int) -> None:
        """Leaves room for *size* bytes."""
        self.patch(manifests, "_MEMORY", size)
