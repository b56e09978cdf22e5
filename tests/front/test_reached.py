"""What clients get that reach a registry, or anything else, by its host."""

from __future__ import annotations

from regproxy.front.pages import Pages
from regproxy.testing import MemoryAnswer
from tests.front.proxy import ALPINE, AUTHORITY, DATA, HUB, QUAY, VIA, ProxyCase

ETCD = "coreos/etcd"


class HostCase(ProxyCase):
    """Two registries with an image each, and a host that is none."""

    def setUp(self) -> None:
        """Adds what is asked for besides docker.io's blob."""
        super().setUp()
        self.etcd, self.manifest = self.proxy.add_manifest(b"layer", origin=QUAY, repository=ETCD)
        self.upstream.add_page(
            f"{QUAY}/repository/coreos/etcd", b"<html>", headers={"Content-Type": "text/html"}
        )
        self.upstream.add_page(f"{HUB}/v1/search", b'{"results":[]}')
        self.upstream.add_page("http://www.example/index.html", b"hello")

    def at(self, host: str, target: str, method: str = "GET", **headers: str) -> MemoryAnswer:
        """An answer of what a host is believed to be."""
        return self.proxy.ask(target, {"Host": host, **headers}, method)

    def assert_line(self, **expected: str) -> None:
        """Asserts what the log says of the last request."""
        line = self.proxy.lines[-1]
        self.assertEqual({key: line[key] for key in expected}, expected)


class PullTests(HostCase):
    """Images of registries that are reached by their host."""

    def test_interception(self) -> None:
        """A registry's host has its own paths; the cache is the same as for all ways in."""
        for host, word in [("quay.io", "MISS"), ("QUAY.io:443", "HIT")]:
            answer = self.at(host, f"/v2/{ETCD}/manifests/latest")
            self.assert_whole(answer, self.manifest)
            self.assert_line(cache=word, way="interception", registry="quay.io", repository=ETCD)
        self.assert_whole(self.at("proxy", f"/v2/quay.io/{ETCD}/manifests/latest"), self.manifest)
        self.assert_line(cache="HIT", way="prefix")
        self.assertEqual(self.upstream.count("GET", "/manifests/latest"), 1)

    def test_names_of_images(self) -> None:
        """What docker.io calls library is so by its host, too; a prefix is none there."""
        self.assert_whole(self.at("docker.io", self.blob.replace("library/", "")), DATA)
        self.assert_line(repository=ALPINE, way="interception")
        answer = self.at("docker.io", f"/v2/quay.io/{ETCD}/manifests/latest")
        self.assertEqual(answer.status, 404)
        self.assert_line(registry="docker.io", repository=f"quay.io/{ETCD}")

    def test_forward(self) -> None:
        """A whole URL means its host, whatever the Host header says."""
        answer = self.at("docker.io", f"http://quay.io/v2/{ETCD}/manifests/latest")
        self.assert_whole(answer, self.manifest)
        self.assert_line(way="forward", registry="quay.io", repository=ETCD, reference="latest")

    def test_version_check(self) -> None:
        """Every host of a registry is one."""
        for host in ("quay.io", "registry.corp:5000", "docker.io"):
            answer = self.at(host, "/v2/")
            self.assertEqual((answer.status, answer.body), (200, b"{}"))


class OtherTests(HostCase):
    """What a registry's host serves besides images."""

    def test_page(self) -> None:
        """A page is passed on as it is each time, and nothing of it is kept."""
        for _ in range(2):
            answer = self.at("quay.io", "/repository/coreos/etcd?tab=tags", Cookie="a=b")
            self.assert_whole(answer, b"<html>")
            self.assertEqual(answer.header("Content-Type"), "text/html")
            self.assert_line(cache="RELAY", way="interception", registry="quay.io")
        asked = self.upstream.find("GET", "/repository/coreos/etcd")
        self.assertEqual([each.header("Cookie") for each in asked], ["a=b"] * 2)
        self.assertEqual(asked[0].header("Via"), f"1.1 {VIA}")
        self.assertEqual(self.at("quay.io", "/nothing").status, 404)

    def test_search(self) -> None:
        """The search is passed on; the rest of the API before this one is gone."""
        for host in ("docker.io", "proxy"):
            answer = self.at(host, "/v1/search?q=etcd")
            self.assert_whole(answer, b'{"results":[]}')
        for host in ("docker.io", "quay.io", "proxy"):
            self.assertEqual(self.at(host, "/v1/_ping").status, 404)

    def test_token_endpoint(self) -> None:
        """A token endpoint under /v2/ takes what clients ask it with, and nothing that changes."""
        self.upstream.add_page(f"{QUAY}/v2/auth", b'{"token":"t"}')
        for method in ("GET", "POST"):
            self.assert_whole(self.at("quay.io", "/v2/auth?scope=x", method), b'{"token":"t"}')
        for method in ("PUT", "DELETE", "PATCH"):
            self.assertEqual(self.at("quay.io", "/v2/auth", method).status, 405)

    def test_denied(self) -> None:
        """A registry may be closed for everything but images."""
        for target in ("/", "/v2/token", "/api?x"):
            answer = self.at("registry.corp:5000", target)
            self.assertEqual(answer.status, 403)
            self.assertIn(b'other_requests = \\"deny\\"', answer.body)
        self.assertEqual(self.upstream.requests, [])


class ForeignTests(HostCase):
    """Hosts that are no registry."""

    def test_allowed(self) -> None:
        """What a pattern allows is passed on."""
        answer = self.at("elsewhere", "http://www.example/index.html?a=b")
        self.assert_whole(answer, b"hello")
        self.assert_line(cache="RELAY", way="forward", registry="-", reference="www.example")

    def test_refused(self) -> None:
        """Nothing else is, whatever port or name it hides behind."""
        for url in (
            "http://www.example:8080/",
            "http://example.com/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "http://localhost:5001/healthz",
        ):
            answer = self.at("proxy", url)
            self.assertEqual(answer.status, 403, url)
            self.assertIn(b"[connect] tunnel", answer.body)
        self.assertEqual(self.at("proxy", "https://www.example/").status, 400)
        self.assertEqual(self.upstream.requests, [])

    def test_credentials(self) -> None:
        """What is meant for the proxy alone goes no further."""
        headers = {"Proxy-Authorization": "Basic eDp5", "Connection": "X-Mine", "X-Mine": "1"}
        self.at("proxy", "http://www.example/index.html?a=b", **headers)
        (asked,) = self.upstream.requests
        for name in (*headers, "Proxy-Connection"):
            self.assertIsNone(asked.header(name), name)


class OwnTests(HostCase):
    """What is the proxy's own."""

    def test_pages(self) -> None:
        """Its pages are on every host that is no registry, and on no registry's."""
        for host in ("proxy.corp", "127.0.0.1:5000", "docker.proxy"):
            answer = self.at(host, "/ca.crt")
            self.assert_whole(answer, AUTHORITY)
            self.assertIn(f"http://{host}".encode(), self.at(host, "/setup/docker").body)
            self.assertEqual(self.at(host, "/healthz").body, b"ok\n")
        answer = self.at("x", "http://proxy.corp/ca.crt", method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.header("Content-Length"), str(len(AUTHORITY)))
        for target in ("/ca.crt", "/healthz"):
            self.assertEqual(self.at("quay.io", target).status, 404)
        for target in ("/setup/nothing", "/", "/ca.crt/x"):
            self.assertEqual(self.at("proxy.corp", target).status, 404)
        self.assertEqual(self.at("proxy.corp", "/ca.crt", method="POST").status, 404)

    def test_no_authority(self) -> None:
        """Without an authority its certificate is 503, and the log says why."""

        def broken(*_: object) -> None:
            raise PermissionError("the key cannot be read")

        self.patch(Pages, "find", broken)
        answer = self.at("proxy.corp", "/ca.crt")
        self.assertEqual(answer.status, 503)
        self.assertNotIn(b"key", answer.body)

    def test_loop(self) -> None:
        """A request that comes back by a hijacked name is stopped, and the way out is said."""
        for via in (f"1.1 {VIA}", f"1.0 other, 1.1 {VIA} (regproxy)"):
            for host in ("quay.io", "proxy"):
                answer = self.at(host, f"/v2/quay.io/{ETCD}/manifests/latest", Via=via)
                self.assertEqual(answer.status, 508)
                self.assertIn(b"resolve", answer.body)
        self.assertEqual(self.at("quay.io", "/v2/", Via="1.1 regproxy-other").status, 200)
        self.assertEqual(self.upstream.requests, [])

    def test_via(self) -> None:
        """Every request says where it was."""
        self.proxy.ask(self.blob)
        self.at("quay.io", f"/v2/{ETCD}/tags/list")
        self.assertEqual({asked.header("Via") for asked in self.upstream.requests}, {f"1.1 {VIA}"})
