"""What the how-to pages and the proxy's own pages tell people to write and to run."""

from __future__ import annotations

import re
from pathlib import Path

import regproxy

_PAGES = Path(regproxy.__file__).resolve().parent.parent / "docs/how-to"


def block(page: str, language: str, holding: str) -> str:
    """The first block of a how-to page in ``language`` that has ``holding`` in it.

    Raises:
        AssertionError: the page has none.
    """
    text = (_PAGES / f"{page}.md").read_text(encoding="utf-8")
    for found in re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text):
        if holding in found:
            return str(found)
    raise AssertionError(f"{page}.md has no {language} with {holding!r}")


def commands(page: str, holding: str) -> str:
    """The commands of the first console block with ``holding`` in it, one a line."""
    shown = block(page, "console", holding)
    return "".join(f"{line}\n" for line in re.findall(r"(?m)^\$ ((?:.*\\\n)*.*)$", shown))


def contents(served: str) -> str:
    """A page under /setup/ without its head: the file that it is for."""
    lines = served.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#")).lstrip("\n")


def steps(served: str, *, admin: str) -> str:
    """The commands in the head of a page under /setup/, one a line.

    Args:
        served: the page.
        admin: the host and port of the admin endpoint, which the page takes to be the usual one.
    """
    lines = re.findall(r"(?m)^#   ((?:curl|openssl|sudo) .*)$", served)
    # The others are for another kind of machine.
    ours = (line for line in lines if "/etc/pki/" not in line and "ca-trust" not in line)
    return "".join(f"{line}\n" for line in ours).replace("127.0.0.1:5001", admin)
