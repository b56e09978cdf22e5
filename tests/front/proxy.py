"""The whole proxy in memory: every room is the real one, and only the ends are fakes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.access.grants import Grants
from regproxy.access.tokens import AnonymousTokens
from regproxy.cache.fills import Fills
from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.index import Index
from regproxy.cache.manifests import Manifests
from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.config_tables import Registry
from regproxy.front.accesslog import AccessLog
from regproxy.front.blobs import BlobAnswers
from regproxy.front.connect import TunnelPolicy
from regproxy.front.connections import Connections
from regproxy.front.delivery import Deliveries
from regproxy.front.forward import ForwardProxy
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.pages import Pages
from regproxy.front.passing import PassingAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.resource import RegistryResource, Rooms
from regproxy.front.sealing import Seals
from regproxy.front.site import ClientLimits, LimitedSite
from regproxy.front.uploads import PURPOSE, Uploads
from regproxy.model.digest import Digest
from regproxy.model.hosts import HostPort
from regproxy.model.mediatypes import OCI_MANIFEST
from regproxy.testing import ImmediateWorker, MemoryAnswer, MemoryClient, ScriptedUpstream
from regproxy.testing.client import HeaderValues
from regproxy.upstream.client import Upstream
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.passing import passing_places
from regproxy.worker import Worker

HUB = "https://registry-1.docker.io"
QUAY = "https://quay.io"
CORP = "http://registry.corp:5000"

ALPINE = "library/alpine"
DATA = bytes(range(256)) * 1200
TAG_TTL = 300.0
HEADERS_TIMEOUT = 25.0
SILENCE = 60.0
VIA = "regproxy-0123456789abcdef"
AUTHORITY = b"-----BEGIN CERTIFICATE-----"

LIMITS = ClientLimits(header_size=16 * 1024, request_headers=20.0, idle=75.0, write_stall=60.0)

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
_TURN = 0.005


@frozen
class Names:
    """The registries of these tests: three, one of them with an alias and a port."""

    default_registry: str = "docker.io"
    _names: dict[str, str] = field(
        factory=lambda: {
            "docker.io": "docker.io",
            "quay.io": "quay.io",
            "registry.corp:5000": "registry.corp:5000",
            "corp": "registry.corp:5000",
        }
    )

    def find(self, name: str) -> str | None:
        """See RegistryLookup."""
        return self._names.get(name)

    def known(self) -> Sequence[str]:
        """See RegistryLookup."""
        return sorted(set(self._names.values()))

    def hosted(self, host: HostPort) -> str | None:
        """See HostLookup."""
        return self._names.get(str(host)) or self._names.get(host.name)

    def is_own(self, host: HostPort) -> bool:
        """See HostLookup."""
        return host.name == "proxy.corp"

    @property
    def registries(self) -> Mapping[str, Registry]:
        """See ConfiguredRegistries."""
        return {name: Registry(name) for name in self.known()}


class Proxy:
    """A proxy that no socket leads to; what it caches is in a directory that outlives it.

    Attributes:
        clock: Stands still between the steps of a test.
        upstream: All upstreams there are.
        store: Has the blobs.
        index: Knows of them.
        fills: Those that run.
        site: Builds the protocol of each client's connection.
        access_log: Written to a file below the directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        upstream: ScriptedUpstream | None = None,
        clock: Clock | None = None,
        disk: Worker | None = None,
        hashing: Worker | None = None,
        limits: ClientLimits = LIMITS,
        connections: int = 100,
        descriptors: IReactorFDSet | None = None,
    ) -> None:
        """Args:
        directory: Its cache.
        upstream: Of another proxy, with its clock; new ones otherwise.
        clock: The one that *upstream* has.
        disk: Runs writes.
        hashing: Runs hash jobs.
        limits: What clients may do.
        """
        self.clock = clock or Clock()
        self.upstream = upstream or ScriptedUpstream(self.clock)
        disk = disk or ImmediateWorker()
        hashing = hashing or ImmediateWorker()
        directory.mkdir(exist_ok=True)
        self._log_path = directory / "access.log"
        self._log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.access_log = AccessLog(self.clock, ImmediateWorker(), self._log)
        self.store = Store(directory)
        self.store.prepare()
        self.index = Index(directory / "index.sqlite", self.clock, ImmediateWorker())
        self.index.open()
        self.fills = Fills(self.store, self.clock, disk, hashing, SILENCE, self.index.put_blob)
        self.rooms = self._rooms(disk, limits, descriptors)
        self.site = LimitedSite(
            RegistryResource(self.rooms, self.clock, self.access_log),
            limits,
            Connections(connections),
            self.access_log,
            self.clock,
        )
        self.site.doStart()

    def _rooms(
        self, disk: Worker, limits: ClientLimits, descriptors: IReactorFDSet | None
    ) -> Rooms:
        clock, reader = self.clock, FileReader(disk)
        manifests = Manifests(self.store, self.index, clock, disk, reader, 4 * 1024 * 1024)
        rules = FreshnessRules(tag_ttl=TAG_TTL, stale_if_error=86_400.0, revalidate=3.0)
        upstreams = {
            name: self._upstream(name, url)
            for name, url in (("docker.io", HUB), ("quay.io", QUAY), ("registry.corp:5000", CORP))
        }
        freshness = Freshness(self.index, manifests, clock, 4 * 1024 * 1024)
        passing = PassingAnswers(clock, SILENCE, limits.write_stall, VIA)
        return Rooms(
            lookup=Names(),
            upstreams=upstreams,
            manifests=ManifestAnswers(
                manifests,
                freshness,
                dict.fromkeys(upstreams, rules),
            ),
            blobs=BlobAnswers(
                self.store,
                self.index,
                self.fills,
                Grants(self.index, lambda d: self.fills.running(d) or self.store.holds(d)),
                Deliveries(reader, clock, limits.write_stall, descriptors),
                SILENCE,
            ),
            relays=RelayAnswers(clock, SILENCE, limits.write_stall),
            uploads=Uploads(
                passing,
                freshness,
                self.index,
                Names(),
                {"quay.io", "registry.corp:5000"},
                Seals(lambda: bytes(32), PURPOSE, clock),
            ),
            passing=passing,
            others={name: upstreams[name].passage for name in ("docker.io", "quay.io")},
            forward=ForwardProxy(
                TunnelPolicy.of(("*.example:80",)),
                Exchange(self.upstream, clock, VIA),
                passing,
                clock,
                passing_places(clock),
            ),
            pages=Pages(lambda: AUTHORITY, Names()),
            headers_timeout=HEADERS_TIMEOUT,
            via=VIA,
        )

    def _upstream(self, name: str, url: str) -> Upstream:
        exchange = Exchange(self.upstream, self.clock, VIA)
        return Upstream(
            name,
            url,
            exchange,
            AnonymousTokens(exchange, self.clock, url, HEADERS_TIMEOUT),
            self.clock,
            connections=4,
            headers_timeout=HEADERS_TIMEOUT,
        )

    def stop(self) -> None:
        """Closes the files."""
        self.index.close()
        self.access_log.close()
        os.close(self._log)

    # Clients

    def client(self, *, reading: bool = True) -> MemoryClient:
        """A client that has connected."""
        return MemoryClient(self.site, self.clock, reading=reading)

    def settle(self, turns: int = 20) -> None:
        """Lets everything happen that takes no time to speak of."""
        self.clock.pump([_TURN] * turns)

    def ask(
        self, target: str, headers: HeaderValues | None = None, method: str = "GET"
    ) -> MemoryAnswer:
        """An answer on a connection of its own, as far as it comes at once."""
        answer = self.client().request(method, target, headers)
        self.settle()
        return answer

    def head(self, target: str, headers: HeaderValues | None = None) -> MemoryAnswer:
        """As `ask`, for the head alone."""
        return self.ask(target, headers, "HEAD")

    # Content

    def add_manifest(
        self,
        *layers: bytes,
        origin: str = HUB,
        repository: str = ALPINE,
        tag: str = "latest",
        media_type: str = OCI_MANIFEST,
    ) -> tuple[Digest, bytes]:
        """Puts an image with these layers into a repository; the manifest and its digest."""
        config = self.upstream.add_blob(origin, repository, b'{"os":"linux"}')
        data = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": _descriptor(config, 14, "application/vnd.oci.image.config.v1+json"),
                "layers": [
                    _descriptor(
                        self.upstream.add_blob(origin, repository, layer),
                        len(layer),
                        "application/vnd.oci.image.layer.v1.tar",
                    )
                    for layer in layers
                ],
            }
        ).encode()
        return self.upstream.add_manifest(origin, repository, data, media_type, tag), data

    # What was said

    @property
    def log_text(self) -> str:
        """The access log as written so far."""
        self.clock.advance(0.05)
        return self._log_path.read_text()

    @property
    def lines(self) -> list[dict[str, str]]:
        """The access log, a dict for each line."""
        return [parse_logfmt(line) for line in self.log_text.splitlines()]


def parse_logfmt(line: str) -> dict[str, str]:
    """The pairs of a line, quotes undone."""
    return {
        key: json.loads(value) if value.startswith('"') else value
        for key, value in _FIELD.findall(line)
    }


def _descriptor(digest: Digest, size: int, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


class ProxyCase(SynchronousTestCase):
    """A proxy whose docker.io has one blob in one repository.

    Attributes:
        proxy: Has cached nothing yet.
        digest: Of `DATA`.
        blob: The target of a request for it, through the mirror way in.
        path: The end of its URL upstream.
    """

    def setUp(self) -> None:
        """Puts `DATA` into `ALPINE`."""
        self.proxy = self.make_proxy()
        self.upstream, self.clock = self.proxy.upstream, self.proxy.clock
        self.digest = self.upstream.add_blob(HUB, ALPINE, DATA)
        self.blob = f"/v2/{ALPINE}/blobs/{self.digest}"
        self.path = f"/blobs/{self.digest}"

    def make_proxy(
        self,
        *,
        disk: Worker | None = None,
        hashing: Worker | None = None,
        limits: ClientLimits = LIMITS,
        connections: int = 100,
        descriptors: IReactorFDSet | None = None,
    ) -> Proxy:
        """A proxy on a new cache, stopped after the test."""
        proxy = Proxy(
            Path(self.mktemp()),
            disk=disk,
            hashing=hashing,
            limits=limits,
            connections=connections,
            descriptors=descriptors,
        )
        self.addCleanup(proxy.stop)
        return proxy

    def fill(self) -> None:
        """Has the blob stored."""
        answer = self.proxy.ask(self.blob)
        self.assertEqual((answer.status, answer.complete), (200, True))

    def assert_whole(self, answer: MemoryAnswer, body: bytes = DATA, status: int = 200) -> None:
        """Asserts that an answer is complete and has exactly this body."""
        self.assertEqual(answer.status, status, answer.body[:300])
        self.assertTrue(answer.complete, f"{len(answer.body)} bytes are there")
        # The bodies are too long for a message.
        self.assertTrue(answer.body == body, f"{len(answer.body)} bytes, and not the right ones")

    def assert_error(self, answer: MemoryAnswer, status: int, code: str) -> str:
        """Asserts that an answer is an OCI error, and returns its message."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertTrue(answer.complete)
        self.assertEqual(answer.header("Content-Type"), "application/json")
        (error,) = json.loads(answer.body)["errors"]
        self.assertEqual(error["code"], code)
        return str(error["message"])

    def assert_cut(self, answer: MemoryAnswer) -> None:
        """Asserts that the connection ended in a way that no client takes for the end."""
        self.assertFalse(answer.complete)
        self.assertTrue(answer.disconnected)
        self.assertTrue(answer.aborted)
