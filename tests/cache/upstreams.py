"""What tests against a registry in memory have in common."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from regproxy.cache.fills import RegistrySource
from regproxy.cache.index import Index
from regproxy.cache.manifests import Manifests
from regproxy.cache.reading import FileReader
from regproxy.deadline import Deadline
from regproxy.model.digest import Digest
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.testing import HeldWorker, ScriptedUpstream
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Exchange
from tests.cache.case import FaultyWorker, StoreCase

T = TypeVar("T")

NAME = "registry.test"
ORIGIN = f"https://{NAME}"
REPOSITORY = "team/app"
LIMIT = 1024 * 1024


class NoCredentials:
    """An authorizer that has none."""

    def authorization(self, scope: str) -> str | None:
        """See Authorizer."""
        return None

    async def answer(
        self, challenges: Sequence[str], scope: str, refused: str | None, deadline: Deadline
    ) -> str | None:
        """See Authorizer."""
        return None


def image(*layers: bytes, **more: Any) -> bytes:
    """A manifest with a config and these layers."""
    config = {"digest": str(Digest.of(b"{}")), "size": 2, "mediaType": "application/json"}
    descriptors = [
        {"digest": str(Digest.of(layer)), "size": len(layer), "mediaType": "application/x"}
        for layer in layers
    ]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": descriptors}
        | more
    ).encode()


def index_of(*children: bytes) -> bytes:
    """An index of these manifests."""
    descriptors = [
        {"digest": str(Digest.of(child)), "size": len(child), "mediaType": OCI_MANIFEST}
        for child in children
    ]
    return json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()


class RegistryCase(StoreCase):
    """A registry, a store and an index.

    Attributes:
        agent: Plays the registry.
        upstream: The registry as the proxy asks it.
        disk: Breaks writes to the store.
        index: Opened.
    """

    def setUp(self) -> None:
        """Adds an empty registry."""
        super().setUp()
        # The clock of a machine does not start at 0 either.
        self.clock.advance(1_000_000)
        self.agent = ScriptedUpstream(self.clock)
        self.agent.add_blob(ORIGIN, "some/thing", b"")
        self.upstream = self.registry(NAME)
        self.source = RegistrySource(self.upstream, REPOSITORY)
        self.disk = FaultyWorker()
        self.index = Index(self.directory / "index.sqlite", self.clock, FaultyWorker())
        self.index.open()
        self.addCleanup(self._close_index)
        self.manifests = self.new_manifests()

    def registry(self, name: str) -> Upstream:
        """The registry of that name."""
        return Upstream(
            name,
            f"https://{name}",
            Exchange(self.agent, self.clock),
            NoCredentials(),
            self.clock,
            connections=2,
            headers_timeout=25.0,
        )

    def new_manifests(
        self,
        *,
        limit: int = LIMIT,
        commits: FaultyWorker | None = None,
        hashing: FaultyWorker | None = None,
    ) -> Manifests:
        """As after a restart: nothing in memory."""
        return Manifests(
            self.store,
            self.index,
            self.clock,
            self.disk,
            FileReader(HeldWorker()),
            limit,
            commits=commits,
            hashing=hashing,
        )

    def deadline(self, seconds: float = 25.0) -> Deadline:
        """A client's patience."""
        return Deadline.after(self.clock, seconds)

    def begin(self, question: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Asks, and lets everything happen that happens at once."""
        waiting = Deferred.fromCoroutine(question)
        self.clock.advance(0)
        return waiting

    def _close_index(self) -> None:
        self.successResultOf(self.index.close())
