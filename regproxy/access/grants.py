"""Grants: whether an anonymous client may have a blob of a repository.

A digest is no credential: that a blob is in the store, or on its way there, says nothing about the
repository through which somebody asks for it.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.upstream.client import Upstream


class Proof(Protocol):
    """That a repository holds a digest."""

    @property
    def size(self) -> int | None:
        """Bytes of the stored blob, None if nothing is stored or remembered."""


class Proofs(Protocol):
    """What is known of who holds what."""

    def holding(self, registry: str, repository: str, digest: Digest) -> Proof | None:
        """That the repository holds the digest, None if that is not known."""

    def put_holding(self, registry: str, repository: str, digest: Digest) -> None:
        """Remembers that the repository holds the digest."""

    def size(self, digest: Digest) -> int | None:
        """Bytes of a stored blob."""


class Presence(Protocol):
    """What could be served at once."""

    def __call__(self, digest: Digest) -> bool:
        """Whether a digest is stored or being filled."""


@frozen
class Grant:
    """That a client may have a blob.

    Attributes:
        size: The stored blob's size in bytes where it is known.
        proved: Whether the repository is known to hold the blob; if not, it must give the bytes.
    """

    size: int | None
    proved: bool


@frozen
class Grants:
    """Decides by what upstream has shown to anonymous clients.

    Attributes:
        proofs: What is known.
        present: Whether a blob could be served without asking upstream.
    """

    proofs: Proofs
    present: Presence

    async def blob(
        self, upstream: Upstream, repository: str, digest: Digest, deadline: Deadline
    ) -> Grant:
        """What the client may do; that this returns is the grant.

        A blob that is not here needs no proof yet: upstream decides when the fill asks for it.

        Raises:
            RegistryError: Upstream does not give this blob to this client through this
                repository, or cannot be asked.
        """
        proof = self.proofs.holding(upstream.name, repository, digest)
        if proof is not None:
            return Grant(proof.size, proved=True)
        if self.present(digest):
            await self.prove(upstream, repository, digest, deadline)
            return Grant(self.proofs.size(digest), proved=True)
        return Grant(None, proved=False)

    async def prove(
        self, upstream: Upstream, repository: str, digest: Digest, deadline: Deadline
    ) -> None:
        """Asks upstream whether the repository holds the digest, by one HEAD.

        Raises:
            RegistryError: It does not, or cannot be asked.
        """
        await upstream.head_blob(repository, digest, deadline)
        self.proved(upstream, repository, digest)

    def proved(self, upstream: Upstream, repository: str, digest: Digest) -> None:
        """Upstream has just given the digest through the repository."""
        self.proofs.put_holding(upstream.name, repository, digest)
