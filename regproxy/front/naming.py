"""Names in relayed answers, rewritten so that the client that asked can use them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit

from regproxy.model.route import Catalog, Route, TagList, WayIn

_REWRITTEN = 1024 * 1024
"""Bytes of JSON up to which it is parsed; that of 1 MiB holds everything up for some 10 ms."""

_LINK = re.compile(r'\s*<(?P<target>[^<>]*)>(?P<rest>(?:"(?:[^"\\]|\\.)*"|[^,"<])*),?')


def rewrite_link(value: str, route: Route) -> str:
    """A ``Link`` header for the client: its own path, upstream's query (RFC 8288).

    Args:
        value: What upstream sent: one or several links, absolute or relative.
        route: What the client asked for; the links page through exactly that.
    """
    return ", ".join(
        f"<{_client_target(match['target'], route)}>{match['rest'].strip()}"
        for match in _LINK.finditer(value)
    )


def _client_target(target: str, route: Route) -> str:
    try:
        query = urlsplit(target).query
    except ValueError:
        query = ""
    if route.way is WayIn.NAMESPACE:
        query = f"{query}&ns={quote(route.registry)}" if query else f"ns={quote(route.registry)}"
    return f"{client_path(route)}{'?' if query else ''}{query}"


def client_path(route: Route) -> str:
    """The path of a list as the client spells it."""
    parts = ["", "v2", route.prefix, route.client_repository]
    if isinstance(route.asked, TagList):
        parts += ["tags", "list"]
    elif isinstance(route.asked, Catalog):
        parts += ["_catalog"]
    else:
        parts += ["referrers", str(getattr(route.asked, "digest", ""))]
    return "/".join([parts[0], *filter(None, parts[1:])])


def renames_body(route: Route) -> bool:
    """Whether the body of an answer has names that mean something else to this client."""
    return route.way is WayIn.PREFIX and isinstance(route.asked, TagList | Catalog)


def _rename_long(body: bytes, route: Route) -> bytes:
    """A long list, found to be one of tags by what it calls itself, with the client's name."""
    if not isinstance(route.asked, TagList):
        return body
    name = re.compile(rb'"name"\s*:\s*"%b"' % re.escape(route.repository.encode("ascii")))
    found = name.search(body)
    if found is None:
        return body
    ours = json.dumps(f"{route.prefix}/{route.client_repository}").encode("ascii")
    return b'%b"name":%b%b' % (body[: found.start()], ours, body[found.end() :])


def rewrite_body(body: bytes, route: Route) -> bytes:
    """A list of tags or repositories whose names have the client's prefix.

    Args:
        body: JSON as upstream sent it; anything else is returned as it is, as is what is longer
            than 1 MiB, save for the name in a list of tags.
        route: What the client asked for, through a path prefix.
    """
    if len(body) > _REWRITTEN:
        return _rename_long(body, route)
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(fields, dict):
        return body
    if isinstance(route.asked, TagList) and isinstance(fields.get("name"), str):
        fields["name"] = f"{route.prefix}/{route.client_repository}"
    elif isinstance(route.asked, Catalog) and isinstance(fields.get("repositories"), list):
        fields["repositories"] = [
            f"{route.prefix}/{name}" if isinstance(name, str) else name
            for name in fields["repositories"]
        ]
    else:
        return body
    return json.dumps(fields).encode("utf-8")
