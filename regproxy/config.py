"""What can be configured: one frozen class for each table of the configuration file.

An attribute with a ``kind`` in its metadata is a key of the file. The metadata is all that is
said about a key: reading a file (:mod:`regproxy.config_file`) and the reference in the
documentation both follow it.

``kind``: how the value is written, a name in :data:`regproxy.config_values.KINDS`.
``help``: what the key means, a sentence or two of Markdown.
``minimum``, ``maximum``: bounds, both allowed, in the unit of the attribute.
``choices``: for the kind "word", the words.
``written_default``: what the reference shows for a default that other keys decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

DAY = 86_400.0
KIB = 1024
MIB = 1024 * KIB

# Far beyond any use, and small enough for the reactor's timers and SQLite's integers.
_AGE = {"kind": "duration", "minimum": 0.0, "maximum": 3650 * DAY}
_DEADLINE = {"kind": "duration", "minimum": 0.001, "maximum": DAY}


class AccessLogFormat(StrEnum):
    """How a line of the access log is written."""

    LOGFMT = "logfmt"
    JSON = "json"


@frozen
class Listener:
    """A port or socket that clients connect to."""

    endpoint: str = field(
        metadata={
            "kind": "endpoint",
            "help": "Where to listen: a Twisted server endpoint string such as `tcp:5000`, "
            "`tcp:5000:interface=127.0.0.1`, `tcp6:5000`, `unix:/run/regproxy.sock`, "
            "`systemd:domain=INET:name=regproxy` or `haproxy:tcp:5000`.",
        }
    )
    tls: bool = field(
        default=False,
        metadata={
            "kind": "boolean",
            "help": "Whether clients speak TLS here. Needs `certificate` and `private_key`.",
        },
    )
    certificate: Path | None = field(
        default=None,
        metadata={
            "kind": "file",
            "help": "The certificate that clients are shown, with its intermediates, in PEM.",
        },
    )
    private_key: Path | None = field(
        default=None,
        metadata={"kind": "file", "help": "The private key of `certificate`, in PEM."},
    )


@frozen
class Admin:
    """The endpoint for operators: `/healthz`. Never expose it to clients."""

    endpoint: str | None = field(
        default="tcp:5001:interface=127.0.0.1",
        metadata={
            "kind": "optional endpoint",
            "help": "Where the admin pages listen, written as for a listener. "
            "An empty string: nowhere.",
        },
    )


@frozen
class Cache:
    """Where content is kept, and for how long a tag is believed."""

    directory: Path = field(
        default=Path("/var/cache/regproxy"),
        metadata={
            "kind": "directory",
            "help": "Where blobs, manifests and the index are kept. Made when missing.",
        },
    )
    tag_ttl: float = field(
        default=300.0,
        metadata={
            **_AGE,
            "help": "For how long a tag is served from the cache before upstream is asked again "
            "which digest it has. `0s`: upstream is asked each time.",
        },
    )
    stale_if_error: float = field(
        default=30 * DAY,
        metadata={
            **_AGE,
            "help": "For how long after `tag_ttl` a tag is still served while upstream cannot "
            "be reached, fails or refuses for too many requests.",
        },
    )


@frozen
class Registry:
    """A registry that clients may pull from. Its name is enough; every key is optional."""

    name: str
    """The name in image references, as :func:`regproxy.model.names.parse_registry` gives it."""

    upstream: str = field(
        metadata={
            "kind": "upstream",
            "help": "The URL that serves this registry: `http` or `https`, host and port only.",
            "written_default": "`https://NAME`",
        }
    )
    aliases: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "registry names",
            "help": "Further names for the same registry. One without a dot, usable as a path "
            "prefix, hides the user of that name at `default_registry`.",
        },
    )
    ca_file: Path | None = field(
        default=None,
        metadata={
            "kind": "file",
            "help": "The certificate authorities that may vouch for upstream, in PEM, in place "
            "of the platform's.",
        },
    )
    tag_ttl: float = field(
        default=300.0,
        metadata={
            **_AGE,
            "help": "As `tag_ttl` in `[cache]`, for this registry.",
            "written_default": "`tag_ttl` in `[cache]`",
        },
    )
    connections: int = field(
        default=16,
        metadata={
            "kind": "integer",
            "minimum": 1,
            "maximum": 10_000,
            "help": "How many transfers from upstream run at once; further ones wait.",
        },
    )

    @upstream.default
    def _host_of_that_name(self) -> str:
        return f"https://{self.name}"


@frozen
class Timeouts:
    """Deadlines, in seconds here and durations in the file."""

    connect: float = field(
        default=10.0,
        metadata={
            **_DEADLINE,
            "help": "For each attempt to connect to an address of an upstream; `headers` bounds "
            "name look-up and TLS.",
        },
    )
    headers: float = field(
        default=25.0,
        metadata={
            **_DEADLINE,
            "help": "From a client's request to the headers of its answer: one budget for "
            "queueing, tokens, redirects and upstream's answer.",
        },
    )
    silence: float = field(
        default=60.0,
        metadata={
            **_DEADLINE,
            "help": "Without a byte from upstream, until a transfer counts as broken.",
        },
    )
    write_stall: float = field(
        default=60.0,
        metadata={
            **_DEADLINE,
            "help": "Without a client taking a byte, until it is disconnected.",
        },
    )
    request_headers: float = field(
        default=20.0,
        metadata={
            **_DEADLINE,
            "help": "For the headers of a client's request; a byte now and then does not renew it.",
        },
    )
    idle: float = field(
        default=75.0,
        metadata={
            **_DEADLINE,
            "help": "Between two requests on one connection, until it is closed.",
        },
    )
    revalidate: float = field(
        default=3.0,
        metadata={
            **_DEADLINE,
            "help": "For upstream to say which digest a stored tag has; then the stored one "
            "is served.",
        },
    )
    drain: float = field(
        default=8.0,
        metadata={
            **_DEADLINE,
            "minimum": 0.0,
            "help": "For what runs to finish when the proxy is stopped; then it is cut.",
        },
    )


@frozen
class Limits:
    """Bounds on what clients and upstreams may ask of this process."""

    connections: int = field(
        default=10_000,
        metadata={
            "kind": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
            "help": "How many connections clients may hold open, on all listeners together.",
        },
    )
    header_size: int = field(
        default=16 * KIB,
        metadata={
            "kind": "size",
            "minimum": KIB,
            "maximum": MIB,
            "help": "How large the headers of a client's request may be.",
        },
    )
    manifest_size: int = field(
        default=4 * MIB,
        metadata={
            "kind": "size",
            "minimum": 64 * KIB,
            "maximum": 256 * MIB,
            "help": "How large a manifest or index may be; registries take at least 4 MiB.",
        },
    )


_DOCKER_HUB = Registry(
    "docker.io",
    upstream="https://registry-1.docker.io",
    aliases=("index.docker.io", "registry-1.docker.io"),
)
_SERVED_AT_THEIR_NAME = (
    "quay.io",
    "ghcr.io",
    "gcr.io",
    "registry.k8s.io",
    "k8s.gcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.gitlab.com",
    "nvcr.io",
    "docker.elastic.co",
    "registry.access.redhat.com",
    "lscr.io",
)
WELL_KNOWN: Mapping[str, Registry] = MappingProxyType(
    {each.name: each for each in (_DOCKER_HUB, *map(Registry, _SERVED_AT_THEIR_NAME))}
)
"""The public registries that are configured unless ``well_known = false``, by name."""


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

    @_canonical.default
    def _index_names(self) -> Mapping[str, str]:
        return {
            name.lower(): registry.name
            for registry in self.registries.values()
            for name in (registry.name, *registry.aliases)
        }

    def find(self, name: str) -> str | None:
        """Give the canonical name of the configured registry that a name or alias means.

        Args:
            name: A host, with its port if it has one, in any case.
        """
        # Only ASCII is lowered: U+212A would become the letter k.
        return self._canonical.get(name.lower()) if name.isascii() else None

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
        "timeouts": Timeouts,
        "limits": Limits,
    }
)
"""The class of each table, by the top-level key that holds it; the top level itself is ""."""
