"""Reading the configuration file: TOML to :class:`regproxy.config.Config`, or one line of refusal.

cattrs walks the tables and keeps track of where it is; :mod:`regproxy.config_values` reads each
value. Only the first mistake is told: the next start tells the next one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, fields
from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
)
from cattrs.gen import make_dict_structure_fn, override

from regproxy.config import TABLES, Config
from regproxy.config_checks import check_together, default_registry
from regproxy.config_host_values import read_registry_name
from regproxy.config_mistakes import KeyPath, Mistake, describe, key_path, nearest
from regproxy.config_tables import Cache, Listener, Registry
from regproxy.config_values import KINDS, PROXY, KeyReader, reason
from regproxy.config_well_known import WELL_KNOWN
from regproxy.model.outgoing import ProxyRules

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_Hook = Callable[[object, object], object]


class ConfigError(Exception):
    """The configuration is refused; the text is one line that says where and why.

    Args:
        file: The file, as it was named.
        key: The path of the key, or "" for the file as a whole.
        found: What stands there, a phrase.
        expected: What could stand there, a phrase.
        meant: What was probably meant, or "".
    """

    def __init__(self, file: str, key: str, found: str, expected: str, meant: str = "") -> None:
        where = f"{file}: {key}" if key else file
        text = f"{where}: found {found}, expected {expected}"
        if meant:
            text += (
                f' (did you mean "{meant}"?)' if '"' not in meant else f" (did you mean {meant}?)"
            )
        super().__init__(_one_line(text))


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration, from a file or, without one, for whoever runs the program.

    Args:
        path: The TOML file. None: listen on the loopback interface, serve the well-known
            registries, keep state and cache in the user's XDG directories.
        environ: The environment: proxies and, without a file, the user's directories.

    Raises:
        ConfigError: Something in it is wrong.
    """
    if path is None:
        proxy = _proxies_of(environ)
        return Config(
            proxy=proxy,
            registries={name: evolve(each, proxy=proxy) for name, each in WELL_KNOWN.items()},
            state_directory=_xdg_directory(environ, "XDG_STATE_HOME", ".local/state"),
            cache=Cache(directory=_xdg_directory(environ, "XDG_CACHE_HOME", ".cache")),
        )
    try:
        document = _parse(_read(path))
        return _resolve(document, path.absolute().parent, environ)
    except Mistake as mistake:
        raise ConfigError(
            str(path), key_path(mistake.at), mistake.found, mistake.expected, mistake.meant
        ) from None


def _xdg_directory(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    # The XDG base directory specification: a relative path counts as none.
    directory = environ.get(variable, "")
    if directory.startswith("/"):
        return Path(directory) / "regproxy"
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return Path(home) / below_home / "regproxy"
    raise ConfigError(
        "environment", variable, "neither it nor HOME as an absolute path", "one of the two"
    )


def _proxies_of(environ: Mapping[str, str]) -> ProxyRules:
    try:
        return ProxyRules.from_environment(environ)
    except ValueError as error:
        variable, why = error.args
        raise ConfigError("environment", variable, why, PROXY) from None


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Mistake(reason(error), "a readable TOML file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Mistake(f"bytes that are no UTF-8 in line {line}", "UTF-8") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise Mistake("arrays or tables nested too deeply", "TOML") from None
    except ValueError as error:  # TOMLDecodeError, but also int() for thousands of digits
        words = str(error)
        position = _TOML_POSITION.search(words)
        words = _TOML_POSITION.sub("", words)
        where = ""
        if position:
            where = f"line {position[1]}, column {position[2]}" if position[1] else "the end"
            where = f" at {where}"
        raise Mistake(f"invalid TOML{where} ({words})", "TOML") from None


def _resolve(document: dict[str, Any], base: Path, environ: Mapping[str, str]) -> Config:
    """Make the configuration of a parsed file.

    Args:
        document: What tomllib gave.
        base: The directory that relative paths start from.
        environ: The environment, for proxies.

    Raises:
        ConfigError: Something in the environment is wrong.
        Mistake: Something in it is wrong; ``at`` is the whole path to it.
    """
    document = {"registries": {}, **document}
    converter = _converter(base, with_well_known=document.get("well_known", True) is not False)
    try:
        config = converter.structure(document, Config)
    except ClassValidationError as error:
        raise next(_mistakes(error, ())) from None
    in_file = {read_registry_name(name): t for name, t in document["registries"].items()}
    proxy = config.proxy if "proxy" in document else _proxies_of(environ)
    inherited: dict[str, Any] = {"tag_ttl": config.cache.tag_ttl, "proxy": proxy}
    registries = {
        name: evolve(
            registry,
            **{key: v for key, v in inherited.items() if key not in in_file.get(name, ())},
        )
        for name, registry in config.registries.items()
    }
    config = evolve(config, registries=registries, proxy=proxy)
    check_together(config, in_file)
    return evolve(config, default_registry=default_registry(config))


def _converter(base: Path, *, with_well_known: bool) -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)

    def listeners(value: object, _: object) -> tuple[Listener, ...]:
        if not isinstance(value, list) or not value:
            found = "an empty array" if value == [] else describe(value)
            raise Mistake(found, "one or more [[listeners]] tables")
        return tuple(converter.structure(value, list[Listener]))

    def registries(value: object, _: object) -> dict[str, Registry]:
        tables = _registry_tables(value, with_well_known=with_well_known)
        structured = converter.structure(tables, dict[str, Registry])
        return {registry.name: registry for registry in structured.values()}

    collections = {"listeners": listeners, "registries": registries}
    for table in reversed([*TABLES.values()]):  # those inside Config before it
        hook = _table_hook(converter, table, base, collections if table is Config else {})
        converter.register_structure_hook(table, hook)
    return converter


def _table_hook(
    converter: Converter, table: type[Any], base: Path, hooks: Mapping[str, _Hook]
) -> _Hook:
    """Give what makes an instance of a class from a table."""
    overrides = {key: override(struct_hook=hook) for key, hook in hooks.items()}
    for key in fields(table):
        if key.metadata.get("kind") in KINDS:
            reader = KeyReader(key.metadata, base)
            overrides[key.name] = override(struct_hook=partial(_read_key, reader))
    # mypy takes the overrides for the options that the function has as well.
    inner = make_dict_structure_fn(table, converter, **overrides)  # type: ignore[arg-type]

    def structure(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise Mistake(describe(value), "a table")
        return inner(value)

    return structure


def _read_key(reader: KeyReader, value: object, _: object) -> object:
    return reader.read(value)


def _registry_tables(value: object, *, with_well_known: bool) -> dict[str, dict[str, object]]:
    """Give the table of each registry, its name and what is well known about it filled in."""
    if not isinstance(value, dict):
        raise Mistake(describe(value), 'a table for each registry, as [registries."quay.io"]')
    tables: dict[str, dict[str, object]] = {}
    spelt: dict[str, str] = {}
    for key, table in value.items():
        try:
            name = read_registry_name(key)
            _check_registry_keys(key, table)
        except Mistake as mistake:
            mistake.at = (key, *mistake.at)
            raise
        if name in spelt:
            raise Mistake(f"{describe(spelt[name])} again", "each registry once", at=(key,))
        spelt[name] = key
        tables[key] = _well_known_keys(name) | table | {"name": name}
    for name in WELL_KNOWN if with_well_known else ():
        if name not in spelt:
            tables[name] = _well_known_keys(name) | {"name": name}
    return tables


def _well_known_keys(name: str) -> dict[str, object]:
    known = WELL_KNOWN.get(name)
    return {"upstream": known.upstream, "aliases": list(known.aliases)} if known else {}


def _check_registry_keys(name: str, table: object) -> None:
    if not isinstance(table, dict):
        raise Mistake(describe(table), "a table")
    if "name" in table:
        raise _unknown_key(Registry, "name")
    if (dotted := _joined(name, table)) != name:
        raise Mistake(
            "a table in the registry's table",
            "the registry's name in quotes",
            meant=key_path(("registries", dotted)),
        )


def _joined(name: str, table: dict[str, object]) -> str:
    """Put together a name that TOML took apart: registries.quay.io is a table in a table."""
    for key, inner in table.items():
        if isinstance(inner, dict) and key not in known_keys(Registry):
            return _joined(f"{name}.{key}", inner)
    return name


def _mistakes(error: Exception, at: KeyPath) -> Iterator[Mistake]:
    """Give the mistakes in what cattrs raised: per table unknown keys, then wrong values."""
    match error:
        case Mistake():
            error.at = (*at, *error.at)
            yield error
        case ForbiddenExtraKeysError():
            for key in sorted(error.extra_fields):
                mistake = _unknown_key(error.cl, key)
                mistake.at = (*at, key)
                yield mistake
        case ClassValidationError() | IterableValidationError():
            located, elsewhere = error.group_exceptions()
            for inner in elsewhere:  # first: an unknown key may be the missing one, misspelt
                yield from _mistakes(inner, at)
            for inner, note in located:
                step = note.name if isinstance(note, AttributeValidationNote) else note.index
                yield from _mistakes(inner, (*at, step))
        case KeyError():
            yield Mistake("nothing", "this key, which is required", at=at)
        case _:
            raise error


def known_keys(table: type) -> list[str]:
    """Give the keys that a table may have."""
    return [key.name for key in fields(table) if "kind" in key.metadata]


def _unknown_key(table: type, key: str) -> Mistake:
    keys = known_keys(table)
    meant = nearest(key, keys)
    if not meant:
        paths = {"listeners": "listeners[0].", "registries": 'registries."NAME".', "": ""}
        elsewhere = (top for top, other in TABLES.items() if key in known_keys(other))
        meant = next((paths.get(top, f"{top}.") + key for top in elsewhere), "")
    return Mistake("an unknown key", f"one of {', '.join(keys)}", at=(key,), meant=meant)


def _one_line(text: str) -> str:
    """Escape what would end the line or command the terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
