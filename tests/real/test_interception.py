"""dockerd on a machine that is set up by the how-to pages, and by what regproxy serves."""

from __future__ import annotations

import json

from regproxy.model.mediatypes import DOCKER_MANIFEST
from tests.real import instructions
from tests.real.daemons import Docker
from tests.real.library import library
from tests.real.machine import PROXY_ADDRESS
from tests.real.machine_case import HUB, QUAY, Image, MachineCase, pushed_to
from tests.real.processes import CommandFailed
from tests.real.proxy import words
from tests.real.rawhttp import fetch


class DockerCase(MachineCase):
    """With dockerd."""

    def docker(self) -> Docker:
        """Starts the daemon as the machine's configuration and its unit have it."""
        variables = self.machine.unit_environment("docker")
        return self.start_docker(machine=self.machine, variables=variables)


class DaemonJsonTests(DockerCase):
    """daemon.json: a mirror for docker.io, and a path prefix for every registry."""

    def test_plain(self) -> None:
        """What /setup/docker serves is what the how-to page shows, and works as it stands."""
        self.start_named_proxy()
        served = self.served("/setup/docker", "docker")
        shown = [
            json.loads(instructions.block("docker", "json", key))
            for key in ("registry-mirrors", "insecure-registries")
        ]
        self.assertEqual(json.loads(instructions.contents(served)), shown[0] | shown[1])
        self.follow(served)
        self.assert_pulls(
            self.docker(),
            Image("app", "mirror", HUB, "library/app"),
            Image("proxy.example:5000/quay.io/team/app", "prefix"),
        )

    def test_tls(self) -> None:
        """With TLS the authority is looked for in certs.d, under the proxy's name and port."""
        self.start_named_proxy()
        url = "https://proxy.example:5443/setup/docker"
        served = self.served("/setup/docker", "docker", command=f"curl -fsSk {url}")
        self.assertEqual(
            json.loads(instructions.contents(served)),
            {"registry-mirrors": ["https://proxy.example:5443"]},
        )
        install = instructions.commands("docker", "/etc/docker/certs.d/proxy.example:5443").strip()
        self.assertIn(install, instructions.steps(served, admin=""))
        self.follow(served)
        self.assert_pulls(
            self.docker(),
            Image("app", "mirror", HUB, "library/app"),
            Image("proxy.example:5443/quay.io/team/app", "prefix"),
        )

    def test_unknown_authority(self) -> None:
        """Without that file nothing is pulled over TLS."""
        self.start_named_proxy()
        docker = self.docker()
        image = "proxy.example:5443/quay.io/team/app:small"
        failure = self.assertRaises(CommandFailed, docker.pull, image)
        self.assertIn("unknown authority", str(failure))


class ProxyEnvironmentTests(DockerCase):
    """HTTPS_PROXY in the daemon's environment."""

    def test_served(self) -> None:
        """What /setup/systemd serves is what the how-to pages show, and works as it stands."""
        self.start_named_proxy()
        served = self.served("/setup/systemd", "proxy-environment")
        for page in ("proxy-environment", "docker"):
            shown = instructions.block(page, "ini", "HTTPS_PROXY")
            self.assertEqual(instructions.contents(served), shown)
        self.follow(served)
        self.assert_pulls(
            self.docker(),
            Image("quay.io/team/app", "connect"),
            Image("app", "connect", HUB, "library/app"),
        )

    def test_certs_directory(self) -> None:
        """A file in certs.d does for a registry of its own, and is ignored for Docker Hub."""
        self.start_named_proxy()
        unit = self.machine.etc / "systemd/system/docker.service.d/regproxy.conf"
        unit.parent.mkdir()
        unit.write_text(instructions.block("docker", "ini", "HTTPS_PROXY"))
        install = instructions.commands("docker", "/etc/docker/certs.d/quay.io")
        self.machine.run("curl -fsS -o regproxy-ca.crt http://proxy.example:5000/ca.crt")
        for registry in (QUAY, HUB, "registry-1.docker.io"):
            self.machine.run(install.replace(QUAY, registry))
        # The same file serves curl, by the page's command.
        self.machine.run(instructions.commands("proxy-environment", "--cacert"))
        docker = self.docker()
        failure = self.assertRaises(CommandFailed, docker.pull, "app:small")
        self.assertIn("unknown authority", str(failure))
        self.assert_pulls(docker, Image("quay.io/team/app", "connect"))


class InterceptionTests(DockerCase):
    """Names in /etc/hosts that lead to the proxy, at the ports where registries are."""

    def test_hosts(self) -> None:
        """The page's listeners, its lines for /etc/hosts and its commands are all that it takes."""
        self.start_intercepting_proxy()
        self.intercept()
        self.trust("interception")
        pages = self.machine.run(instructions.commands("interception", "docker.proxy"))
        self.assertIn("regproxy at http://docker.proxy\n", pages)
        self.assert_pulls(
            self.docker(),
            Image("quay.io/team/app", "interception"),
            Image("app", "interception", HUB, "library/app"),
        )

    def test_certs_directory(self) -> None:
        """For another registry than Docker Hub a file in certs.d is enough."""
        self.start_intercepting_proxy()
        self.intercept()
        install = instructions.commands("docker", "/etc/docker/certs.d/quay.io")
        self.machine.run(f"curl -fsS -o regproxy-ca.crt http://proxy.example/ca.crt\n{install}")
        docker = self.docker()
        failure = self.assertRaises(CommandFailed, docker.pull, "app:small")
        self.assertIn("unknown authority", str(failure))
        self.assert_pulls(docker, Image("quay.io/team/app", "interception"))


class PushTests(DockerCase):
    """Pushes to a registry behind the proxy, under the registry's own name."""

    def setUp(self) -> None:
        """Starts the registry that images are pushed to."""
        super().setUp()
        self.corp = self.start_registry("corp", storage=self.directory / "pushed")

    def assert_pushes(self, docker: Docker, way: str) -> None:
        """An image is pushed, then another under its name; each can be pulled at once."""
        name = "registry.corp:5000/team/new:1.0"
        for tag in ("small", "plain"):
            docker.push(f"quay.io/team/app:{tag}", name)
            target = f"{self.corp.url}/v2/team/new/manifests/1.0"
            there = fetch(target, headers={"Accept": DOCKER_MANIFEST})
            self.assertEqual(there.status, 200)
            pulled = docker.pull(name)
            self.assertEqual(pulled.digests, {there.digest})
            self.assertEqual(dict(pulled.files), library().images[tag].files)
        log = self.proxy.access_log()
        log = [line for line in log if line["registry"] == "registry.corp:5000"]
        self.assertEqual({line["way"] for line in log}, {way})
        statuses = {(line["method"], line["status"]) for line in log}
        self.assertLessEqual({("POST", "202"), ("PATCH", "202"), ("PUT", "201")}, statuses)
        self.assertIn("MISS", words(log))

    def test_connect(self) -> None:
        """With HTTPS_PROXY."""
        self.start_named_proxy(**pushed_to(self.corp))
        self.follow(self.served("/setup/systemd", "proxy-environment"))
        self.assert_pushes(self.docker(), "connect")

    def test_interception(self) -> None:
        """With the registry's name in /etc/hosts, and a TLS listener at its port."""
        ports = [{"endpoint": f"tcp:{port}", "tls": True} for port in (443, 5000)]
        self.start_named_proxy([*ports, {"endpoint": "tcp:80"}], **pushed_to(self.corp))
        self.intercept()
        self.machine.know(f"{PROXY_ADDRESS} registry.corp\n")
        self.trust("interception")
        self.assert_pushes(self.docker(), "interception")
