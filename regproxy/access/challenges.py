"""``WWW-Authenticate`` headers, read as RFC 9110 section 11.6.1 writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(
    rf"\s*(?P<name>{_TOKEN})"
    rf'(?:\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_TOKEN}(?=\s*(?:,|$))))'
    rf"|(?P<next>\s+|\s*,|\s*$))"
)
_TOKEN68 = re.compile(r"\s*[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")
_LIMIT = 8 * 1024


@frozen
class Challenge:
    """One way to authenticate that a server offers.

    Attributes:
        scheme: Lower-case, such as ``"bearer"``.
        parameters: By lower-case name, quotes removed.
    """

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """The challenges in the ``WWW-Authenticate`` headers of an answer, in order.

    Args:
        values: The headers' values; each may hold several challenges.

    Returns:
        What could be read; from the first malformed place on a header is ignored.
    """
    return [challenge for value in values for challenge in _parse_header(value[:_LIMIT])]


def _parse_header(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    scheme: str | None = None
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        if text[position] in " \t,":
            position += 1
            continue
        match = _ITEM.match(text, position)
        if match is None:
            break
        value = match["quoted"] if match["quoted"] is not None else match["plain"]
        position = match.end()
        if value is not None:
            if scheme is None:
                break
            if match["quoted"] is not None:
                value = re.sub(r"\\(.)", r"\1", value)
            parameters.setdefault(match["name"].lower(), value)
            continue
        if scheme is not None:
            found.append(Challenge(scheme, parameters))
        scheme, parameters = match["name"].lower(), {}
        # Some schemes (Negotiate) carry one bare value instead of parameters.
        bare = _TOKEN68.match(text, position)
        if bare is not None and match["next"] and not match["next"].rstrip().endswith(","):
            after = _ITEM.match(text, position)
            if after is None or after["next"] is not None:
                position = bare.end()
    if scheme is not None:
        found.append(Challenge(scheme, parameters))
    return found
