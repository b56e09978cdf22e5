"""Reading a single value of a configuration file, by the kind that its key has."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from regproxy.config_host_values import (
    read_address,
    read_domain,
    read_host,
    read_network,
    read_pattern,
    read_registry_name,
)
from regproxy.config_mistakes import Mistake, describe, nearest
from regproxy.endpoint_strings import BadEndpoint, check_endpoint
from regproxy.model.names import parse_registry
from regproxy.model.outgoing import DIRECT, ProxyRules, parse_proxy
from regproxy.model.units import parse_duration, parse_size

PROXY = (
    'a proxy such as "http://proxy.corp:3128" or "http://user:password@proxy.corp:3128", or "none"'
)
"""What is expected where a proxy is named."""

_UNITS_OF_TIME = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_UNITS_OF_SIZE = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def written_duration(seconds: float) -> str:
    """Write a duration as in a configuration file, for example "5m"."""
    for unit, letter in _UNITS_OF_TIME:
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds // unit:.0f}{letter}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


def written_size(size: int) -> str:
    """Write a size in bytes as in a configuration file, for example "16KiB"."""
    for unit, letters in _UNITS_OF_SIZE:
        if size >= unit and size % unit == 0:
            return f"{size // unit}{letters}"
    return str(size)


def reason(error: OSError) -> str:
    """Say why the system refused, in its own words, for example "permission denied"."""
    words = os.strerror(error.errno) if error.errno else str(error)
    return words.removesuffix(" or directory").removeprefix("Is ").lower()


def _check_readable(path: Path) -> None:
    # Without waiting for the writer of a named pipe, and without taking a byte from it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        os.close(descriptor)


def _array(value: object, what: str, read: Callable[[object], str]) -> tuple[str, ...]:
    """Read an array; a mistake in it is told with its index."""
    if not isinstance(value, list):
        raise Mistake(describe(value), f"an array of {what}")
    texts = []
    for i, element in enumerate(value):
        try:
            texts.append(read(element))
        except Mistake as mistake:
            mistake.at = (i,)
            raise
    return tuple(texts)


@frozen
class KeyReader:
    """Reads the value of one key.

    Args:
        metadata: What :mod:`regproxy.config` says about the key.
        base: The directory that relative paths start from.
    """

    metadata: Mapping[str, Any]
    base: Path

    def read(self, value: object) -> object:
        """Read a value of the key's kind.

        Raises:
            Mistake: It may not have this value.
        """
        return KINDS[self.metadata["kind"]](self, value)

    def boolean(self, value: object) -> bool:
        """True or false; 0 and 1 are neither."""
        if isinstance(value, bool):
            return value
        raise Mistake(describe(value), "true or false")

    def integer(self, value: object) -> int:
        """An integer within the key's bounds; true and false are none."""
        expected = "an integer"
        if not isinstance(value, int) or isinstance(value, bool):
            raise Mistake(describe(value), expected)
        self._check_bounds(value, describe(value), expected, str)
        return value

    def duration(self, value: object) -> float:
        """Seconds within the key's bounds, from a number or from text with units."""
        expected = 'a duration such as "5m", "1h30m" or "250ms", or a number of seconds'
        try:
            seconds = parse_duration(value)
        except ValueError:
            raise Mistake(describe(value), expected) from None
        self._check_bounds(seconds, describe(value), expected, written_duration)
        return seconds

    def size(self, value: object) -> int:
        """Bytes within the key's bounds, from an integer or from text with a unit."""
        expected = 'a size such as "16KiB" or "4MiB", or a number of bytes'
        try:
            size = parse_size(value)
        except ValueError:
            raise Mistake(describe(value), expected) from None
        self._check_bounds(size, describe(value), expected, written_size)
        return size

    def word(self, value: object) -> object:
        """One of the key's choices."""
        words = {str(choice): choice for choice in self.metadata["choices"]}
        if isinstance(value, str) and value in words:
            return words[value]
        expected = " or ".join(f'"{word}"' for word in words)
        meant = nearest(value, words) if isinstance(value, str) else ""
        raise Mistake(describe(value), expected, meant=meant)

    def registry_name(self, value: object) -> str:
        """The name of a registry, in its canonical spelling."""
        return read_registry_name(value)

    def registry_names(self, value: object) -> tuple[str, ...]:
        """The names of any number of registries."""
        return _array(value, "registry names", read_registry_name)

    def hosts(self, value: object) -> tuple[str, ...]:
        """Any number of hosts, with or without a port."""
        return _array(value, "hosts", read_host)

    def addresses(self, value: object) -> tuple[str, ...]:
        """Any number of IP addresses."""
        return _array(value, "IP addresses", read_address)

    def networks(self, value: object) -> tuple[str, ...]:
        """Any number of IP addresses and networks."""
        return _array(value, "IP addresses and networks", read_network)

    def proxy(self, value: object) -> ProxyRules:
        """An outgoing proxy, or none. What is refused is not repeated: it may hold a password."""
        if value in ("", "none"):
            return DIRECT
        if not isinstance(value, str):
            raise Mistake(describe(value), PROXY)
        try:
            return ProxyRules.everywhere(parse_proxy(value))
        except ValueError as error:
            is_host = "@" not in value and "/" not in value and value.isprintable()
            raise Mistake(str(error), PROXY, meant=f"http://{value}" if is_host else "") from None

    def domains(self, value: object) -> tuple[str, ...]:
        """Any number of domains, IP addresses and networks."""
        return _array(value, "domains, IP addresses and networks", read_domain)

    def tunnel(self, value: object) -> bool | tuple[str, ...]:
        """Everything, nothing, or what a pattern matches."""
        if isinstance(value, bool):
            return value
        if isinstance(value, list):
            return _array(value, "patterns", read_pattern)
        expected = 'true, false or an array of patterns such as "example.com:443"'
        raise Mistake(describe(value), expected)

    def upstream(self, value: object) -> str:
        """The URL of an origin, without a trailing slash."""
        expected = 'a URL of scheme, host and port such as "https://registry.corp:5000"'
        if not isinstance(value, str):
            raise Mistake(describe(value), expected)
        if "@" in value:  # what stands before it may be a password: it is not repeated
            raise Mistake("a URL with credentials", expected)
        if not all("!" <= character <= "~" for character in value):  # urlsplit drops some of them
            raise Mistake(describe(value), expected)
        scheme, separator, rest = value.partition("://")
        if not separator:
            scheme, rest = "https", value
        try:
            parts = urlsplit(f"{scheme.lower()}://{rest}")
            clean = f"{parts.scheme}://{parse_registry(parts.netloc)}"
        except ValueError:
            raise Mistake(describe(value), expected) from None
        if parts.scheme not in {"http", "https"}:
            raise Mistake(describe(value), expected)
        if not separator or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise Mistake(describe(value), expected, meant=clean)
        return clean

    def file(self, value: object) -> Path:
        """The path of a file that this process may read now."""
        expected = "the path of a readable file"
        path = self._path(value, expected)
        try:
            _check_readable(path)
        except OSError as error:
            raise Mistake(f"{describe(value)}: {reason(error)}", expected) from None
        return path

    def directory(self, value: object) -> Path:
        """The path of a directory, or of nothing yet."""
        expected = "the path of a directory, which need not exist yet"
        path = self._path(value, expected)
        try:
            is_directory = stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            return path
        except OSError as error:
            raise Mistake(f"{describe(value)}: {reason(error)}", expected) from None
        if not is_directory:
            raise Mistake(f"{describe(value)}: not a directory", expected)
        return path

    def endpoint(self, value: object) -> str:
        """A server endpoint string of a shape that Twisted takes."""
        if not isinstance(value, str):
            raise Mistake(describe(value), 'an endpoint such as "tcp:5000"')
        try:
            check_endpoint(value)
        except BadEndpoint as bad:
            raise Mistake(describe(value), bad.expected, meant=bad.meant) from None
        return value

    def optional_endpoint(self, value: object) -> str | None:
        """An endpoint; None for an empty string."""
        return None if value == "" else self.endpoint(value)

    def _check_bounds(
        self, amount: float, found: str, expected: str, written: Callable[[Any], str]
    ) -> None:
        low, high = self.metadata.get("minimum"), self.metadata.get("maximum")
        if (low is not None and amount < low) or (high is not None and amount > high):
            raise Mistake(found, f"{expected}, from {written(low)} to {written(high)}")

    def _path(self, value: object, expected: str) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise Mistake(describe(value), expected)
        if value.startswith("~"):
            raise Mistake(describe(value), f"{expected}, with the home directory spelt out")
        return self.base / value


KINDS: Mapping[str, Callable[[KeyReader, object], object]] = {
    "boolean": KeyReader.boolean,
    "integer": KeyReader.integer,
    "duration": KeyReader.duration,
    "size": KeyReader.size,
    "word": KeyReader.word,
    "registry name": KeyReader.registry_name,
    "registry names": KeyReader.registry_names,
    "hosts": KeyReader.hosts,
    "addresses": KeyReader.addresses,
    "networks": KeyReader.networks,
    "domains": KeyReader.domains,
    "proxy": KeyReader.proxy,
    "tunnel": KeyReader.tunnel,
    "upstream": KeyReader.upstream,
    "file": KeyReader.file,
    "directory": KeyReader.directory,
    "endpoint": KeyReader.endpoint,
    "optional endpoint": KeyReader.optional_endpoint,
}
"""What reads a value, by the kind of its key."""
