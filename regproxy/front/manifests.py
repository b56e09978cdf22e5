"""Manifests for clients, by tag and by digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.manifests import Manifests, ServedManifest
from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.model.mediatypes import accept_variant
from regproxy.model.route import Manifest, ManifestByTag, Route
from regproxy.upstream.client import Upstream


@frozen
class ManifestAnswers:
    """Answers requests for manifests.

    Attributes:
        manifests: Knows them by digest.
        freshness: Knows what tags mean.
        rules: How long that holds, by registry.
    """

    manifests: Manifests
    freshness: Freshness
    rules: Mapping[str, FreshnessRules]

    async def by_tag(
        self,
        client: Client,
        route: Route,
        asked: ManifestByTag,
        upstream: Upstream,
        deadline: Deadline,
    ) -> None:
        """Answers with what a tag means.

        Raises:
            RegistryError: Why it cannot be told.
        """
        served = await self.freshness.get(
            upstream,
            route.repository,
            asked.tag,
            accept_variant(client.headers("accept")),
            self.rules[route.registry],
            deadline,
            head=client.is_head,
        )
        # RFC 9110 section 12.5.5: another Accept may get another manifest.
        _send(client, served, [("Vary", "Accept")])

    async def by_digest(
        self,
        client: Client,
        route: Route,
        asked: Manifest,
        upstream: Upstream,
        deadline: Deadline,
    ) -> None:
        """Answers with the manifest that has a digest.

        Raises:
            RegistryError: Why it cannot be served.
        """
        served = await self.manifests.get(upstream, route.repository, asked.digest, deadline)
        _send(client, served)


def _send(client: Client, served: ServedManifest, headers: Sequence[tuple[str, str]] = ()) -> None:
    headers = [("Docker-Distribution-Api-Version", "registry/2.0"), *headers]
    if served.digest is not None:
        digest = str(served.digest)
        headers += [("Docker-Content-Digest", digest), ("ETag", f'"{digest}"')]
        if client.matches(f'"{digest}"'):
            client.head(304, headers, served.outcome)
            client.finish()
            return
    if served.media_type:
        headers.append(("Content-Type", served.media_type))
    if served.size is not None:
        headers.append(("Content-Length", str(served.size)))
    client.head(200, headers, served.outcome)
    client.finish(served.data or b"")
