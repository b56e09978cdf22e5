"""The way in for twistd: options and wiring; nothing else builds concrete things."""

from __future__ import annotations

import os
import sqlite3
import sys
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define
from cryptography import x509
from OpenSSL import crypto
from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.application.strports import service as listening_service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import Certificate, CertificateOptions
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, textFileLogObserver
from twisted.python import usage
from twisted.python.threadpool import ThreadPool

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
from regproxy.config_file import ConfigError, load_config
from regproxy.front.accesslog import AccessLog, format_json, format_logfmt
from regproxy.front.blobs import BlobAnswers
from regproxy.front.connections import Connections
from regproxy.front.delivery import Deliveries
from regproxy.front.listeners import Listener, tls_options
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.resource import RegistryResource, Rooms
from regproxy.front.site import ClientLimits, LimitedSite
from regproxy.memory import keep_freed_memory
from regproxy.upstream.client import Upstream
from regproxy.upstream.connecting import make_agent
from regproxy.upstream.exchange import Exchange
from regproxy.worker import Worker

_log = Logger()

_DISK_THREADS = 8
_HASH_THREADS = 2


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
    def logs_by_default(self) -> bool:
        """Whether twistd was told nothing about where its log goes."""
        twistd: Any = self.parent or {}
        return not any(twistd.get(name) for name in ("logfile", "logger", "syslog"))


class RegproxyService(MultiService):
    """Everything that runs; stopped from the listeners inwards."""

    def __init__(self, *, log_to_stderr: bool) -> None:
        """Args:
        log_to_stderr: Whether the application's log goes to stderr, since the access log has
            stdout to itself.
        """
        super().__init__()
        self._log_to_stderr = log_to_stderr

    def privilegedStartService(self) -> None:
        """Opens the cache and binds.

        Raises:
            SystemExit: One of them cannot be had; its one line says which and why.
        """
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError, sqlite3.Error, ValueError) as error:
            # A traceback would bury the one line that matters.
            raise SystemExit(f"regproxy: cannot start: {_one_line(error)}") from error

    def stopService(self) -> Deferred[None]:
        """Stops what came last first, and each only when the one before is done."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for service in reversed(list(self)):
            await maybeDeferred(service.stopService)

    def setServiceParent(self, parent: Any) -> None:
        """Also gives twistd its log observer: this is the one moment at which it can be had."""
        if self._log_to_stderr and parent.getComponent(ILogObserver, None) is None:
            parent.setComponent(ILogObserver, textFileLogObserver(sys.__stderr__ or sys.stderr))
        super().setServiceParent(IServiceCollection(parent))


@define
class Threads:
    """The pools in which blocking work runs, each for one kind of it."""

    reactor: Any
    pools: list[ThreadPool]

    def worker(self, name: str, threads: int) -> Worker:
        """A worker with a pool of its own."""
        pool = ThreadPool(0, threads, f"regproxy-{name}")
        self.pools.append(pool)
        return partial(deferToThreadPool, self.reactor, pool)

    def start(self) -> None:
        """Starts all pools."""
        for pool in self.pools:
            pool.start()

    def stop(self) -> None:
        """Stops all pools when their jobs are done."""
        for pool in self.pools:
            pool.stop()


class CacheService(Service):
    """Opens the cache before the first listener and closes it after the last."""

    def __init__(self, threads: Threads, store: Store, index: Index, access_log: AccessLog) -> None:
        """Args:
        threads: The pools.
        store: Prepared at the start.
        index: Opened at the start.
        access_log: Emptied at the stop.
        """
        self._threads = threads
        self._store = store
        self._index = index
        self._access_log = access_log

    def privilegedStartService(self) -> None:
        """Prepares the directories and opens the index; twistd reports what is raised."""
        removed = self._store.prepare()
        if removed:
            _log.info("cache: {removed} unfinished parts removed", removed=removed)
        self._index.open()

    def startService(self) -> None:
        """Starts the pools."""
        super().startService()
        self._threads.start()

    def stopService(self) -> Deferred[None]:
        """Writes what is still to be written."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._index.close()
        await self._access_log.close()
        self._threads.stop()


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
    fills = Fills(store, clock, disk, hashing, config.timeouts.silence, index.put_blob)
    rooms = _rooms(config, reactor, store, index, fills, disk, reader)

    service = RegproxyService(log_to_stderr=options.logs_by_default)
    CacheService(threads, store, index, access_log).setServiceParent(service)
    front = MultiService()
    front.setServiceParent(service)
    connections = Connections(config.limits.connections)
    for listener in config.listeners:
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
        tls = None
        if listener.certificate is not None and listener.private_key is not None:
            tls = _tls(listener.certificate, listener.private_key)
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
    config: Config,
    reactor: Any,
    store: Store,
    index: Index,
    fills: Fills,
    disk: Worker,
    reader: FileReader,
) -> Rooms:
    """What a request's pipeline walks through."""
    clock: IReactorTime = reactor
    limit = config.limits.manifest_size
    manifests = Manifests(store, index, clock, disk, reader, limit)
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
            name: _upstream(registry, config, reactor)
            for name, registry in config.registries.items()
        },
        manifests=ManifestAnswers(manifests, Freshness(index, manifests, clock, limit), rules),
        blobs=BlobAnswers(store, index, fills, grants, deliveries, silence),
        relays=RelayAnswers(clock, silence, stall),
        headers_timeout=config.timeouts.headers,
    )


def _upstream(registry: Registry, config: Config, reactor: Any) -> Upstream:
    """One registry, with a pool of connections of its own."""
    agent = make_agent(
        reactor,
        connections=registry.connections,
        connect_timeout=config.timeouts.connect,
        certificates=_certificates(registry.ca_file) if registry.ca_file is not None else (),
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


def _certificates(path: Path) -> list[Certificate]:
    """The certificates in a PEM file.

    Raises:
        SystemExit: It has none.
    """
    try:
        loaded = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SystemExit(f"regproxy: {path}: {_one_line(error)}") from error
    return [Certificate(crypto.X509.from_cryptography(certificate)) for certificate in loaded]


def _tls(certificate: Path, private_key: Path) -> CertificateOptions:
    """What a TLS listener shows.

    Raises:
        SystemExit: The files cannot be used.
    """
    try:
        return tls_options(certificate, private_key)
    except (OSError, ValueError) as error:
        raise SystemExit(f"regproxy: {certificate}, {private_key}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


makeService = make_service  # noqa: N816  # the name that twistd looks for
