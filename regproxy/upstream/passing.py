"""Requests of any kind, passed on to an origin as they are."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve
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

_FOR_STRANGERS = frozenset(
    {
        b"accept",
        b"content-encoding",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"range",
        b"user-agent",
    }
)
"""Headers that an origin gets which the client never meant to talk to: none of them is a secret."""

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


def passing_places(clock: IReactorTime) -> Limiter:
    """The bound on requests that wait for their answer."""
    return Limiter(clock, _PLACES)


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
    # Behind CGI, and what is like it, an underscore is a hyphen.
    return [
        (name, value) for name, value in pairs if name.lower().replace(b"_", b"-") not in left_out
    ]


class Passage:
    """The way to one origin for requests that are nobody's but their client's.

    No redirect is followed, no token fetched and nothing kept.

    Attributes:
        name: Of the origin, for messages.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        exchange: Exchange,
        clock: IReactorTime,
        places: Limiter | None = None,
    ) -> None:
        """Args:
        name: Such as the registry's.
        base_url: Scheme, host and port, no path.
        exchange: Sends single requests.
        clock: Runs deadlines.
        places: Bounds how many requests wait for their answer at once; by default a bound of
            its own.
        """
        self.name = name
        self._base_url = base_url
        self._exchange = exchange
        self._clock = clock
        self._places = places or passing_places(clock)

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
        patience: float | None = None,
    ) -> Answer:
        """Whatever the origin answers.

        An answer that comes before the body is over ends the body.

        Args:
            method: Any method.
            target: Path and query under the origin, or an absolute URL, which may be elsewhere.
            headers: Sent as they are; Host and Via come besides. Another origin gets those that
                describe the body and nothing of who asks.
            body: Of the request, if it has one.
            authorization: ``Authorization`` for the origin; no other origin gets to see it.
            deadline: When the answer's headers must be there, counted from the end of the body.
            silence: Seconds for which a body may wait to be taken.
            patience: Seconds for the answer from the end of a body on; by default as many as the
                deadline gave at first.

        Raises:
            RegistryError: Why the origin could not be asked; its refusals are answers.
        """
        sending = None
        if body is not None:
            sending = Sending(body, self._clock, deadline, silence, patience)
        url = self._base_url + target if target.startswith("/") else target
        is_own = self.owns(url)
        headers = headers.copy()
        if not is_own:
            for name, _ in list(headers.getAllRawHeaders()):
                if name.lower() not in _FOR_STRANGERS:
                    headers.removeHeader(name)
        elif authorization is not None:
            headers.setRawHeaders("Authorization", [authorization])
        await deadline.bound(self._places.acquire(_PATIENCE), f"{self.name}: queue")
        try:
            answer = await self._exchange.send(
                method, url, headers, sending or deadline, body=sending, as_is=True
            )
            return evolve(answer, elsewhere=not is_own)
        finally:
            self._places.release()
            if sending is not None:
                sending.stop()
