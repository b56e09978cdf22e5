"""``/healthz`` and ``/ca.crt`` on the admin endpoint."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.admin.health import AdminSite, AuthorityCertificate, Health
from regproxy.testing import MemoryClient


class HealthTests(SynchronousTestCase):
    """What a load balancer asks."""

    def setUp(self) -> None:
        """Makes the admin site."""
        clock = Clock()
        self.facts: dict[str, object] = {"fills": 0}
        self.trouble: Exception | None = None
        site = AdminSite(Health(lambda: self.facts), AuthorityCertificate(self.pem), clock)
        self.client = MemoryClient(site, clock)

    def pem(self) -> bytes:
        """The authority's certificate."""
        if self.trouble is not None:
            raise self.trouble
        return b"-----BEGIN CERTIFICATE-----"

    def test_healthy(self) -> None:
        """200 with the version and the facts of the moment, as JSON."""
        for count in (0, 3):
            self.facts["fills"] = count
            answer = self.client.request("GET", "/healthz")
            self.assertEqual((answer.status, answer.complete), (200, True))
            self.assertEqual(answer.header("Content-Type"), "application/json")
            self.assertEqual(
                json.loads(answer.body), {"status": "ok", "version": __version__, "fills": count}
            )

    def test_head(self) -> None:
        """HEAD does for a prober that wants no body."""
        answer = self.client.request("HEAD", "/healthz?verbose=1")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_nothing_else(self) -> None:
        """There is nothing else, and nothing takes a POST."""
        self.assertEqual(self.client.request("GET", "/").status, 404)
        self.assertEqual(self.client.request("POST", "/healthz").status, 405)

    def test_authority(self) -> None:
        """The authority's certificate is there; without one, what the matter is."""
        answer = self.client.request("GET", "/ca.crt")
        self.assertEqual((answer.status, answer.body), (200, self.pem()))
        self.assertEqual(answer.header("Content-Type"), "application/pem-certificate-chain")
        self.trouble = PermissionError("the key cannot be read")
        answer = self.client.request("GET", "/ca.crt")
        self.assertEqual((answer.status, answer.body), (503, b"the key cannot be read\n"))
