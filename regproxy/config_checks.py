"""What keys of the configuration may not say together, though each one alone may say it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from regproxy.config import Config
from regproxy.config_host_values import permits
from regproxy.config_hosts import DOCKER_PROXY, same_place
from regproxy.config_mistakes import KeyPath, Mistake, describe, key_path, nearest
from regproxy.config_tables import Authority, Listener, Registry
from regproxy.config_well_known import WELL_KNOWN
from regproxy.model.hosts import HostPort, parse_host

_ANY_PORT = re.compile(r"tcp6?:(?:port=)?0+(?::|$)")
_FILE = "the path of a readable file"


def check_together(config: Config, in_file: Collection[str]) -> None:
    """Check a configuration as a whole, the default registry aside.

    Args:
        config: Made of single values that are right.
        in_file: The canonical names of the registries that have a table in the file.

    Raises:
        Mistake: Keys contradict each other; ``at`` is the path from the top of the file.
    """
    _check_names(config.registries, in_file)
    _check_own_names(config)
    for registry in config.registries.values():
        _check_trust(registry)
    for i, listener in enumerate(config.listeners):
        _check_tls(listener, ("listeners", i))
    _check_endpoints(config)
    _check_authority(config.ca)
    _check_permitted(config, in_file)


def default_registry(config: Config) -> str:
    """Give the canonical name of the default registry, which may be written as an alias.

    Raises:
        Mistake: No configured registry has this name.
    """
    canonical = config.find(config.default_registry)
    if canonical is None:
        known = config.known()
        raise Mistake(
            describe(config.default_registry),
            f"a configured registry: {', '.join(known) or 'there is none'}",
            at=("default_registry",),
            meant=nearest(config.default_registry, known),
        )
    return canonical


def _check_names(registries: Mapping[str, Registry], in_file: Collection[str]) -> None:
    """Check that each name means one registry, and blame one that stands in the file."""
    owners: dict[str, str] = {}
    for registry in sorted(
        registries.values(), key=lambda each: (each.name in in_file, each.name not in WELL_KNOWN)
    ):
        for i, name in enumerate((registry.name, *registry.aliases)):
            owner = owners.setdefault(name, registry.name)
            if owner != registry.name:
                raise Mistake(
                    f"{describe(name)}, which is a name of {owner}",
                    "a name that no other registry has",
                    at=_place_of(registry, i),
                )


def _check_own_names(config: Config) -> None:
    """Check that no name of the proxy is a registry's."""
    for registry in config.registries.values():
        for i, host in enumerate(_hosts(registry)):
            if host.name == DOCKER_PROXY.name:
                raise Mistake(
                    describe(str(host)),
                    "another name, for this one is the proxy's own",
                    at=_place_of(registry, i),
                )
            for n, own in enumerate(map(parse_host, config.names)):
                if same_place(host, own):
                    raise Mistake(
                        f"{describe(config.names[n])}, which is a name of {registry.name}",
                        "a name that no registry has",
                        at=("names", n),
                    )


def _check_endpoints(config: Config) -> None:
    """Check that nothing is listened on twice."""
    places: list[tuple[KeyPath, str | None]] = [
        (("listeners", i, "endpoint"), each.endpoint) for i, each in enumerate(config.listeners)
    ]
    places.append((("admin", "endpoint"), config.admin.endpoint))
    taken: dict[str, KeyPath] = {}
    for at, endpoint in places:
        if endpoint is None or _ANY_PORT.match(endpoint):
            continue
        first = taken.setdefault(endpoint, at)
        if first != at:
            found = f"{describe(endpoint)}, as {key_path(first)} has it"
            raise Mistake(found, "an endpoint of its own", at=at)


def _check_tls(listener: Listener, at: KeyPath) -> None:
    for key in ("certificate", "private_key"):
        if getattr(listener, key) is not None and not listener.tls:
            raise Mistake("no TLS", f"tls = true, since {key} is given", at=(*at, "tls"))
    _check_pair(listener, at)


def _check_pair(
    table: Listener | Authority | Registry,
    at: KeyPath,
    keys: tuple[str, str] = ("certificate", "private_key"),
) -> None:
    """Check that a certificate and its key stand together."""
    for key, other in (keys, keys[::-1]):
        if getattr(table, key) is None and getattr(table, other) is not None:
            raise Mistake("nothing", f"{_FILE}, since {other} is given", at=(*at, key))


def _check_trust(registry: Registry) -> None:
    """Check what concerns TLS with upstream."""
    at: KeyPath = ("registries", registry.name)
    _check_pair(registry, at, ("client_certificate", "client_key"))
    given = [key for key in ("ca_file", "client_certificate", "insecure") if getattr(registry, key)]
    if given and not registry.upstream.startswith("https:"):
        expected = f"an https URL, since {given[0]} is given"
        raise Mistake(describe(registry.upstream), expected, at=(*at, "upstream"))
    if registry.insecure and registry.ca_file is not None:
        expected = "one of the two, since with it nobody has to vouch for upstream"
        raise Mistake("true beside ca_file", expected, at=(*at, "insecure"))


def _check_authority(authority: Authority) -> None:
    _check_pair(authority, ("ca",))
    if authority.permitted_domains and authority.certificate is not None:
        raise Mistake(
            "domains beside a certificate",
            "one of the two, since only a certificate that regproxy makes can be bound to them",
            at=("ca", "permitted_domains"),
        )


def _check_permitted(config: Config, in_file: Collection[str]) -> None:
    """Check that certificates may be minted for each name that stands in the file."""
    permitted = config.ca.permitted_domains
    if not permitted:
        return
    for at, host in _minted_for(config, in_file):
        if not permits(permitted, host):
            raise Mistake(
                f"{describe(str(host))}, which is outside ca.permitted_domains",
                f"a name within {', '.join(permitted)}",
                at=at,
            )


def _minted_for(config: Config, in_file: Collection[str]) -> Iterator[tuple[KeyPath, HostPort]]:
    """Give the hosts that clients may want a certificate for, with the place of each."""
    for registry in config.registries.values():
        if registry.name in in_file:
            for i, host in enumerate(_hosts(registry)):
                yield _place_of(registry, i), host
    if any(listener.tls and listener.certificate is None for listener in config.listeners):
        for n, name in enumerate(config.names):
            yield ("names", n), parse_host(name)


def _hosts(registry: Registry) -> Iterator[HostPort]:
    return map(parse_host, (registry.name, *registry.aliases))


def _place_of(registry: Registry, number: int) -> KeyPath:
    """The path of a registry's name, or of one of its aliases, which are counted from 1."""
    alias: KeyPath = ("aliases", number - 1) if number else ()
    return ("registries", registry.name, *alias)
