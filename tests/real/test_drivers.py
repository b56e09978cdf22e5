"""The drivers themselves, against docker-registry without a proxy between."""

from __future__ import annotations

from tests.real.case import RealCase
from tests.real.library import LARGE_LAYER, library
from tests.real.processes import CommandFailed, is_listening
from tests.real.rawhttp import fetch, fetch_together
from tests.real.registries import transfers


class DriversTests(RealCase):
    """What a trial with the proxy says is worth nothing unless these hold."""

    def setUp(self) -> None:
        """Starts the upstream."""
        super().setUp()
        self.registry = self.start_registry()
        self.name = f"127.0.0.1:{self.registry.port}/team/app"

    def test_skopeo(self) -> None:
        """With skopeo: pulls every image of the library, by tag and by digest."""
        skopeo = self.skopeo()
        for tag, image in library().images.items():
            self.assert_pulled(skopeo.pull(f"{self.name}:{tag}"), image)
        small = library().images["small"]
        self.assert_pulled(skopeo.pull(f"{self.name}@{small.digest}"), small)

    def test_skopeo_all(self) -> None:
        """With skopeo --all: pulls an index with both platforms."""
        for tag in ("multi", "list"):
            index = library().images[tag]
            got = self.skopeo().pull_all(f"{self.name}:{tag}")
            self.assertEqual(set(got), {index.digest, *(each.digest for each in index.children)})
            for child in index.children:
                self.assert_pulled(got[child.digest], child, child.platform)

    def test_podman(self) -> None:
        """With podman: pulls by tag and by digest, of either format."""
        podman = self.podman("", "--tls-verify=false")
        for tag in ("small", "plain", "multi"):
            image = library().images[tag]
            self.assert_pulled(podman.pull(f"{self.name}:{tag}"), image)
            self.assert_pulled(podman.pull(f"{self.name}@{image.digest}"), image)

    def test_containerd(self) -> None:
        """With ctr: pulls through hosts.toml by tag and by digest, either platform."""
        containerd = self.start_containerd()
        containerd.mirror("registry-a.test", self.registry.url)
        name = "registry-a.test/team/app"
        for tag in ("small", "plain", "multi"):
            image = library().images[tag]
            self.assert_pulled(containerd.pull(f"{name}:{tag}"), image)
            self.assert_pulled(containerd.pull(f"{name}@{image.digest}"), image)
        multi = library().images["multi"]
        pulled = containerd.pull_platform(f"{name}:multi", "linux/arm64")
        self.assert_pulled(pulled, multi, "linux/arm64")

    def test_docker(self) -> None:
        """With docker: pulls directly, and through a mirror of docker.io."""
        docker = self.start_docker(self.registry.url)
        for tag in ("small", "plain", "multi"):
            image = library().images[tag]
            self.assert_pulled(docker.pull(f"{self.name}:{tag}"), image)
            self.assert_pulled(docker.pull(f"{self.name}@{image.digest}"), image)
            self.assert_pulled(docker.pull(f"app:{tag}"), image)

    def test_docker_cannot_leave(self) -> None:
        """A docker whose mirror fails does not get to docker.io."""
        docker = self.start_docker("http://127.0.0.1:1")
        self.assertRaises(CommandFailed, docker.pull, "app:small")

    def test_registry_counts(self) -> None:
        """The registry's own log tells how often a blob was transferred."""
        layer = library().images["medium"].layers[1].blob
        url = f"{self.registry.url}/v2/team/app/blobs/{layer.digest}"
        answers = fetch_together(url, 3)
        self.assertEqual({answer.digest for answer in answers}, {layer.digest})
        fetch(url, method="HEAD")
        self.assertEqual(transfers(self.registry.requests()), {layer.digest: 3})

    def test_registry_stops(self) -> None:
        """A stopped upstream is gone."""
        self.registry.process.stop()
        self.assertFalse(is_listening(self.registry.port))

    def test_large_layer(self) -> None:
        """The largest layer is over 200 MB, also as it is stored."""
        layer = library().images["large"].layers[-1].blob
        self.assertGreater(layer.size, LARGE_LAYER)
        self.assertGreater(LARGE_LAYER, 200_000_000)


class StorageHostTests(RealCase):
    """docker-registry that redirects to nginx."""

    def test_redirects(self) -> None:
        """A blob is answered by a redirect; the storage host serves it and logs credentials."""
        host = self.start_storage_host()
        registry = self.start_registry(redirect=host.url)
        layer = library().images["small"].layers[0].blob
        answer = fetch(f"{registry.url}/v2/team/app/blobs/{layer.digest}")
        self.assertEqual(answer.status, 307)
        signed = answer.headers["location"]
        self.assertTrue(signed.startswith(host.url), signed)
        got = fetch(signed, headers={"Authorization": "Basic eDp5"})
        self.assertEqual(got.digest, layer.digest)
        requests = host.requests()
        self.assertEqual([request.authorization for request in requests], ["Basic eDp5"])
        self.assertEqual(transfers(requests), {layer.digest: 1})

    def test_slow(self) -> None:
        """Its rate holds a transfer up."""
        host = self.start_storage_host(rate=4 << 20)
        registry = self.start_registry(redirect=host.url)
        skopeo = self.skopeo()
        name = f"127.0.0.1:{registry.port}/team/app:medium"
        self.assert_pulled(skopeo.pull(name), library().images["medium"])
        self.assertEqual(set(transfers(host.requests()).values()), {1})
