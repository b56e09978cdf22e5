"""The way in for twistd: options and wiring; nothing else builds concrete things."""

from __future__ import annotations

import functools
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from twisted.application.service import MultiService
from twisted.application.strports import service as listening_service
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.python import usage

from regproxy.access.grants import Grants
from regproxy.access.tokens import AnonymousTokens
from regproxy.admin.health import AdminSite, AuthorityCertificate, Health
from regproxy.cache.fills import Fills
from regproxy.cache.freshness import Freshness, FreshnessRules
from regproxy.cache.index import Index
from regproxy.cache.manifests import Manifests
from regproxy.cache.reading import FileReader
from regproxy.cache.store import Store
from regproxy.config import Config
from regproxy.config_file import ConfigError, load_config
from regproxy.config_files import (
    announce_upstreams,
    client_identity,
    given_certificate,
    trusted_certificates,
)
from regproxy.config_host_values import permits
from regproxy.config_tables import AccessLogFormat, Registry, RelayPolicy
from regproxy.config_tables import Listener as ListenerConfig
from regproxy.config_well_known import SEARCH_HOSTS
from regproxy.front.accesslog import AccessLog, format_json, format_logfmt
from regproxy.front.admission import Admission
from regproxy.front.blobs import BlobAnswers
from regproxy.front.certificate_authority import (
    CertificateAuthority,
    load_authority,
    open_authority,
)
from regproxy.front.certificates import LeafCertificates
from regproxy.front.connect import ConnectProxy, TunnelPolicy
from regproxy.front.connections import Connections
from regproxy.front.delivery import Deliveries
from regproxy.front.descriptors import affordable
from regproxy.front.forward import HTTP_PORT, ForwardProxy
from regproxy.front.listeners import Listener
from regproxy.front.manifests import ManifestAnswers
from regproxy.front.pages import Pages
from regproxy.front.passing import PassingAnswers
from regproxy.front.relays import RelayAnswers
from regproxy.front.resource import RegistryResource, Rooms
from regproxy.front.sealing import Seals, load_key
from regproxy.front.site import ClientLimits, LimitedSite
from regproxy.front.uploads import PURPOSE, Uploads
from regproxy.memory import keep_freed_memory
from regproxy.model.hosts import HostPort, parse_host
from regproxy.service import CacheService, Preparation, RegproxyService, Threads
from regproxy.upstream.client import Upstream
from regproxy.upstream.connecting import make_agent, make_checked_agent, pinning
from regproxy.upstream.destinations import Destinations
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.passing import Passage, passing_places
from regproxy.upstream.tls import Trust, UpstreamTLS

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
    keep_freed_memory()
    threads = Threads(reactor, [])
    access_log = AccessLog(
        reactor,
        threads.worker("log", 1),
        sys.__stdout__.fileno() if sys.__stdout__ is not None else 1,
        format_json if config.access_log is AccessLogFormat.JSON else format_logfmt,
    )
    cache = _cache(config, reactor, threads)
    authority = functools.cache(functools.partial(_authority, config))
    key = functools.cache(functools.partial(load_key, config.state_directory / "tokens.key"))
    policy = TunnelPolicy.of(config.connect.tunnel)
    rooms = _rooms(options, reactor, cache, policy, Seals(key, PURPOSE, reactor), authority)

    service = RegproxyService(log_to_stderr=options.logs_by_default)
    needed: list[Callable[[], object]] = [functools.partial(announce_upstreams, config)]
    if config.ca.certificate is not None or any(_mints(each) for each in config.listeners):
        needed.append(authority)
    if rooms.uploads.offered:
        needed.append(key)
    Preparation(*needed).setServiceParent(service)
    CacheService(threads, cache.store, cache.index, access_log).setServiceParent(service)
    front = _front(options, reactor, rooms, policy, authority, access_log)
    if config.admin.endpoint is not None:
        insecure = sorted(name for name, each in config.registries.items() if each.insecure)
        health = Health(lambda: {"fills": len(cache.fills), "insecure": insecure})
        admin = AdminSite(health, AuthorityCertificate(lambda: authority().pem), reactor)
        listening_service(config.admin.endpoint, admin, reactor=reactor).setServiceParent(front)
    front.setServiceParent(service)
    return service


@frozen
class _Cache:
    """The rooms that keep something."""

    store: Store
    index: Index
    reader: FileReader
    fills: Fills
    manifests: Manifests
    freshness: Freshness


def _cache(config: Config, reactor: Any, threads: Threads) -> _Cache:
    disk = threads.worker("disk", _DISK_THREADS)
    hashing = threads.worker("hash", _HASH_THREADS)
    # A flush may take seconds on a slow disk: reads and writes must not wait behind it.
    commits = threads.worker("commit", _COMMIT_THREADS)
    limit = config.limits.manifest_size
    store = Store(config.cache.directory)
    index = Index(config.cache.directory / "index.sqlite", reactor, threads.worker("index", 1))
    reader = FileReader(disk)
    fills = Fills(store, reactor, disk, hashing, config.timeouts.silence, index.put_blob, commits)
    manifests = Manifests(
        store, index, reactor, disk, reader, limit, commits=commits, hashing=hashing
    )
    freshness = Freshness(index, manifests, reactor, limit)
    return _Cache(store, index, reader, fills, manifests, freshness)


def _rooms(
    options: Options,
    reactor: Any,
    cache: _Cache,
    policy: TunnelPolicy,
    seals: Seals,
    authority: Callable[[], CertificateAuthority],
) -> Rooms:
    """What a request's pipeline walks through."""
    config = options.settings
    silence, stall = config.timeouts.silence, config.timeouts.write_stall
    # What comes back with it has been here; processes may stand in a row, so each has its own.
    via = f"regproxy-{secrets.token_hex(8)}"
    registries = config.registries
    exchanges = {
        name: _exchange(registry, config, options.file, reactor, via)
        for name, registry in registries.items()
    }
    upstreams = {
        name: _upstream(registry, config, exchanges[name], reactor)
        for name, registry in registries.items()
    }
    rules = {
        name: FreshnessRules(
            tag_ttl=registry.tag_ttl,
            stale_if_error=config.cache.stale_if_error,
            revalidate=config.timeouts.revalidate,
        )
        for name, registry in registries.items()
    }
    store, fills = cache.store, cache.fills
    grants = Grants(cache.index, lambda digest: fills.running(digest) or store.holds(digest))
    deliveries = Deliveries(cache.reader, reactor, stall, descriptors=reactor)
    passing = PassingAnswers(reactor, silence, stall, via)
    offered = frozenset(n for n, each in registries.items() if each.push is RelayPolicy.RELAY)
    checked = make_checked_agent(
        reactor, lambda host: policy.reach(host, host.port or HTTP_PORT), config.timeouts.connect
    )
    return Rooms(
        lookup=config,
        upstreams=upstreams,
        manifests=ManifestAnswers(cache.manifests, cache.freshness, rules),
        blobs=BlobAnswers(store, cache.index, fills, grants, deliveries, silence),
        relays=RelayAnswers(reactor, silence, stall),
        uploads=Uploads(passing, cache.freshness, cache.index, config, offered, seals),
        passing=passing,
        others=_others(config, upstreams, exchanges, reactor),
        forward=ForwardProxy(
            policy, Exchange(checked, reactor, via), passing, reactor, passing_places(reactor)
        ),
        pages=Pages(lambda: authority().pem, config),
        headers_timeout=config.timeouts.headers,
        via=via,
    )


def _exchange(registry: Registry, config: Config, file: str, reactor: Any, via: str) -> Exchange:
    """What asks one registry, with connections of its own."""
    scheme, netloc, *_ = urlsplit(registry.upstream)
    upstream = parse_host(netloc)
    upstream = HostPort(upstream.name, upstream.port or (443 if scheme == "https" else HTTP_PORT))
    if registry.resolve:
        reactor = pinning(reactor, {upstream.name: registry.resolve})
    trust = Trust(
        trusted_certificates(registry, file),
        client_identity(registry, file),
        is_verified=not registry.insecure,
    )
    make = functools.partial(
        make_agent,
        reactor,
        connections=registry.connections,
        connect_timeout=config.timeouts.connect,
        tls=UpstreamTLS(trust, upstream.name),
        destinations=Destinations(
            registry.name,
            upstream,
            [ip_network(each) for each in registry.allowed_addresses],
            reactor,
            is_proxied=registry.proxy.choose(scheme, upstream) is not None,
        ),
        proxies=registry.proxy,
    )
    return Exchange(make(), reactor, via, unpooled=make(kept=False))


def _upstream(registry: Registry, config: Config, exchange: Exchange, reactor: Any) -> Upstream:
    """One registry."""
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


def _others(
    config: Config,
    upstreams: Mapping[str, Upstream],
    exchanges: Mapping[str, Exchange],
    reactor: Any,
) -> Mapping[str, Passage]:
    """Where each registry's requests go that are none of the API, if they may be relayed."""
    others: dict[str, Passage] = {}
    for name, registry in config.registries.items():
        if registry.other_requests is RelayPolicy.RELAY:
            host = SEARCH_HOSTS.get(registry.upstream)
            others[name] = (
                Passage(name, host, exchanges[name], reactor) if host else upstreams[name].passage
            )
    return others


def _front(
    options: Options,
    reactor: Any,
    rooms: Rooms,
    policy: TunnelPolicy,
    authority: Callable[[], CertificateAuthority],
    access_log: AccessLog,
) -> MultiService:
    """All listeners."""
    config = options.settings
    front = MultiService()
    leaves = LeafCertificates(authority, _names(config).__contains__, reactor)
    connections = Connections(affordable(config.limits.connections))
    limits = ClientLimits(
        header_size=config.limits.header_size,
        request_headers=config.timeouts.request_headers,
        idle=config.timeouts.idle,
        write_stall=config.timeouts.write_stall,
        body_silence=config.timeouts.silence,
    )
    admission = Admission(config.access.clients) if config.access.clients else None
    for number, listener in enumerate(config.listeners):
        resource = RegistryResource(rooms, reactor, access_log)
        site = LimitedSite(resource, limits, connections, access_log, reactor)
        site.admission = admission
        site.connector = ConnectProxy(
            serves=functools.partial(_intercepts, config),
            leaves=leaves,
            site=site,
            policy=policy,
            reactor=reactor,
            connect_timeout=config.timeouts.connect,
            idle=config.timeouts.tunnel_idle,
            access_log=access_log,
            connections=connections,
        )
        tls: IOpenSSLServerConnectionCreator | None
        if _mints(listener):
            tls = leaves.creator()
        else:
            tls = given_certificate(listener, f"listeners[{number}]", options.file)
        Listener(
            reactor, reactor, listener.endpoint, site, tls, config.timeouts.drain
        ).setServiceParent(front)
    return front


def _mints(listener: ListenerConfig) -> bool:
    """Whether a listener shows certificates of the local authority."""
    return listener.tls and listener.certificate is None


def _authority(config: Config) -> CertificateAuthority:
    """The authority that signs what clients are shown; the local one is made on first use.

    Raises:
        AuthorityProblem: It cannot be used.
    """
    given = config.ca
    if given.certificate is not None and given.private_key is not None:
        return load_authority(given.certificate, given.private_key)
    return open_authority(config.state_directory / "ca", given.permitted_domains)


def _names(config: Config) -> frozenset[HostPort]:
    """The hosts that clients ask for by TLS, which tells no port."""
    texts = ["docker.proxy", *config.names]
    for registry in config.registries.values():
        texts += [registry.name, *registry.aliases, urlsplit(registry.upstream).netloc]
    return frozenset(HostPort(parse_host(text).name) for text in texts)


def _intercepts(config: Config, host: HostPort) -> bool:
    """Whether the proxy answers for a host inside a CONNECT, and can show a certificate for it."""
    if config.hosted(host) is None and not config.is_own(host):
        return False
    permitted = config.ca.permitted_domains
    return not permitted or permits(permitted, host)


makeService = make_service  # noqa: N816  # the name that twistd looks for
