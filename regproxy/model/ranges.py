"""Byte ranges: what part of a content is asked for, and what part is sent.

RFC 9110 section 14. Positions are half-open everywhere but on the wire.
"""

from __future__ import annotations

import re

from attrs import frozen

from regproxy.model.errors import range_not_satisfiable, shown

_UNIT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)
# More digits than any size has; longer numbers are not converted at all.
_MAX_DIGITS = 19
_BEYOND = 10**_MAX_DIGITS


@frozen
class ByteRange:
    """At least one byte of a content.

    Attributes:
        start: The offset of the first byte.
        stop: The offset behind the last byte.
    """

    start: int
    stop: int

    def __attrs_post_init__(self) -> None:
        """Refuse what is no range.

        Raises:
            ValueError: It is empty or starts before the content.
        """
        if not 0 <= self.start < self.stop:
            raise ValueError(f"found range [{self.start}, {self.stop}), expected 0 <= start < stop")

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part of a content that a Range header asks for, or None for the whole.

    The whole is also the answer to another unit than bytes and to several ranges, both of which a
    server may ignore (RFC 9110 section 14.2), and to a suffix of an empty content, which is
    satisfiable but has no Content-Range (section 14.1.2).

    Args:
        header: The header's value, or None without one.
        size: The size of the content in bytes.

    Raises:
        RegistryError: 416, the header is malformed or starts behind the content.
    """
    if header is None:
        return None
    unit, equals, specs = header.strip().partition("=")
    if not equals or _UNIT.fullmatch(unit) is None:
        raise range_not_satisfiable(size)
    if unit.lower() != "bytes":
        return None
    # Empty list elements count for nothing (section 5.6.1.2).
    found = [_SPEC.fullmatch(part) for spec in specs.split(",") if (part := spec.strip(" \t"))]
    matches = [match for match in found if match is not None]
    if not matches or len(matches) < len(found):
        raise range_not_satisfiable(size)
    if len(matches) > 1:
        return None
    return _one(matches[0][1], matches[0][2], size)


def content_range(r: ByteRange, size: int | None) -> str:
    """The Content-Range value of a 206 that carries this range.

    Args:
        r: What is sent.
        size: The size of the whole content in bytes, or None when it is not known.
    """
    return f"bytes {r.start}-{r.stop - 1}/{'*' if size is None else size}"


def parse_content_range(text: str) -> tuple[int, int, int | None]:
    """What a 206 carries: start, stop (half-open) and the size of the whole, None if not known.

    Raises:
        ValueError: It is no Content-Range of a 206, or contradicts itself.
    """
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is not None:
        start, stop = int(found[1]), int(found[2]) + 1
        total = None if found[3] == "*" else int(found[3])
        if start < stop and (total is None or stop <= total):
            return start, stop, total
    raise ValueError(f"found {shown(text)}, expected bytes FIRST-LAST/SIZE")


def _one(first: str, last: str, size: int) -> ByteRange | None:
    if first:
        start = _number(first)
        end = _number(last) if last else _BEYOND
        if start >= size or end < start:
            raise range_not_satisfiable(size)
        return ByteRange(start, min(end + 1, size))
    suffix = _number(last) if last else 0
    if suffix == 0:
        raise range_not_satisfiable(size)
    return ByteRange(max(size - suffix, 0), size) if size else None


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return _BEYOND if len(significant) > _MAX_DIGITS else int(significant or "0")
