"""What tests of upstreams in memory have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from regproxy.testing import ScriptedUpstream
from tests.testing.bodies import Sink

HUB = "https://registry-1.docker.io"
CDN = "https://cdn.test"
REPOSITORY = "library/alpine"
DATA = bytes(range(256)) * 1000


class UpstreamCase(SynchronousTestCase):
    """A registry with one blob.

    Attributes:
        clock: Stands still.
        upstream: Has the registry.
        digest: The blob's.
        blob: The path of the blob.
    """

    def setUp(self) -> None:
        """Puts `DATA` into `REPOSITORY`."""
        self.clock = Clock()
        self.upstream = ScriptedUpstream(self.clock)
        self.digest = self.upstream.add_blob(HUB, REPOSITORY, DATA)
        self.blob = f"/v2/{REPOSITORY}/blobs/{self.digest}"

    def ask(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> Deferred[IResponse]:
        """Makes a request, and lets it be made."""
        if url.startswith("/"):
            url = HUB + url
        fields = Headers({name: [value] for name, value in (headers or {}).items()})
        waiting = self.upstream.request(method.encode(), url.encode(), fields)
        self.clock.advance(0)
        return waiting

    def get(
        self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> IResponse:
        """The answer's headers, which are there at once."""
        return self.successResultOf(self.ask(url, headers, method))

    def deliver(self, response: IResponse, *, one_by_one: bool = False) -> Sink:
        """As much of the body as comes without time passing."""
        sink = Sink(one_by_one=one_by_one)
        response.deliverBody(sink)
        self.clock.advance(0)
        return sink

    def read(self, response: IResponse) -> bytes:
        """The whole body."""
        return self.deliver(response).body

    def header(self, response: IResponse, name: str) -> str | None:
        """The only value of a header."""
        values = response.headers.getRawHeaders(name)
        if values is None:
            return None
        self.assertEqual(len(values), 1)
        return cast(str, values[0])
