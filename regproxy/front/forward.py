"""The forward proxy: plain HTTP to hosts that are no registry, by the rules of tunnels."""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from regproxy.deadline import Deadline
from regproxy.front.client import Client
from regproxy.front.connect import TunnelPolicy
from regproxy.front.passing import PassingAnswers
from regproxy.model.hosts import HostPort
from regproxy.upstream.exchange import Exchange
from regproxy.upstream.limiter import Limiter
from regproxy.upstream.passing import Passage

HTTP_PORT = 80


@frozen
class ForwardProxy:
    """Answers requests whose target is a whole URL at somebody else's host.

    Attributes:
        policy: Which hosts may be asked.
        exchange: Asks them, at no address that the policy does not allow.
        passing: Passes requests on.
        clock: Runs deadlines.
        places: Bounds how many requests wait for their answer at once, whatever their hosts.
    """

    policy: TunnelPolicy
    exchange: Exchange
    passing: PassingAnswers
    clock: IReactorTime
    places: Limiter

    async def answer(self, client: Client, host: HostPort, deadline: Deadline) -> None:
        """Passes a request on to *host*, and the answer back.

        Raises:
            RegistryError: 403 for a host that is not reached through this proxy; 502 or 504 for
                one that does not answer.
            ContentFailed: The answer had begun and cannot be completed.
            ClientGone: Nobody is there any more.
        """
        port = host.port or HTTP_PORT
        self.policy.check(host, port)
        destination = Passage(
            str(host), client.arrival.origin, self.exchange, self.clock, self.places
        )
        await self.passing.answer(client, client.target, destination, client.body, deadline)
