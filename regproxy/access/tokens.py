"""The anonymous Bearer token that public registries ask for.

See https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from regproxy.access.challenges import Challenge, parse_challenges
from regproxy.deadline import Deadline
from regproxy.model.errors import too_many_requests, upstream_failed
from regproxy.single_flight import SingleFlight
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.redirects import permitted_url

_ANSWER_LIMIT = 64 * 1024
_DEFAULT_LIFE = 60.0
"""Seconds a token lives when its answer does not say (the token specification's default)."""
_MARGIN = 0.2
"""The last part of a token's life in which it is no longer used."""


@frozen
class _Token:
    value: str
    expires: float


class AnonymousTokens:
    """Anonymous tokens of one registry by scope; one request for all who need the same token."""

    def __init__(
        self,
        exchange: Exchange,
        clock: IReactorTime,
        upstream: str,
        patience: float,
        kept: int = 4096,
    ) -> None:
        """Args:
        exchange: Asks the token endpoint.
        clock: Tells when a token is too old.
        upstream: The registry's URL: one on https is never followed to a realm on http.
        patience: Seconds a token request may take; its callers may have less.
        kept: Scopes whose tokens are kept at once.
        """
        self._patience = patience
        self._kept = kept
        self._exchange = exchange
        self._clock = clock
        self._upstream = upstream
        self._host = urlsplit(upstream).hostname
        self._tokens: dict[str, _Token] = {}
        self._flights: SingleFlight[tuple[str, str], str] = SingleFlight(clock)

    def authorization(self, scope: str) -> str | None:
        """The header value that is known to serve *scope*, or None when nothing is known."""
        token = self._tokens.get(scope)
        if token is None:
            return None
        if token.expires <= self._clock.seconds():
            del self._tokens[scope]
            return None
        return f"Bearer {token.value}"

    async def answer(
        self, challenges: Sequence[str], scope: str, refused: str | None, deadline: Deadline
    ) -> str | None:
        """A header value that answers a 401, or None when anonymous access ends here.

        Args:
            challenges: The values of ``WWW-Authenticate``.
            scope: What is to be done, such as ``repository:library/alpine:pull``.
            refused: The header value that the registry has just refused, if one was sent.
            deadline: When the token must be there.

        Raises:
            RegistryError: 502 or 504 when the token endpoint cannot be asked, 429 when it says so.
        """
        known = self.authorization(scope)
        if known is not None and known != refused:
            return known
        self._tokens.pop(scope, None)
        bearer = next(
            (
                challenge
                for challenge in parse_challenges(challenges)
                if challenge.scheme == "bearer" and challenge.parameters.get("realm")
            ),
            None,
        )
        if bearer is None:
            return None
        url = self._token_url(bearer, scope)
        flight = self._flights.call((scope, url), lambda: self._fetch(url, scope))
        token = await deadline.bound(flight, f"{urlsplit(url).hostname}: token")
        return f"Bearer {token}" if token else None

    def _token_url(self, challenge: Challenge, scope: str) -> str:
        try:
            realm = permitted_url(self._upstream, challenge.parameters["realm"])
        except ValueError as error:
            raise upstream_failed(f"{self._host} names as its token realm {error}") from error
        query = (
            [("service", challenge.parameters["service"])]
            if challenge.parameters.get("service")
            else []
        )
        query.append(("scope", scope))
        encoded = urlencode(query, quote_via=quote, safe=":/*")
        return f"{realm}{'&' if '?' in realm else '?'}{encoded}"

    async def _fetch(self, url: str, scope: str) -> str:
        """The new token, or "" when the endpoint refuses anonymous clients."""
        deadline = Deadline.after(self._clock, self._patience)
        answer = await self._exchange.send("GET", url, {"Accept": "application/json"}, deadline)
        host = answer.host
        if answer.status == 429:
            answer.discard()
            raise too_many_requests(
                f"{host}: too many token requests", answer.header("Retry-After")
            )
        if answer.status in (400, 401, 403, 404):
            answer.discard()
            return ""
        if answer.status != 200:
            answer.discard()
            raise upstream_failed(f"{host}: token endpoint answered {answer.status}")
        body = await answer.read(_ANSWER_LIMIT, deadline)
        token, life = _read_answer(body, host, self._clock.seconds())
        if len(self._tokens) >= self._kept:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[scope] = _Token(token, self._clock.seconds() + life * (1 - _MARGIN))
        return token


def _read_answer(body: bytes, host: str, now: float) -> tuple[str, float]:
    """Token and seconds of life left (https://distribution.github.io/distribution/spec/auth/token/)."""
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise upstream_failed(f"{host}: token answer is not JSON") from error
    if not isinstance(fields, dict):
        raise upstream_failed(f"{host}: token answer is not an object")
    token = fields.get("token") or fields.get("access_token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise upstream_failed(f"{host}: token answer has no token")
    life = fields.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life < 1e9:
        life = _DEFAULT_LIFE
    issued = fields.get("issued_at")
    if isinstance(issued, str):
        try:
            when = datetime.fromisoformat(issued)
        except ValueError:
            when = None
        if when is not None:
            if when.tzinfo is None:
                when = when.replace(tzinfo=UTC)
            age = now - when.timestamp()
            # A clock that is off must not make every token dead on arrival.
            if 0 < age < life / 2:
                life -= age
    return token, float(life)
