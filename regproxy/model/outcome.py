"""How a request was served, in one word for the log and as ``Cache-Status`` for the client."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a request was served."""

    HIT = "HIT"
    JOIN = "JOIN"
    MISS = "MISS"
    REVALIDATED = "REVALIDATED"
    STALE = "STALE"
    RELAY = "RELAY"

    @property
    def cache_status(self) -> str:
        """The value of ``Cache-Status`` (RFC 9211)."""
        return _CACHE_STATUS[self]


_CACHE_STATUS = {
    Outcome.HIT: "regproxy; hit",
    Outcome.JOIN: "regproxy; fwd=uri-miss; collapsed",
    Outcome.MISS: "regproxy; fwd=uri-miss; stored",
    Outcome.REVALIDATED: "regproxy; fwd=stale; fwd-status=200; detail=revalidated",
    Outcome.STALE: "regproxy; hit; detail=stale-if-error",
    Outcome.RELAY: "regproxy; fwd=bypass",
}
