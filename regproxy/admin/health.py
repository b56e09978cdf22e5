"""``/healthz``: whether the proxy serves, for load balancers and container runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from regproxy import __version__


class Health(Resource):
    """200 and a few facts while the process answers at all."""

    isLeaf = True

    def __init__(self, facts: Callable[[], Mapping[str, object]]) -> None:
        """Args:
        facts: Asked at each request; values that JSON can express.
        """
        super().__init__()
        self._facts = facts

    def render_GET(self, request: Request) -> bytes:
        """The answer."""
        request.setHeader(b"Content-Type", b"application/json")
        facts = {"status": "ok", "version": __version__, **self._facts()}
        return json.dumps(facts).encode("ascii") + b"\n"


class AdminSite(Site):
    """The admin endpoint; probers come every few seconds, so nothing is logged of them."""

    noisy = False
    displayTracebacks = False

    def __init__(self, health: Health, reactor: IReactorTime) -> None:
        """Args:
        health: Answers ``/healthz``.
        reactor: Runs timeouts.
        """
        root = Resource()
        root.putChild(b"healthz", health)
        super().__init__(root, reactor=reactor)

    def log(self, request: Any) -> None:
        """Nothing."""
