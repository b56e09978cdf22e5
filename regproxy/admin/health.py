"""The admin endpoint: ``/healthz`` for load balancers and container runtimes, ``/ca.crt``."""

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


class AuthorityCertificate(Resource):
    """The certificate that clients are to trust, from an endpoint that operators trust."""

    isLeaf = True

    def __init__(self, pem: Callable[[], bytes]) -> None:
        """Args:
        pem: Gives the certificate in PEM; raises ValueError or OSError when there is none.
        """
        super().__init__()
        self._pem = pem

    def render_GET(self, request: Request) -> bytes:
        """The answer."""
        try:
            pem = self._pem()
        except (OSError, ValueError) as problem:
            request.setResponseCode(503)
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return f"{problem}\n".encode()
        # RFC 8555 section 9.1.
        request.setHeader(b"Content-Type", b"application/pem-certificate-chain")
        return pem


class AdminSite(Site):
    """The admin endpoint; probers come every few seconds, so nothing is logged of them."""

    noisy = False
    displayTracebacks = False

    def __init__(
        self, health: Health, authority: AuthorityCertificate, reactor: IReactorTime
    ) -> None:
        """Args:
        health: Answers ``/healthz``.
        authority: Answers ``/ca.crt``.
        reactor: Runs timeouts.
        """
        root = Resource()
        root.putChild(b"healthz", health)
        root.putChild(b"ca.crt", authority)
        super().__init__(root, reactor=reactor)

    def log(self, request: Any) -> None:
        """Nothing."""
