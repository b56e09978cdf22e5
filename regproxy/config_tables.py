"""The tables of the configuration file, one frozen class each.

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

from enum import StrEnum
from pathlib import Path

from attrs import field, frozen

from regproxy.model.outgoing import DIRECT, ProxyRules

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


class RelayPolicy(StrEnum):
    """What becomes of requests that are no pull."""

    DENY = "deny"
    RELAY = "relay"


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
            "help": "Whether clients speak TLS here. Without `certificate` and `private_key`, "
            "certificates are minted for the name that each client asks for.",
        },
    )
    certificate: Path | None = field(
        default=None,
        metadata={
            "kind": "file",
            "help": "The certificate that all clients are shown, with its intermediates, in PEM. "
            "Needs `private_key`.",
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
    client_certificate: Path | None = field(
        default=None,
        metadata={
            "kind": "file",
            "help": "The certificate that upstream is shown when it asks for one, with its "
            "intermediates, in PEM. Needs `client_key`.",
        },
    )
    client_key: Path | None = field(
        default=None,
        metadata={"kind": "file", "help": "The private key of `client_certificate`, in PEM."},
    )
    insecure: bool = field(
        default=False,
        metadata={
            "kind": "boolean",
            "help": "Whether upstream's certificate is **not** verified: anybody on the way can "
            "then read and change what is said. For trials.",
        },
    )
    proxy: ProxyRules = field(
        default=DIRECT,
        metadata={
            "kind": "proxy",
            "help": "As `proxy` at the top level, for this registry.",
            "written_default": "`proxy` at the top level",
        },
    )
    allowed_addresses: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "networks",
            "help": "The addresses and networks that upstream's redirects and token realms may "
            "lead to though they are not public: private storage behind a public registry.",
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
    resolve: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "addresses",
            "help": "The IP addresses of upstream's host, in place of a name look-up: where DNS "
            "or `/etc/hosts` gives the proxy's own address for it.",
        },
    )
    push: RelayPolicy = field(
        default=RelayPolicy.DENY,
        metadata={
            "kind": "word",
            "choices": RelayPolicy,
            "help": "Whether pushes and deletions are refused or passed on to upstream.",
        },
    )
    other_requests: RelayPolicy = field(
        default=RelayPolicy.RELAY,
        metadata={
            "kind": "word",
            "choices": RelayPolicy,
            "help": "Whether requests to the registry's own host outside `/v2/`, such as for its "
            "web pages, are refused or passed on, uncached.",
        },
    )

    @upstream.default
    def _host_of_that_name(self) -> str:
        return f"https://{self.name}"


@frozen
class Authority:
    """The certificate authority that vouches for minted certificates."""

    certificate: Path | None = field(
        default=None,
        metadata={
            "kind": "file",
            "help": "The certificate of an authority of your own, in PEM, in place of the one "
            "that is made in `state_directory`. Needs `private_key`.",
        },
    )
    private_key: Path | None = field(
        default=None,
        metadata={"kind": "file", "help": "The private key of `certificate`, in PEM."},
    )
    permitted_domains: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "domains",
            "help": "What the authority that is made may vouch for, and nothing else: domains "
            "with everything below them, IP addresses and networks. None: anything.",
        },
    )


@frozen
class Connect:
    """What clients may reach through the proxy besides the registries."""

    tunnel: bool | tuple[str, ...] = field(
        default=False,
        metadata={
            "kind": "tunnel",
            "help": "Where clients that use the proxy as `HTTPS_PROXY` or `HTTP_PROXY` get to, "
            "registries aside: `true` every public host at ports 443 and 80, `false` none, or what "
            "a pattern matches.",
        },
    )


@frozen
class Access:
    """Who may use the proxy."""

    clients: tuple[str, ...] = field(
        default=(),
        metadata={
            "kind": "networks",
            "help": "The addresses and networks whose clients are served; others get 403, except "
            "for `/healthz`. None: everyone who can reach the proxy.",
        },
    )


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
    tunnel_idle: float = field(
        default=600.0,
        metadata={
            **_DEADLINE,
            "help": "Without a byte in either direction, until a tunnel is closed.",
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
