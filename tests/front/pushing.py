"""A proxy that passes requests on, in memory: its answers, and the way to ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.deadline import Deadline
from regproxy.front.arrival import Arrival
from regproxy.front.bodies import RequestBody
from regproxy.front.client import Client
from regproxy.front.connections import Connections
from regproxy.front.passing import PassingAnswers
from regproxy.front.site import LimitedSite
from regproxy.front.stall import ClientGone
from regproxy.model.errors import RegistryError
from regproxy.model.route import Reached
from regproxy.testing import MemoryAnswer, MemoryClient
from regproxy.testing.client import HeaderValues
from tests.front.proxy import HEADERS_TIMEOUT, LIMITS, SILENCE, Proxy, ProxyCase

VIA = "regproxy-test"
BODY = bytes(range(256)) * 1024


Serve = Callable[[Client, Deadline], Awaitable[None]]


class PassingResource(Resource):
    """Hands every request to a function, and answers with what that raises."""

    isLeaf = True

    def __init__(self, proxy: Proxy, serve: Serve, reached: Reached | None) -> None:
        super().__init__()
        self._proxy = proxy
        self._serve = serve
        self._reached = reached
        self.clients: list[Client] = []
        self.bodies: list[RequestBody | None] = []

    def render(self, request: Any) -> int:
        """Starts the answer."""
        client = Client(request, self._proxy.clock)
        host = request.requestHeaders.getRawHeaders("Host")[0]
        arrived: Any = Arrival(f"http://{host}", request.uri.decode("latin-1"))
        client.arrival = evolve(arrived, reached=self._reached)
        self.clients.append(client)
        self.bodies.append(request.body)
        deadline = Deadline.after(self._proxy.clock, HEADERS_TIMEOUT)

        async def served() -> None:
            await self._serve(client, deadline)

        Deferred.fromCoroutine(served()).addErrback(self._failed, client)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, client: Client) -> None:
        error: Any = failure.value
        if isinstance(error, RegistryError):
            client.refuse(error)
        elif isinstance(error, ClientGone) or client.request.startedWriting:
            client.cut(str(error))
        else:
            raise error


class PassingCase(ProxyCase):
    """A proxy with a site besides its own, whose requests go to `serve`.

    Attributes:
        passing: Passes requests on.
        reached: The registry that the host of requests is, None for the proxy itself.
    """

    reached: Reached | None = None

    def setUp(self) -> None:
        """Makes the site."""
        super().setUp()
        self.passing = PassingAnswers(self.clock, SILENCE, LIMITS.write_stall, VIA)
        self.start()

    def start(self) -> None:
        """Makes the site (anew)."""
        self.resource = PassingResource(self.proxy, self.serve, self.reached)
        self.site = LimitedSite(
            self.resource, LIMITS, Connections(100), self.proxy.access_log, self.clock
        )
        self.site.doStart()

    async def serve(self, client: Client, deadline: Deadline) -> None:
        """Answers a request."""
        raise NotImplementedError

    def connect(self, *, reading: bool = True) -> MemoryClient:
        """A client of the site."""
        return MemoryClient(self.site, self.clock, reading=reading)

    def pass_on(
        self,
        method: str,
        target: str,
        headers: HeaderValues | None = None,
        body: bytes | None = None,
        *,
        chunks: Sequence[bytes] | None = None,
    ) -> MemoryAnswer:
        """An answer on a connection of its own, as far as it comes at once."""
        answer = self.connect().request(method, target, headers, body, chunks=chunks)
        self.proxy.settle()
        return answer

    def begin(
        self, method: str, target: str, length: int, headers: HeaderValues | None = None
    ) -> tuple[MemoryClient, MemoryAnswer]:
        """A request whose body, of so many bytes, is still to be sent."""
        client = self.connect()
        fields = {**(headers or {}), "Content-Length": str(length)}
        answer = client.request(method, target, fields)
        self.proxy.settle()
        return client, answer
