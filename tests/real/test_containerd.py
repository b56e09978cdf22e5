"""containerd on a machine that is set up by the how-to pages, and by what regproxy serves."""

from __future__ import annotations

import tomllib

from attrs import frozen

from regproxy.model.mediatypes import DOCKER_MANIFEST
from tests.real import instructions, peers
from tests.real.clients import Pulled
from tests.real.daemons import Containerd
from tests.real.library import library
from tests.real.machine_case import HUB, QUAY, Image, MachineCase, pushed_to
from tests.real.processes import CommandFailed, run
from tests.real.rawhttp import fetch

_CERTS = "/etc/containerd/certs.d"


@frozen
class Kubelet:
    """The kubelet's part: it has containerd pull.

    Args:
        containerd: the daemon.
    """

    containerd: Containerd

    def pull(self, reference: str) -> Pulled:
        """Pulls, reads the image back, and removes it."""
        return self.containerd.pull_by_kubelet(reference)


class ContainerdCase(MachineCase):
    """With containerd: ``ctr`` pulls by itself, for the kubelet the daemon does."""

    def ctr(self) -> Containerd:
        """Starts a daemon, and has ``ctr`` use the environment that the daemon's unit has."""
        variables = self.machine.unit_environment("containerd")
        return self.start_containerd(machine=self.machine, variables=variables)

    def kubelet(self) -> Kubelet:
        """Starts a daemon with the page's configuration in it, and the environment of its unit."""
        version = run([peers.find("containerd"), "--version"]).stdout.split()[2].lstrip("v")
        first = version.startswith("1.")
        plugin = "io.containerd.grpc.v1.cri" if first else "io.containerd.cri.v1.images"
        # The usual snapshotter needs a file system that may be missing; images are not run here.
        snapshotter = f'plugins."{plugin}"' + (".containerd" if first else "")
        config = (
            f"version = {2 if first else 3}\n"
            + instructions.block("containerd", "toml", f'[plugins."{plugin}".registry]')
            + f'[{snapshotter}]\nsnapshotter = "native"\n'
        )
        variables = self.machine.unit_environment("containerd")
        return Kubelet(
            self.start_containerd(machine=self.machine, variables=variables, config=config)
        )


class HostsTomlTests(ContainerdCase):
    """hosts.toml, with and without ``override_path``."""

    def test_every_registry(self) -> None:
        """What /setup/containerd serves is what the how-to page shows, and works as it stands."""
        self.start_named_proxy()
        served = self.served("/setup/containerd", "containerd")
        shown = instructions.block("containerd", "toml", "[host.")
        self.assertEqual(instructions.contents(served), shown)
        self.follow(served)
        self.assert_pulls(
            self.ctr(),
            Image("quay.io/team/app", "namespace"),
            Image("docker.io/library/app", "namespace", HUB, "library/app"),
        )

    def test_kubelet(self) -> None:
        """The daemon that pulls for the kubelet reads the same file, once told of the directory."""
        self.start_named_proxy()
        served = self.served("/setup/containerd", "containerd")
        self.follow(served)
        self.assert_pulls(
            self.kubelet(),
            Image("quay.io/team/app", "namespace"),
            Image("docker.io/library/app", "namespace", HUB, "library/app"),
        )

    def test_tls(self) -> None:
        """With TLS the file names the authority."""
        self.start_named_proxy()
        url = "https://proxy.example:5443/setup/containerd"
        served = self.served("/setup/containerd", "containerd", command=f"curl -fsSk {url}")
        shown = instructions.block("containerd", "toml", "https://proxy.example")
        self.assertEqual(instructions.contents(served), shown)
        install = instructions.commands("containerd", "regproxy-ca.crt").strip()
        self.assertIn(install, instructions.steps(served, admin=""))
        self.follow(served)
        self.assert_pulls(self.ctr(), Image("quay.io/team/app", "namespace"))

    def test_path_prefix(self) -> None:
        """With ``override_path`` the registry is in the path, for one registry."""
        self.start_named_proxy()
        sample = instructions.block("containerd", "toml", "override_path")
        where = self.machine.etc / "containerd/certs.d/quay.io"
        where.mkdir(parents=True)
        (where / "hosts.toml").write_text(sample)
        self.assert_pulls(self.ctr(), Image("quay.io/team/app", "prefix"))

    def test_one_registry(self) -> None:
        """Without it, the same directory's file does for one registry."""
        self.start_named_proxy()
        sample = instructions.block("containerd", "toml", 'server = "https://quay.io"')
        self.assertNotIn(
            "override_path", tomllib.loads(sample)["host"]["http://proxy.example:5000"]
        )
        where = self.machine.etc / "containerd/certs.d/quay.io"
        where.mkdir(parents=True)
        (where / "hosts.toml").write_text(sample)
        self.assert_pulls(self.ctr(), Image("quay.io/team/app", "namespace"))


class ProxyEnvironmentTests(ContainerdCase):
    """HTTPS_PROXY in the environment."""

    def follow_for_containerd(self) -> None:
        """Does what /setup/systemd says, for containerd's unit."""
        served = self.served("/setup/systemd", "proxy-environment")
        self.assertIn("containerd.service.d", served)
        self.follow(served.replace("docker.service.d", "containerd.service.d"))

    def test_ctr(self) -> None:
        """``ctr`` with the unit's environment, on a machine that trusts the authority."""
        self.start_named_proxy()
        self.follow_for_containerd()
        self.assert_pulls(
            self.ctr(),
            Image("quay.io/team/app", "connect"),
            Image("docker.io/library/app", "connect", HUB, "library/app"),
        )

    def test_kubelet(self) -> None:
        """The daemon itself, when it pulls for the kubelet."""
        self.start_named_proxy()
        self.follow_for_containerd()
        self.assert_pulls(
            self.kubelet(),
            Image("quay.io/team/app", "connect"),
            Image("docker.io/library/app", "connect", HUB, "library/app"),
        )

    def test_unknown_authority(self) -> None:
        """A machine that does not trust the authority pulls nothing."""
        self.start_named_proxy()
        served = self.served("/setup/systemd", "proxy-environment")
        unit = self.machine.etc / "systemd/system/containerd.service.d/regproxy.conf"
        unit.parent.mkdir()
        unit.write_text(instructions.contents(served))
        failure = self.assertRaises(CommandFailed, self.ctr().pull, f"{QUAY}/team/app:small")
        self.assertIn("unknown authority", str(failure))


class InterceptionTests(ContainerdCase):
    """Names in /etc/hosts that lead to the proxy, at the ports where registries are."""

    def test_kubelet(self) -> None:
        """The page's listeners, its lines for /etc/hosts and its commands are all that it takes."""
        self.start_intercepting_proxy()
        self.intercept()
        self.trust("interception")
        self.assert_pulls(
            self.kubelet(),
            Image("quay.io/team/app", "interception"),
            Image("docker.io/library/app", "interception", HUB, "library/app"),
        )

    def test_ctr(self) -> None:
        """``ctr`` as well."""
        self.start_intercepting_proxy()
        self.intercept()
        self.trust("interception")
        self.assert_pulls(self.ctr(), Image("quay.io/team/app", "interception"))


class PushTests(ContainerdCase):
    """A push to a host in hosts.toml that is said to take pushes.

    In containerd 1 requests of a push have no ``ns``: the registry has to be in the path.
    """

    def test_hosts_toml(self) -> None:
        """The how-to page's file and table are all that it takes."""
        corp = self.start_registry("corp", storage=self.directory / "pushed")
        self.start_named_proxy(**pushed_to(corp))
        where = self.machine.etc / "containerd/certs.d/registry.corp:5000"
        where.mkdir(parents=True)
        (where / "hosts.toml").write_text(instructions.block("push", "toml", '"push"]'))
        image, name = library().images["small"], "registry.corp:5000/team/new:1.0"
        served = self.served("/setup/containerd", "containerd")
        self.follow(served)
        containerd = self.ctr()
        containerd.push("quay.io/team/app:small", name)
        there = fetch(f"{corp.url}/v2/team/new/manifests/1.0", headers={"Accept": DOCKER_MANIFEST})
        self.assertEqual((there.status, there.digest), (200, image.digest))
        self.assert_pulled(containerd.pull(name), image)
        log = [line for line in self.proxy.access_log() if line["repository"] == "team/new"]
        self.assertEqual({line["way"] for line in log}, {"prefix"})
        self.assertIn(("PUT", "201"), {(line["method"], line["status"]) for line in log})
