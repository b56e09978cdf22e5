"""Writes the tables of reference/configuration.md from the classes that hold the configuration.

python docs/configuration_reference.py          writes them
python docs/configuration_reference.py --check  fails when they are not up to date

On the page, a table stands between two comments, of which the first names the table of the
configuration file. Everything else on the page is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from attrs import NOTHING, Attribute, Factory, fields

from regproxy.config import TABLES
from regproxy.config_mistakes import describe
from regproxy.config_values import written_duration, written_size
from regproxy.config_well_known import WELL_KNOWN

PAGE = Path(__file__).parent / "reference" / "configuration.md"

_GENERATED = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def key_table(table: type[Any]) -> str:
    """Give a Markdown table of the keys that a table of the file may have."""
    lines = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key in fields(table):
        if "kind" in key.metadata:
            cells = (f"`{key.name}`", _value(key), _default(key), key.metadata["help"])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def well_known_table() -> str:
    """Give a Markdown table of the well-known registries."""
    lines = ["| name | upstream | aliases |", "| --- | --- | --- |"]
    for each in WELL_KNOWN.values():
        aliases = ", ".join(f"`{alias}`" for alias in each.aliases)
        lines.append(f"| `{each.name}` | `{each.upstream}` | {aliases} |")
    return "\n".join(lines)


def renewed(page: str) -> str:
    """Give the text of a page with its tables up to date."""
    tables = {name or "top level": key_table(table) for name, table in TABLES.items()}
    tables["well-known registries"] = well_known_table()
    return _GENERATED.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", page)


def _value(key: Attribute[Any]) -> str:
    kind = str(key.metadata["kind"])
    if kind in {"table", "tables", "tables by name"}:
        return f"[{kind}](#{key.name.replace('_', '-')})"
    if kind == "word":
        return " or ".join(f"`{describe(str(choice))}`" for choice in key.metadata["choices"])
    if "minimum" in key.metadata:
        low, high = (_written(kind, key.metadata[end]) for end in ("minimum", "maximum"))
        return f"{kind}, `{low}` to `{high}`"
    return kind


def _default(key: Attribute[Any]) -> str:
    if "written_default" in key.metadata:
        return str(key.metadata["written_default"])
    if key.default is NOTHING:
        return "required"
    if key.default is None:
        return "none"
    if isinstance(key.default, Factory):  # type: ignore[arg-type]  # it is a class
        return "see there"
    if key.default == ():
        return "`[]`"
    written = _written(str(key.metadata["kind"]), key.default)
    return f"`{written}`"


def _written(kind: str, value: Any) -> str:
    match kind:
        case "duration":
            return describe(written_duration(value))
        case "size":
            return describe(written_size(value))
        case "boolean" | "integer" | "tunnel":
            return describe(value)
        case _:
            return describe(str(value))


def main(arguments: list[str]) -> str | None:
    """Write the page, or check it; give what is wrong, for :func:`sys.exit`."""
    page = PAGE.read_text("utf-8")
    new = renewed(page)
    if arguments == ["--check"]:
        return None if new == page else f"{PAGE} is not up to date: run {Path(__file__).name}"
    if arguments:
        return __doc__
    PAGE.write_text(new, "utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
