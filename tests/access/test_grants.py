"""Tests for regproxy.access.grants."""

from __future__ import annotations

from attrs import define, field, frozen

from regproxy.access.grants import Grant, Grants
from regproxy.model.digest import Digest
from regproxy.testing import BEFORE_HEADERS, Fault
from tests.upstream.case import DATA, REGISTRY, REPOSITORY, UpstreamCase


@frozen
class Held:
    """A repository holds a blob of this size."""

    size: int | None


@define
class Knowledge:
    """What is known and what is stored."""

    holdings: dict[tuple[str, str, Digest], Held] = field(factory=dict)
    stored: dict[Digest, int] = field(factory=dict)

    def holding(self, registry: str, repository: str, digest: Digest) -> Held | None:
        """See `Proofs.holding`."""
        return self.holdings.get((registry, repository, digest))

    def put_holding(self, registry: str, repository: str, digest: Digest) -> None:
        """See `Proofs.put_holding`."""
        self.holdings[registry, repository, digest] = Held(self.stored.get(digest))

    def size(self, digest: Digest) -> int | None:
        """See `Proofs.size`."""
        return self.stored.get(digest)


class GrantTests(UpstreamCase):
    """Whether a blob is given to somebody who knows its digest."""

    def setUp(self) -> None:
        """The blob is stored; nobody has shown a right to it yet."""
        super().setUp()
        self.known = Knowledge(stored={self.digest: len(DATA)})
        self.grants = Grants(self.known, lambda digest: digest in self.known.stored)

    def granted(self, repository: str = REPOSITORY) -> Grant:
        """The grant, when it is given at once."""
        return self.result(
            self.grants.blob(self.upstream, repository, self.digest, self.deadline())
        )

    def refused_status(self, repository: str) -> int:
        """The status of the refusal."""
        asking = self.grants.blob(self.upstream, repository, self.digest, self.deadline())
        return self.refused(asking).status

    def test_stored(self) -> None:
        """What is stored is given once the registry says that the repository has it."""
        self.assertEqual(self.granted(), Grant(len(DATA), proved=True))
        self.assertEqual([request.method for request in self.scripted.requests], ["HEAD"])
        self.assertEqual(self.last.path, self.blob)
        self.assert_nothing_left()

    def test_remembered(self) -> None:
        """That is asked once, for each repository."""
        self.scripted.add_blob(REGISTRY, "team/other", DATA)
        for repository in (REPOSITORY, "team/other", REPOSITORY, "team/other"):
            self.assertEqual(self.granted(repository), Grant(len(DATA), proved=True))
        self.assertEqual(self.scripted.count("HEAD"), 2)

    def test_digest_is_no_credential(self) -> None:
        """Through a repository that does not hold it a stored blob is 404, and stays so."""
        self.granted()
        for _ in range(2):
            self.assertEqual(self.refused_status("team/other"), 404)
        self.assertEqual(self.known.holding("registry.test", "team/other", self.digest), None)

    def test_refused(self) -> None:
        """What the registry refuses to an anonymous client is refused, stored or not."""
        for status, told in [(401, 401), (403, 403), (404, 404), (429, 429), (500, 502)]:
            self.scripted.script(Fault(status=status))
            self.assertEqual(self.refused_status(REPOSITORY), told)
        self.assertEqual(self.known.holdings, {})

    def test_unreachable(self) -> None:
        """A registry that cannot be asked gives no grant, but a known one holds without it."""
        self.scripted.hold(self.blob, BEFORE_HEADERS)
        asking = self.grants.blob(self.upstream, REPOSITORY, self.digest, self.deadline(5))
        waiting = self.start(asking)
        self.clock.advance(5)
        self.assertEqual(self.error(waiting).status, 504)
        self.grants.proved(self.upstream, REPOSITORY, self.digest)
        self.assertEqual(self.granted(), Grant(len(DATA), proved=True))

    def test_absent(self) -> None:
        """What is not here needs no proof: the transfer will show whether upstream gives it."""
        self.known.stored.clear()
        self.assertEqual(self.granted("team/other"), Grant(None, proved=False))
        self.assertEqual(self.scripted.requests, [])
        self.assertEqual(self.known.holdings, {})

    def test_filled(self) -> None:
        """What is on its way is here, though nothing is stored and no size is known."""
        self.known.stored.clear()
        self.grants = Grants(self.known, lambda digest: digest == self.digest)
        self.assertEqual(self.granted(), Grant(None, proved=True))
        self.assertEqual(self.scripted.count("HEAD"), 1)
        self.assertEqual(self.refused_status("team/other"), 404)

    def test_registries(self) -> None:
        """What one registry has shown says nothing of another one's repository of that name."""
        self.known.put_holding("other.test", REPOSITORY, self.digest)
        self.granted()
        self.assertEqual(self.scripted.count("HEAD"), 1)
