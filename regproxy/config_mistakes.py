"""What a mistake in the configuration file is, and the words that messages about it share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches

KeyPath = tuple[str | int, ...]

_LONGEST_QUOTE = 80
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Mistake(ValueError):
    """Something was found where something else was expected.

    Args:
        found: What stands in the file, a phrase.
        expected: What could stand there, a phrase.
        at: The path from the place being read to the mistake.
        meant: What was probably meant, as it would be written.
    """

    def __init__(self, found: str, expected: str, *, at: KeyPath = (), meant: str = "") -> None:
        super().__init__(found, expected)
        self.found = found
        self.expected = expected
        self.at = at
        self.meant = meant


def describe(value: object) -> str:
    """Say in a few words what was found, much as it stands in the file."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            quoted = json.dumps(value, ensure_ascii=False)
            return quoted if len(quoted) <= _LONGEST_QUOTE else quoted[:_LONGEST_QUOTE] + '…"'
        case int():
            # Python refuses to print integers of thousands of digits.
            return str(value) if value.bit_length() <= 256 else "a huge integer"
        case float():
            return str(value)
        case dict():
            return "a table"
        case list():
            return "an array"
        case _:
            return "a date or time"


def nearest(word: str, words: Iterable[str]) -> str:
    """Give the one of some words that looks most like another one; "" when none does."""
    return next(iter(get_close_matches(word, list(words), n=1, cutoff=0.7)), "")


def key_path(path: KeyPath) -> str:
    """Write the path of a key as TOML would, with the index of a table in an array."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." if text else ""
            text += step if _BARE_KEY.fullmatch(step) else json.dumps(step, ensure_ascii=False)
    return text
