"""The configuration: the top level of its file, with the look-ups that requests need.

The tables within it are in :mod:`regproxy.config_tables`, where the metadata of keys is explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from regproxy.config_hosts import OWN, HostIndex
from regproxy.config_tables import (
    Access,
    AccessLogFormat,
    Admin,
    Authority,
    Cache,
    Connect,
    Limits,
    Listener,
    Registry,
    Timeouts,
)
from regproxy.config_well_known import WELL_KNOWN
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import DIRECT, ProxyRules


def _unchanging(registries: Mapping[str, Registry]) -> Mapping[str, Registry]:
    return MappingProxyType(dict(registries))


@frozen
class Config:
    """All settings, as one immutable snapshot; also the look-up of registries by name.

    Nothing is checked here: :func:`regproxy.config_file.load_config` makes only configurations
    that hold together (each name means one registry, ``default_registry`` is one of them).
    """

    default_registry: str = field(
        default="docker.io",
        metadata={
            "kind": "registry name",
            "help": "The registry meant by a request that names none, as those of "
            "dockerd's `registry-mirrors` do.",
        },
    )
    names: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "hosts",
            "help": "The names and addresses by which clients know the proxy itself, each with "
            "or without a port. Never a registry's.",
        },
    )
    state_directory: Path = field(
        default=Path("/var/lib/regproxy"),
        metadata={
            "kind": "directory",
            "help": "Where state that is no cache is kept.",
        },
    )
    listeners: tuple[Listener, ...] = field(
        default=(Listener("tcp:5000:interface=127.0.0.1"),),
        metadata={
            "kind": "tables",
            "help": "Where clients connect, one `[[listeners]]` table each.",
            "written_default": '`endpoint = "tcp:5000:interface=127.0.0.1"`',
        },
    )
    admin: Admin = field(
        factory=Admin, metadata={"kind": "table", "help": "The endpoint for operators."}
    )
    cache: Cache = field(
        factory=Cache, metadata={"kind": "table", "help": "Where content is kept, and how long."}
    )
    registries: Mapping[str, Registry] = field(
        default=WELL_KNOWN,
        converter=_unchanging,
        metadata={
            "kind": "tables by name",
            "help": 'What is pulled from, one `[registries."NAME"]` table each.',
            "written_default": "the well-known ones",
        },
    )
    ca: Authority = field(
        factory=Authority,
        metadata={"kind": "table", "help": "Who vouches for minted certificates."},
    )
    connect: Connect = field(
        factory=Connect,
        metadata={"kind": "table", "help": "What clients reach besides the registries."},
    )
    proxy: ProxyRules = field(
        default=DIRECT,
        metadata={
            "kind": "proxy",
            "help": "The outgoing proxy that leads to upstreams: `http://host:port` or "
            "`http://user:password@host:port`. `none`: none, whatever the environment says.",
            "written_default": "`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment",
        },
    )
    access: Access = field(
        factory=Access, metadata={"kind": "table", "help": "Who may use the proxy."}
    )
    timeouts: Timeouts = field(
        factory=Timeouts, metadata={"kind": "table", "help": "How long things may take."}
    )
    limits: Limits = field(
        factory=Limits, metadata={"kind": "table", "help": "How much of things there may be."}
    )
    access_log: AccessLogFormat = field(
        default=AccessLogFormat.LOGFMT,
        metadata={
            "kind": "word",
            "choices": AccessLogFormat,
            "help": "How the access log on standard output is written: `logfmt` or `json`.",
        },
    )
    well_known: bool = field(
        default=True,
        metadata={
            "kind": "boolean",
            "help": "Whether the well-known public registries are configured without being "
            "named in the file.",
        },
    )
    _canonical: Mapping[str, str] = field(init=False, eq=False, repr=False)
    _hosts: HostIndex = field(init=False, eq=False, repr=False)

    @_canonical.default
    def _index_names(self) -> Mapping[str, str]:
        return {
            name.lower(): registry.name
            for registry in self.registries.values()
            for name in (registry.name, *registry.aliases)
        }

    @_hosts.default
    def _index_hosts(self) -> HostIndex:
        return HostIndex.of(self.names, self.registries.values())

    def find(self, name: str) -> str | None:
        """Give the canonical name of the configured registry that a name or alias means.

        Args:
            name: A host, with its port if it has one, in any case.
        """
        # Only ASCII is lowered: U+212A would become the letter k.
        return self._canonical.get(name.lower()) if name.isascii() else None

    def hosted(self, host: HostPort) -> str | None:
        """Give the canonical name of the registry that clients reach at a host, None if none.

        A registry is reached at its names, its aliases and its upstream's host, as
        :class:`regproxy.config_hosts.HostIndex` says.

        Args:
            host: Of a ``Host`` header, a CONNECT target or the like; without a port if none stood
                there.
        """
        return self._hosts.meaning(host) or None

    def is_own(self, host: HostPort) -> bool:
        """Whether a host is the proxy itself: one of ``names``, or "docker.proxy"."""
        return self._hosts.meaning(host) == OWN

    def known(self) -> Sequence[str]:
        """Give the canonical names of all configured registries, sorted."""
        return sorted(self.registries)


TABLES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "": Config,
        "listeners": Listener,
        "admin": Admin,
        "cache": Cache,
        "registries": Registry,
        "ca": Authority,
        "connect": Connect,
        "access": Access,
        "timeouts": Timeouts,
        "limits": Limits,
    }
)
"""The class of each table, by the top-level key that holds it; the top level itself is ""."""
