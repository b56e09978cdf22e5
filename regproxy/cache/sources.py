"""Where a fill can read from, and which of these places has answered."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.errors import RegistryError, upstream_failed
from regproxy.upstream.exchange import Answer


class Source(Protocol):
    """Where a fill can read from: a registry, a repository, a credential."""

    @property
    def name(self) -> str:
        """Registry and repository, for the log."""

    async def open(self, digest: Digest, start: int, deadline: Deadline) -> Answer:
        """The blob's bytes from *start* on.

        Raises:
            RegistryError: What the registry refused, or why it could not be asked.
        """

    def deadline(self) -> Deadline:
        """By when an answer's headers must be there, asked for now."""

    def enter(self) -> Deferred[None]:
        """Fires when a transfer may start; `leave` must follow."""

    def leave(self) -> None:
        """A transfer is over."""


class Sources:
    """The sources of one blob.

    Attributes:
        senders: Those that have answered: any of these may have sent wrong bytes.
    """

    def __init__(self, digest: Digest, first: Source) -> None:
        """Args:
        digest: Which blob.
        first: Asked before all others.
        """
        self.senders: list[Source] = []
        self._digest = digest
        self._known: list[Source] = [first]

    def add(self, source: Source) -> None:
        """One more source, behind those that are known."""
        if source not in self._known:
            self._known.append(source)

    async def ask(self, start: int) -> tuple[Source, Answer]:
        """The first answer that a source gives; its place is held until the transfer is over.

        Args:
            start: First byte wanted.

        Raises:
            RegistryError: What the last source refused, or why it could not be asked.
        """
        error: RegistryError = upstream_failed("no source")
        tried: list[Source] = []
        # A joiner may add its source while another one is asked.
        while untried := [source for source in self._known if source not in tried]:
            source = untried[0]
            tried.append(source)
            await source.enter()
            try:
                answer = await source.open(self._digest, start, source.deadline())
            except RegistryError as refused:
                source.leave()
                error = refused
            except BaseException:
                source.leave()
                raise
            else:
                if source not in self.senders:
                    self.senders.append(source)
                return source, answer
        raise error
