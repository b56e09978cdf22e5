"""Every client, through each way in that it can use: by tag, by digest, and without upstream."""

from __future__ import annotations

from collections.abc import Sequence

from tests.real.case import RealCase
from tests.real.clients import Client
from tests.real.library import library
from tests.real.processes import CommandFailed
from tests.real.proxy import words
from tests.real.registries import transfers

HUB = "docker.io"
PRIVATE = "registry-a.test"


class WaysInCase(RealCase):
    """One upstream, which is ``registry-a.test`` and docker.io, behind one regproxy."""

    def setUp(self) -> None:
        """Starts both."""
        super().setUp()
        self.registry = self.start_registry()
        self.proxy = self.start_proxy_for(self.registry, aliases={PRIVATE: ["a.test"]})

    def assert_pulls(
        self,
        client: Client,
        name: str,
        *,
        way: str,
        registry: str = PRIVATE,
        repository: str = "team/app",
        tags: Sequence[str] = ("small", "plain", "multi"),
    ) -> None:
        """Pulls cold, warm, and with the upstream stopped; the log says what that was.

        Args:
            client: the one that pulls.
            name: the repository as this client has to write it.
            way: the word for the way in that the log must show.
            registry: the registry that the log must show.
            repository: the repository that the log must show.
            tags: the images to pull.
        """
        seen = 0
        for tag in tags:
            self.assert_pulled(client.pull(f"{name}:{tag}"), library().images[tag])
            self.proxy.wait_for_fills()
            log = self.proxy.access_log()[seen:]
            seen += len(log)
            self.assertLessEqual(set(words(log)), {"MISS", "HIT"}, log)
            if tag == tags[0]:
                self.assertEqual(set(words(log)), {"MISS"}, log)
        for line in self.proxy.access_log():
            if line["cache"] != "-":
                said = (line["way"], line["registry"], line["repository"])
                self.assertEqual(said, (way, registry, repository))
            # A note says why an answer was cut short: none was.
            self.assertNotIn("note", line)
        for tag in tags:
            self.assert_pulled(client.pull(f"{name}:{tag}"), library().images[tag])
        self.registry.process.stop()
        for tag in tags:
            image = library().images[tag]
            self.assert_pulled(client.pull(f"{name}:{tag}"), image)
            self.assert_pulled(client.pull(f"{name}@{image.digest}"), image)
        log = self.proxy.access_log()[seen:]
        self.assertEqual(set(words(log)), {"HIT"}, log)
        counts = transfers(self.registry.requests())
        self.assertEqual(set(counts.values()), {1}, counts)


class SkopeoTests(WaysInCase):
    """With skopeo, which is told the path prefix in the reference."""

    def test_path_prefix(self) -> None:
        """The registry's name is the first component of the path."""
        name = f"{self.proxy.host}/{PRIVATE}/team/app"
        tags = ("small", "plain", "multi", "list", "medium")
        self.assert_pulls(self.skopeo(), name, way="prefix", tags=tags)

    def test_alias(self) -> None:
        """An alias means the same registry, and the same content."""
        skopeo, image = self.skopeo(), library().images["small"]
        for prefix in (PRIVATE, "a.test"):
            name = f"{self.proxy.host}/{prefix}/team/app:small"
            self.assert_pulled(skopeo.pull(name), image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})

    def test_tls(self) -> None:
        """The TLS listener shows the configured certificate, and serves the same."""
        skopeo = self.skopeo(f"--src-cert-dir={self.proxy.certificates.authority.parent}")
        name = f"{self.proxy.tls_host}/{PRIVATE}/team/app"
        self.assert_pulls(skopeo, name, way="prefix", tags=("small", "multi"))

    def test_tls_unknown_authority(self) -> None:
        """A client that trusts another authority does not pull."""
        skopeo = self.skopeo("--src-tls-verify=true")
        name = f"{self.proxy.tls_host}/{PRIVATE}/team/app:small"
        failure = self.assertRaises(CommandFailed, skopeo.pull, name)
        self.assertIn("x509", str(failure))

    def test_docker_hub_names(self) -> None:
        """A one-component name on docker.io is in library/, with a prefix and without."""
        skopeo, image = self.skopeo(), library().images["small"]
        for name in ("docker.io/app", "docker.io/library/app", "app", "library/app"):
            self.assert_pulled(skopeo.pull(f"{self.proxy.host}/{name}:small"), image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})

    def test_mirror(self) -> None:
        """A path without a registry's name means the default registry."""
        name = f"{self.proxy.host}/team/app"
        self.assert_pulls(self.skopeo(), name, way="mirror", registry=HUB)

    def test_every_platform(self) -> None:
        """An index comes with the manifests and layers of all its platforms, in both formats."""
        for tag in ("multi", "list"):
            index = library().images[tag]
            got = self.skopeo().pull_all(f"{self.proxy.host}/{PRIVATE}/team/app:{tag}")
            self.assertEqual(set(got), {index.digest, *(each.digest for each in index.children)})
            for child in index.children:
                self.assert_pulled(got[child.digest], child, child.platform)

    def test_list_tags(self) -> None:
        """The tags that the upstream lists are those that the client sees."""
        listed = self.skopeo().list_tags(f"{self.proxy.host}/{PRIVATE}/team/app")
        self.assertEqual(listed, set(library().images))


class PodmanTests(WaysInCase):
    """With podman, whose registries.conf names a mirror: a path prefix."""

    _MIRROR = """\
        unqualified-search-registries = []
        [[registry]]
        location = "{registry}"
        [[registry.mirror]]
        location = "{proxy}/{registry}"
        insecure = {insecure}
        """

    def _configured(self, registry: str, proxy: str, *, insecure: bool = True) -> str:
        insecurely = str(insecure).lower()
        return self._MIRROR.format(registry=registry, proxy=proxy, insecure=insecurely)

    def test_mirror(self) -> None:
        """The client's own reference is unchanged."""
        podman = self.podman(self._configured(PRIVATE, self.proxy.host))
        self.assert_pulls(podman, f"{PRIVATE}/team/app", way="prefix")

    def test_docker_hub(self) -> None:
        """The mirror is docker.io's."""
        podman = self.podman(self._configured(HUB, self.proxy.host))
        name = "docker.io/library/app"
        self.assert_pulls(
            podman, name, way="prefix", registry=HUB, repository="library/app", tags=["small"]
        )

    def test_tls(self) -> None:
        """The authority is found in certs.d, under the proxy's host and port."""
        podman = self.podman(self._configured(PRIVATE, self.proxy.tls_host, insecure=False))
        podman.trust(self.proxy.tls_host, self.proxy.certificates.authority)
        self.assert_pulls(podman, f"{PRIVATE}/team/app", way="prefix", tags=["small"])

    def test_direct(self) -> None:
        """The path prefix in the reference works as well."""
        podman = self.podman("", "--tls-verify=false")
        name = f"{self.proxy.host}/{PRIVATE}/team/app"
        self.assert_pulls(podman, name, way="prefix", tags=["multi"])


class ContainerdTests(WaysInCase):
    """With containerd, whose hosts.toml names the proxy."""

    def setUp(self) -> None:
        """Starts a daemon."""
        super().setUp()
        self.containerd = self.start_containerd()

    def test_namespace(self) -> None:
        """The client says in ``ns`` which registry it wants."""
        self.containerd.mirror(PRIVATE, self.proxy.url)
        self.assert_pulls(self.containerd, f"{PRIVATE}/team/app", way="namespace")

    def test_path_prefix(self) -> None:
        """With ``override_path`` there is a prefix and ``ns``."""
        url = f"{self.proxy.url}/v2/{PRIVATE}"
        self.containerd.mirror(PRIVATE, url, "override_path = true")
        self.assert_pulls(self.containerd, f"{PRIVATE}/team/app", way="prefix")

    def test_docker_hub(self) -> None:
        """The namespace docker.io is the registry docker.io."""
        self.containerd.mirror(HUB, self.proxy.url)
        self.assert_pulls(
            self.containerd,
            "docker.io/library/app",
            way="namespace",
            registry=HUB,
            repository="library/app",
            tags=["small"],
        )

    def test_tls(self) -> None:
        """The authority is named in hosts.toml."""
        authority = f'ca = "{self.proxy.certificates.authority}"'
        self.containerd.mirror(PRIVATE, self.proxy.tls_url, authority)
        self.assert_pulls(self.containerd, f"{PRIVATE}/team/app", way="namespace", tags=["small"])

    def test_large_layer(self) -> None:
        """A layer of over 200 MB arrives whole."""
        self.containerd.mirror(PRIVATE, self.proxy.url)
        image = library().images["large"]
        self.assert_pulled(self.containerd.pull(f"{PRIVATE}/team/app:large"), image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})

    def test_platforms(self) -> None:
        """Either platform of an index can be pulled."""
        self.containerd.mirror(PRIVATE, self.proxy.url)
        for tag in ("multi", "list"):
            for platform in ("linux/arm64", "linux/amd64"):
                pulled = self.containerd.pull_platform(f"{PRIVATE}/team/app:{tag}", platform)
                self.assert_pulled(pulled, library().images[tag], platform)


class DockerTests(WaysInCase):
    """With dockerd, which mirrors docker.io alone."""

    def test_mirror(self) -> None:
        """An image of docker.io comes from the mirror."""
        docker = self.start_docker(self.proxy.url)
        self.assert_pulls(docker, "app", way="mirror", registry=HUB, repository="library/app")

    def test_mirror_tls(self) -> None:
        """The mirror is reached over TLS; dockerd verifies no loopback address's certificate."""
        docker = self.start_docker(self.proxy.tls_url)
        self.assert_pulls(
            docker,
            "app",
            way="mirror",
            registry=HUB,
            repository="library/app",
            tags=["small"],
        )

    def test_path_prefix(self) -> None:
        """Images of any registry are pulled by the path prefix."""
        name = f"{self.proxy.host}/{PRIVATE}/team/app"
        self.assert_pulls(self.start_docker(), name, way="prefix", tags=["small", "multi"])

    def test_large_layer(self) -> None:
        """A layer of over 200 MB arrives whole."""
        docker, image = self.start_docker(self.proxy.url), library().images["large"]
        self.assert_pulled(docker.pull("app:large"), image)
        self.assertEqual(set(transfers(self.registry.requests()).values()), {1})
