"""Requests of any kind, passed on to an origin as they are."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer

from regproxy.deadline import Deadline
from regproxy.upstream.exchange import Answer, Exchange
from regproxy.upstream.limiter import Limiter
from regproxy.upstream.redirects import same_origin
from regproxy.upstream.sending import Sending

_PLACES = 256
"""Requests that wait for their answer at once, apart from whatever serves pulls."""
_PATIENCE = 5.0
"""Seconds after which a request goes on although every place is taken: a push may take hours."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that a proxy passes on (RFC 9110 section 7.6.1).

    Left out are those that concern one connection, by their name or because ``Connection`` names
    them, and what frames a body.

    Args:
        headers: Names and values; a name may come several times.
    """
    pairs = list(headers)
    named = {
        option.strip().lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    left_out = _HOP_BY_HOP | named | {b"content-length"}
    return [(name, value) for name, value in pairs if name.lower() not in left_out]


class Passage:
    """The way to one origin for requests that are nobody's but their client's.

    No redirect is followed, no token fetched and nothing kept.

    Attributes:
        name: Of the origin, for messages.
    """

    def __init__(self, name: str, base_url: str, exchange: Exchange, clock: IReactorTime) -> None:
        """Args:
        name: Such as the registry's.
        base_url: Scheme, host and port, no path.
        exchange: Sends single requests.
        clock: Runs deadlines.
        """
        self.name = name
        self._base_url = base_url
        self._exchange = exchange
        self._clock = clock
        self._places = Limiter(clock, _PLACES)

    def owns(self, url: str) -> bool:
        """Whether an absolute URL is at this origin."""
        return same_origin(url, self._base_url)

    async def pass_on(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: IBodyProducer | None,
        authorization: str | None,
        deadline: Deadline,
        *,
        silence: float,
    ) -> Answer:
        """Whatever the origin answers.

        An answer that comes before the body is over ends the body.

        Args:
            method: Any method.
            target: Path and query under the origin, or an absolute URL, which may be elsewhere.
            headers: Sent as they are; Host and Via come besides.
            body: Of the request, if it has one.
            authorization: ``Authorization`` for the origin; no other origin gets to see it.
            deadline: When the answer's headers must be there, counted from the end of the body.
            silence: Seconds for which a body may wait to be taken.

        Raises:
            RegistryError: Why the origin could not be asked; its refusals are answers.
        """
        sending = Sending(body, self._clock, deadline, silence) if body is not None else None
        url = self._base_url + target if target.startswith("/") else target
        if authorization is not None and self.owns(url):
            headers = headers.copy()
            headers.setRawHeaders("Authorization", [authorization])
        await deadline.bound(self._places.acquire(_PATIENCE), f"{self.name}: queue")
        try:
            return await self._exchange.send(
                method, url, headers, sending or deadline, body=sending, as_is=True
            )
        finally:
            self._places.release()
            if sending is not None:
                sending.stop()
