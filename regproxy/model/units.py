"""Sizes and durations as people write them in a configuration."""

from __future__ import annotations

import math
import re

from regproxy.model.errors import shown

_SIZE = re.compile(r"([0-9]{1,19}) ?(B|kB|KB|MB|GB|TB|PB|KiB|MiB|GiB|TiB|PiB)")
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "PiB": 2**50,
}
_MAX_BYTES = 2**63 - 1

_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"
# Each unit at most once, the largest first.
_DURATION = re.compile(
    rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?"
)
_SECONDS = (86400.0, 3600.0, 60.0, 1.0, 0.001)


def parse_size(value: object) -> int:
    """A number of bytes, from an integer or from text such as ``64MiB``.

    ``KiB`` to ``PiB`` are powers of 1024, ``kB`` to ``PB`` powers of 1000. Text needs a unit.

    Raises:
        ValueError: It is neither, negative, or more than 63 bits hold.
    """
    size: int | None = None
    # bool is an int to isinstance.
    if type(value) is int:
        size = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value)) is not None:
        size = int(found[1]) * _BYTES[found[2]]
    if size is None or not 0 <= size <= _MAX_BYTES:
        raise ValueError(
            f'found {_found(value)}, expected a size such as "64MiB" or "200GiB", or a number of '
            "bytes"
        )
    return size


def parse_duration(value: object) -> float:
    """A number of seconds, from a number or from text such as ``5m``, ``1h30m`` or ``250ms``.

    Text has the units d, h, m, s and ms, each at most once, the largest first.

    Raises:
        ValueError: It is neither, negative, or not finite.
    """
    seconds = -1.0
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if found is not None and value:
            # Summed exactly: "1.1s" is the same float as 1.1.
            seconds = math.fsum(
                float(number) * unit
                for number, unit in zip(found.groups(), _SECONDS, strict=True)
                if number is not None
            )
    elif type(value) is int or type(value) is float:
        seconds = _finite(value)
    if seconds < 0:
        raise ValueError(
            f'found {_found(value)}, expected a duration such as "5m", "1h30m" or "250ms", or a '
            "number of seconds"
        )
    return seconds


def _finite(value: float) -> float:
    try:
        seconds = float(value)
    except OverflowError:
        return -1.0
    return seconds if math.isfinite(seconds) else -1.0


def _found(value: object) -> str:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, (bool, int, float)):
        # A TOML integer may be longer than Python prints.
        huge = type(value) is int and value.bit_length() > 128
        return "a very large number" if huge else str(value).lower()
    return f"a {type(value).__name__}"
