"""The way in for twistd: options and wiring; nothing else builds concrete things."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.application.service import MultiService
from twisted.application.strports import service as listening_service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import Certificate, CertificateOptions
from twisted.python import usage

from regproxy.access.grants import Grants
from regproxy.access.tokens import AnonymousTokens
from regproxy.admin.health import AdminSite, Health
from regproxy.cache.fills import Fills
from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.index import Index
from regproxy.cache.manifests import Manifests
from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.config import AccessLogFormat, Config, Registry
from regproxy.config import Listener as ListenerConfig
from regproxy.config_file import ConfigError, load_config
from regproxy.front.accesslog import AccessLog, format_json, format_logfmt
from regproxy.front.blobs import BlobAnswers
from regproxy.front.connections import Connections
from regproxy.front.delivery import Deliveries
from regproxy.front.listeners import (
    Listener,
    load_certificates,
    load_private_key,
    tls_options,
)
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.resource import RegistryResource, Rooms
from regproxy.front.site import ClientLimits, LimitedSite
from regproxy.memory import keep_freed_memory
from regproxy.service import CacheService, RegproxyService, Threads
from regproxy.upstream.client import Upstream
from regproxy.upstream.connecting import make_agent
from regproxy.upstream.exchange import Exchange

_DISK_THREADS = 8
_HASH_THREADS = 2
_COMMIT_THREADS = 4


class Options(usage.Options):
    """Command line of ``twistd regproxy``."""

    synopsis = "[--config FILE]"
    optParameters = [  # noqa: RUF012  # Twisted's way to declare options
        [
            "config",
            "c",
            None,
            "Configuration file (TOML); without it a default serves on 127.0.0.1.",
        ]
    ]

    def postOptions(self) -> None:
        """Reads the configuration.

        Raises:
            SystemExit: It is not usable; its one line says where and why.
        """
        path = Path(self["config"]) if self["config"] is not None else None
        try:
            self.settings = load_config(path, os.environ)
        except ConfigError as error:
            # A UsageError would bury the line under the whole usage text.
            raise SystemExit(f"regproxy: {error}") from error

    @property
    def file(self) -> str:
        """The configuration file as it was named."""
        return str(self["config"])

    @property
    def logs_by_default(self) -> bool:
        """Whether twistd was told nothing about where its log goes."""
        twistd: Any = self.parent or {}
        return not any(twistd.get(name) for name in ("logfile", "logger", "syslog"))


def make_service(options: Options, reactor: Any = None) -> MultiService:
    """The service that twistd runs.

    Args:
        options: The command line, read.
        reactor: Runs everything; by default the one that twistd has installed.

    Raises:
        SystemExit: A file that the configuration names cannot be used; its one line says why.
    """
    if reactor is None:
        from twisted.internet import reactor
    config = options.settings
    clock: IReactorTime = reactor
    keep_freed_memory()
    threads = Threads(reactor, [])
    disk = threads.worker("disk", _DISK_THREADS)
    hashing = threads.worker("hash", _HASH_THREADS)
    # A flush may take seconds on a slow disk: reads and writes must not wait behind it.
    commits = threads.worker("commit", _COMMIT_THREADS)
    index_worker = threads.worker("index", 1)
    log_worker = threads.worker("log", 1)

    access_log = AccessLog(
        clock,
        log_worker,
        sys.__stdout__.fileno() if sys.__stdout__ is not None else 1,
        format_json if config.access_log is AccessLogFormat.JSON else format_logfmt,
    )
    store = Store(config.cache.directory)
    index = Index(config.cache.directory / "index.sqlite", clock, index_worker)
    reader = FileReader(disk)
    fills = Fills(store, clock, disk, hashing, config.timeouts.silence, index.put_blob, commits)
    manifests = Manifests(
        store,
        index,
        clock,
        disk,
        reader,
        config.limits.manifest_size,
        commits=commits,
        hashing=hashing,
    )
    rooms = _rooms(options, reactor, store, index, fills, manifests, reader)

    service = RegproxyService(log_to_stderr=options.logs_by_default)
    CacheService(threads, store, index, access_log).setServiceParent(service)
    front = MultiService()
    front.setServiceParent(service)
    connections = Connections(config.limits.connections)
    for number, listener in enumerate(config.listeners):
        site = LimitedSite(
            RegistryResource(rooms, clock, access_log),
            ClientLimits(
                header_size=config.limits.header_size,
                request_headers=config.timeouts.request_headers,
                idle=config.timeouts.idle,
                write_stall=config.timeouts.write_stall,
            ),
            connections,
            access_log,
            reactor,
        )
        tls = _tls(listener, f"listeners[{number}]", options.file)
        Listener(
            reactor, clock, listener.endpoint, site, tls, config.timeouts.drain
        ).setServiceParent(front)
    if config.admin.endpoint is not None:
        health = Health(lambda: {"fills": len(fills)})
        listening_service(
            config.admin.endpoint, AdminSite(health, reactor), reactor=reactor
        ).setServiceParent(front)
    return service


def _rooms(
    options: Options,
    reactor: Any,
    store: Store,
    index: Index,
    fills: Fills,
    manifests: Manifests,
    reader: FileReader,
) -> Rooms:
    """What a request's pipeline walks through."""
    config = options.settings
    clock: IReactorTime = reactor
    limit = config.limits.manifest_size
    rules = {
        name: FreshnessRules(
            tag_ttl=registry.tag_ttl,
            stale_if_error=config.cache.stale_if_error,
            revalidate=config.timeouts.revalidate,
        )
        for name, registry in config.registries.items()
    }
    silence, stall = config.timeouts.silence, config.timeouts.write_stall
    deliveries = Deliveries(reader, clock, stall, descriptors=reactor)
    grants = Grants(index, lambda digest: fills.running(digest) or store.holds(digest))
    return Rooms(
        lookup=config,
        upstreams={
            name: _upstream(registry, config, options.file, reactor)
            for name, registry in config.registries.items()
        },
        manifests=ManifestAnswers(manifests, Freshness(index, manifests, clock, limit), rules),
        blobs=BlobAnswers(store, index, fills, grants, deliveries, silence),
        relays=RelayAnswers(clock, silence, stall),
        headers_timeout=config.timeouts.headers,
    )


def _upstream(registry: Registry, config: Config, file: str, reactor: Any) -> Upstream:
    """One registry, with a pool of connections of its own."""
    agent = make_agent(
        reactor,
        connections=registry.connections,
        connect_timeout=config.timeouts.connect,
        certificates=_trusted(registry, file),
    )
    exchange = Exchange(agent, reactor)
    tokens = AnonymousTokens(exchange, reactor, registry.upstream, config.timeouts.headers)
    return Upstream(
        registry.name,
        registry.upstream,
        exchange,
        tokens,
        reactor,
        connections=registry.connections,
        headers_timeout=config.timeouts.headers,
    )


def _tls(listener: ListenerConfig, key: str, file: str) -> CertificateOptions | None:
    """What a listener shows its clients, None for a plain one.

    Args:
        listener: Its configuration.
        key: Where that stands.
        file: In which file.

    Raises:
        SystemExit: Its files cannot be used.
    """
    certificate, private_key = listener.certificate, listener.private_key
    if certificate is None or private_key is None:
        return None
    with _refused(file, f"{key}.certificate", certificate, "a file with PEM certificates"):
        chain = load_certificates(certificate)
    with _refused(file, f"{key}.private_key", private_key, "a file with a PEM key, not encrypted"):
        loaded = load_private_key(private_key)
    expected = f'the key of the certificate in "{certificate}"'
    with _refused(file, f"{key}.private_key", private_key, expected):
        return tls_options(chain, loaded)


def _trusted(registry: Registry, file: str) -> list[Certificate]:
    """The certificates that may vouch for a registry, none for the platform's.

    Raises:
        SystemExit: Their file cannot be used.
    """
    path = registry.ca_file
    if path is None:
        return []
    key = f'registries."{registry.name}".ca_file'
    with _refused(file, key, path, "a file with PEM certificates"):
        return [Certificate(crypto.X509.from_cryptography(c)) for c in load_certificates(path)]


@contextlib.contextmanager
def _refused(file: str, key: str, path: Path, expected: str) -> Iterator[None]:
    """Ends the process with the one line that every mistake in the configuration gets."""
    try:
        yield
    except (OSError, ValueError) as error:
        refusal = ConfigError(file, key, f'"{path}"', expected)
        raise SystemExit(f"regproxy: {refusal}") from error


makeService = make_service  # noqa: N816  # the name that twistd looks for
