"""The grammar of Twisted's server endpoint strings, checked without opening or importing anything.

Twisted's own parser needs a reactor, looks for plugins and says little about what is wrong. It
still has the last word when the endpoint is made. The grammar is that of
:func:`twisted.internet.endpoints.serverFromString`: pieces between colons, ``name=value`` or in
order, with a backslash before a colon or backslash that is part of a value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from attrs import frozen

_PIECE = re.compile(r"((?:[^:\\]|\\.)*)(:|$)", re.DOTALL)
_KEYWORD = re.compile(r"((?:[^=\\]|\\.)*)=(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


class BadEndpoint(ValueError):
    """A string is no endpoint.

    Args:
        expected: What would be one, a phrase.
        meant: The endpoint that was probably meant, or "".
    """

    def __init__(self, expected: str, meant: str = "") -> None:
        super().__init__(expected)
        self.expected = expected
        self.meant = meant


def _number(highest: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        # Bounded in length first: Python refuses to read thousands of digits.
        return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= highest

    return check


def _address(*versions: int) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            return text == "" or ipaddress.ip_address(text).version in versions
        except ValueError:
            return False

    return check


@frozen
class _Parameter:
    valid: Callable[[str], bool]
    expected: str
    required: bool = False


_PORT = _Parameter(_number(65_535), "a port from 0 to 65535", required=True)
_BACKLOG = _Parameter(_number(10_000_000), "a backlog that is a number")

# Each in the order in which Twisted takes the parameters when they are not named.
_TYPES: Mapping[str, Mapping[str, _Parameter]] = {
    "tcp": {
        "port": _PORT,
        "interface": _Parameter(
            _address(4, 6), r"an interface that is an IP address, its colons written as \:"
        ),
        "backlog": _BACKLOG,
    },
    "tcp6": {
        "port": _PORT,
        "backlog": _BACKLOG,
        "interface": _Parameter(
            _address(6), r"an interface that is an IPv6 address, its colons written as \:"
        ),
    },
    "unix": {
        "address": _Parameter(lambda text: text.startswith("/"), "an absolute path", required=True),
        "mode": _Parameter(
            lambda text: re.fullmatch("[0-7]{3,4}", text) is not None, "a mode in octal digits"
        ),
        "backlog": _BACKLOG,
        "lockfile": _Parameter(lambda text: text in {"0", "1"}, "a lockfile of 0 or 1"),
    },
    "systemd": {
        "domain": _Parameter(
            lambda text: text in {"INET", "INET6", "UNIX"},
            "a domain of INET, INET6 or UNIX",
            required=True,
        ),
        "index": _Parameter(_number(100_000), "an index that is a number"),
        "name": _Parameter(bool, "the name of an inherited socket"),
    },
}


def check_endpoint(text: str) -> None:
    """Check the shape of a server endpoint string; endpoint types that others add pass unchecked.

    Raises:
        BadEndpoint: It is none, or one that regproxy has another way for.
    """
    kind, colon, rest = text.partition(":")
    prefix = ""
    if kind == "haproxy":
        prefix = "haproxy:"
        kind, colon, rest = rest.partition(":")
    if not colon and _PORT.valid(kind):
        raise BadEndpoint('a type and a colon first, as in "tcp:5000"', f"{prefix}tcp:{kind}")
    if not colon or not _TYPE.fullmatch(kind):
        raise BadEndpoint('an endpoint such as "tcp:5000"')
    if kind in {"ssl", "tls"}:
        port = rest.partition(":")[0]
        meant = f"{prefix}tcp:{port}" if kind == "ssl" and _PORT.valid(port) else ""
        raise BadEndpoint("a plain endpoint, with tls = true beside it for TLS", meant)
    if kind in {"stdio", "haproxy"}:
        raise BadEndpoint("an endpoint that takes connections")
    if kind in _TYPES:
        _check_parameters(kind, rest)
    elif close := get_close_matches(kind.lower(), [*_TYPES, "haproxy"], n=1):
        expected = "an endpoint of a known type"
        raise BadEndpoint(expected, f"{prefix}{close[0]}:{rest}")


def with_backlog(text: str, backlog: int) -> str:
    """A server endpoint string that says how many clients may wait to be accepted.

    Args:
        text: A valid one; if it names a backlog, or is of a type that has none, it stays as it is.
        backlog: The kernel's own limit (``somaxconn``) still holds.
    """
    kind, _, rest = text.removeprefix("haproxy:").partition(":")
    if "backlog" not in _TYPES.get(kind, ()) or "backlog" in _parameters(kind, rest):
        return text
    return f"{text}:backlog={backlog}"


def _check_parameters(kind: str, rest: str) -> None:
    known = _TYPES[kind]
    given = _parameters(kind, rest)
    for name, parameter in known.items():
        if parameter.required and name not in given:
            raise BadEndpoint(f"{kind} with {parameter.expected}")
        if name in given and not parameter.valid(given[name]):
            raise BadEndpoint(f"{kind} with {parameter.expected}")
    if kind == "systemd" and ("index" in given) == ("name" in given):
        raise BadEndpoint("systemd with either an index or a name")


def _parameters(kind: str, rest: str) -> Mapping[str, str]:
    known = _TYPES[kind]
    given: dict[str, str] = {}
    order = iter(known)
    for piece in _pieces(rest):
        keyword = _KEYWORD.fullmatch(piece)
        name = _plain(keyword[1]) if keyword else next(order, None)
        if name is None:
            raise BadEndpoint(rf"at most {len(known)} parameters for {kind}; colons in one as \:")
        if name not in known:
            close = "".join(get_close_matches(name, known, n=1))
            raise BadEndpoint(f"{kind} with parameters among {', '.join(known)}", close)
        if name in given:
            raise BadEndpoint(rf"{name} only once; colons in a value are written as \:")
        given[name] = _plain(keyword[2] if keyword else piece)
    return given


def _pieces(text: str) -> list[str]:
    pieces = []
    at = 0
    while match := _PIECE.match(text, at):
        pieces.append(match[1])
        at = match.end()
        if not match[2]:
            return pieces
    raise BadEndpoint("an endpoint that does not end in a backslash")


def _plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)
