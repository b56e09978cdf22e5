"""Tests of who may use the proxy."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.admission import Admission
from tests.front.proxy import ProxyCase

NETWORKS = ("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")


def peer(host: str) -> IPv4Address | IPv6Address:
    """A client's address."""
    family = IPv6Address if ":" in host else IPv4Address
    return family("TCP", host, 40001)


class AdmissionTests(SynchronousTestCase):
    """Addresses and networks."""

    def test_networks(self) -> None:
        """Who lies within one is admitted, whatever form the address has; others are 403."""
        admission = Admission(NETWORKS)
        for host in ("10.1.2.3", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3"):
            self.assertIsNone(admission.refusal(peer(host), b"/v2/"), host)
        for host in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::ffff:11.0.0.1", "::1", "fe80::1%0"):
            error = admission.refusal(peer(host), b"/v2/")
            assert error is not None, host
            self.assertEqual((error.status, error.code), (403, "DENIED"))

    def test_everyone(self) -> None:
        """Without networks everyone is; over a Unix socket, and for /healthz, always."""
        self.assertIsNone(Admission(()).refusal(peer("203.0.113.1"), b"/v2/"))
        admission = Admission(NETWORKS)
        self.assertIsNone(admission.refusal(UNIXAddress("/run/s"), b"/v2/"))
        self.assertIsNone(admission.refusal(peer("203.0.113.1"), b"/healthz"))
        for target in (b"/healthz/", b"/healthz?x", b"http://quay.io/healthz"):
            self.assertIsNotNone(admission.refusal(peer("203.0.113.1"), target))


class RequestTests(ProxyCase):
    """Requests of clients that are not admitted."""

    def test_refused(self) -> None:
        """Nothing is served or asked for them, through any way in; the log has a line of each."""
        self.proxy.site.admission = Admission(NETWORKS)
        for method, target in (
            ("GET", self.blob),
            ("HEAD", "/v2/"),
            ("GET", "http://www.example/"),
            ("CONNECT", "quay.io:443"),
            ("POST", "/v2/quay.io/a/b/blobs/uploads/"),
        ):
            answer = self.proxy.ask(target, method=method)
            self.assertEqual(answer.status, 403, method)
            self.assertEqual(answer.header("Connection"), "close")
        self.assertEqual(self.upstream.requests, [])
        self.assertEqual([line["status"] for line in self.proxy.lines], ["403"] * 5)
        self.assertEqual(self.proxy.ask("/healthz").body, b"ok\n")

    def test_admitted(self) -> None:
        """Others are served as ever."""
        self.proxy.site.admission = Admission(["127.0.0.0/8"])
        self.assert_whole(self.proxy.ask(self.blob))
