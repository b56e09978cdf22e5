"""Upstreams that send their blobs from another host."""

from __future__ import annotations

from tests.real.case import RealCase
from tests.real.certificates import Certificates
from tests.real.images import ACCEPT
from tests.real.library import library
from tests.real.rawhttp import fetch
from tests.real.registries import transfers
from tests.real.tokens import ISSUER, SERVICE, TokenServer

# "puller" with the password "secret", as htpasswd -B writes it.
_HTPASSWD = "puller:$2y$05$XCL2Ex2h2WX9LzbY3ws.5ez/wp4BYwl465GVeTuOS9/7LXrRRDM9C\n"
_PULLER = {"Authorization": "Basic cHVsbGVyOnNlY3JldA=="}


class RedirectTests(RealCase):
    """docker-registry redirects every blob to nginx."""

    def setUp(self) -> None:
        """Starts the storage host."""
        super().setUp()
        self.host = self.start_storage_host()

    def test_pull(self) -> None:
        """Clients pull from the proxy alone; the storage host sees one transfer per blob."""
        registry = self.start_registry(redirect=self.host.url)
        proxy = self.start_proxy_for(registry)
        docker, skopeo = self.start_docker(proxy.url), self.skopeo()
        for tag in ("small", "multi"):
            image = library().images[tag]
            name = f"{proxy.host}/docker.io/library/app:{tag}"
            self.assert_pulled(skopeo.pull(name), image)
            self.assert_pulled(docker.pull(f"app:{tag}"), image)
        requests = self.host.requests()
        self.assertEqual(set(transfers(requests).values()), {1})
        # What asked there is what asked the registry: the proxy, and no client.
        agents = {each.agent for each in registry.requests() if "/blobs/" in each.target}
        self.assertEqual({each.agent for each in requests}, agents)
        for agent in agents:
            self.assertNotIn("skopeo", agent)
            self.assertNotIn("docker", agent)

    def test_client_sees_no_redirect(self) -> None:
        """A blob is answered with itself, a HEAD with its size; no URL of the storage is told."""
        proxy = self.start_proxy_for(self.start_registry(redirect=self.host.url))
        blob = library().images["small"].layers[1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        for method in ("HEAD", "GET", "GET", "HEAD"):
            answer = fetch(url, method=method)
            self.assertEqual(answer.status, 200)
            self.assertNotIn("location", answer.headers)
            self.assertEqual(answer.headers["content-length"], str(blob.size))
        self.assertNotIn(self.host.url, proxy.process.stdout.read_text())

    def test_large(self) -> None:
        """A layer of over 200 MB comes that way too."""
        proxy = self.start_proxy_for(self.start_registry(redirect=self.host.url))
        image = library().images["large"]
        name = f"{proxy.host}/registry-a.test/team/app:large"
        self.assert_pulled(self.skopeo().pull(name), image)
        wanted = {blob.digest: 1 for blob in image.blobs}
        self.assertEqual(transfers(self.host.requests()), wanted)


class CredentialTests(RealCase):
    """The registry wants a password; the storage host must never see it."""

    def setUp(self) -> None:
        """Starts the three of them."""
        super().setUp()
        self.host = self.start_storage_host()
        users = self.directory / "htpasswd"
        users.write_text(_HTPASSWD)
        auth = {"htpasswd": {"realm": "upstream", "path": str(users)}}
        self.registry = self.start_registry(redirect=self.host.url, auth=auth)
        self.proxy = self.start_proxy_for(self.registry)
        self.base = f"{self.proxy.url}/v2/registry-a.test/team/app"
        self.image = library().images["small"]

    def test_relayed(self) -> None:
        """A request with its own credential is relayed, its redirect followed without it."""
        manifest = fetch(f"{self.base}/manifests/small", headers={**ACCEPT, **_PULLER})
        self.assertEqual((manifest.status, manifest.digest), (200, self.image.digest))
        for blob in self.image.blobs:
            answer = fetch(f"{self.base}/blobs/{blob.digest}", headers=_PULLER)
            self.assertEqual((answer.status, answer.digest), (200, blob.digest))
            self.assertNotIn("location", answer.headers)
        seen = {request.authorization for request in self.host.requests()}
        self.assertEqual(seen, {"-"})
        words = {line["cache"] for line in self.proxy.access_log()}
        self.assertEqual(words, {"RELAY"})

    def test_nothing_is_kept(self) -> None:
        """What a credential fetched is not stored, and nobody gets it without one."""
        blob = self.image.layers[0].blob
        wanted = [f"{self.base}/manifests/small", f"{self.base}/blobs/{blob.digest}"]
        for url in wanted:
            answer = fetch(url, headers={**ACCEPT, **_PULLER})
            self.assertEqual(answer.status, 200)
        for url in wanted:
            answer = fetch(url, headers=ACCEPT)
            self.assertEqual((answer.status, answer.error_code()), (401, "UNAUTHORIZED"), url)
            wrong = fetch(url, headers={"Authorization": "Basic cHVsbGVyOndyb25n"})
            self.assertEqual(wrong.status, 401)
        self.assertEqual(self.proxy.stored(), [])

    def test_secrets_are_not_logged(self) -> None:
        """A credential stands in no log of the proxy's."""
        fetch(f"{self.base}/manifests/small", headers={**ACCEPT, **_PULLER})
        self.proxy.access_log()
        for log in (self.proxy.process.stdout, self.proxy.process.stderr):
            self.assertNotIn("cHVsbGVyOnNlY3JldA", log.read_text())


class TokenTests(RealCase):
    """Even public images need a token, as on Docker Hub; the proxy fetches an anonymous one."""

    def setUp(self) -> None:
        """Starts a token server, a registry that believes it, and the storage host."""
        super().setUp()
        self.tokens = TokenServer(Certificates.make(self.directory / "signing"))
        self.addCleanup(self.tokens.stop)
        self.host = self.start_storage_host()
        auth = {
            "token": {
                "realm": self.tokens.realm,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self.tokens.bundle),
            }
        }
        self.registry = self.start_registry(redirect=self.host.url, auth=auth)

    def test_without_proxy(self) -> None:
        """The set-up itself works: skopeo gets a token and pulls."""
        name = f"127.0.0.1:{self.registry.port}/team/app:small"
        self.assert_pulled(self.skopeo().pull(name), library().images["small"])
        self.assertTrue(self.tokens.asked)

    def test_pull(self) -> None:
        """Clients need no token; one per repository is fetched and kept; storage sees none."""
        proxy = self.start_proxy_for(self.registry)
        docker, skopeo = self.start_docker(proxy.url), self.skopeo()
        for tag in ("small", "multi"):
            image = library().images[tag]
            self.assert_pulled(docker.pull(f"app:{tag}"), image)
            name = f"{proxy.host}/registry-a.test/team/app:{tag}"
            self.assert_pulled(skopeo.pull(name), image)
        scopes = sorted(each.scopes for each in self.tokens.asked)
        wanted = [("repository:library/app:pull",), ("repository:team/app:pull",)]
        self.assertEqual(scopes, wanted)
        self.assertEqual({each.service for each in self.tokens.asked}, {SERVICE})
        self.assertEqual({each.authorization for each in self.tokens.asked}, {""})
        self.assertEqual({each.authorization for each in self.host.requests()}, {"-"})

    def test_token_server_gone(self) -> None:
        """What is stored is served without the token server; what is not is a bad gateway."""
        proxy = self.start_proxy_for(self.registry)
        name = f"{proxy.host}/registry-a.test/team/app"
        self.skopeo().pull(f"{name}:small")
        proxy.stop()
        self.tokens.stop()
        proxy.restart()
        self.assert_pulled(self.skopeo().pull(f"{name}:small"), library().images["small"])
        answer = fetch(f"{proxy.url}/v2/registry-a.test/team/app/manifests/multi", headers=ACCEPT)
        self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
