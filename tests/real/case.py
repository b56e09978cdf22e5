"""The common ground of the trials: one directory, and everything in it ended and removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.real.clients import Podman, Pulled, Skopeo
from tests.real.daemons import Containerd, Docker
from tests.real.images import Manifest
from tests.real.library import library
from tests.real.machine import Machine
from tests.real.proxy import Proxy, Settings
from tests.real.registries import Registry, StorageHost

KEEP_VARIABLE = "REGPROXY_KEEP_TRIALS"
"""Set to ``1``, the directories stay, with every process's configuration and log."""


class RealCase(SynchronousTestCase):
    """Starts peers that end with the test, however it ends.

    Attributes:
        proxies: How many there have been.
    """

    proxies = 0

    def setUp(self) -> None:
        """Makes the directory of the test."""
        # Not trial's own directory: its path may be too long for a Unix socket.
        self.directory = Path(tempfile.mkdtemp(prefix="regproxy-trial-"))
        if os.environ.get(KEEP_VARIABLE) != "1":
            self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def start_registry(
        self,
        name: str = "registry",
        *,
        storage: Path | None = None,
        redirect: str | None = None,
        auth: Mapping[str, object] | None = None,
        http: Mapping[str, object] | None = None,
        port: int | None = None,
    ) -> Registry:
        """An upstream with the common library, unless given another storage directory."""
        registry = Registry.start(
            self.directory / name,
            storage or library().storage,
            redirect=redirect,
            auth=auth,
            http=http,
            port=port,
        )
        self.addCleanup(registry.process.stop)
        return registry

    def start_storage_host(self, *, rate: int = 0) -> StorageHost:
        """A host for redirects to the common library's blobs, at ``rate`` bytes a second."""
        host = StorageHost.start(self.directory / "storage-host", library().storage, rate=rate)
        self.addCleanup(host.process.stop)
        return host

    def skopeo(self, *arguments: str) -> Skopeo:
        """A skopeo with a directory of its own; ``arguments`` instead of not verifying TLS."""
        directory = Path(tempfile.mkdtemp(prefix="skopeo-", dir=self.directory))
        return Skopeo(directory, arguments or ("--src-tls-verify=false",))

    def podman(self, registries: str = "", *arguments: str) -> Podman:
        """A podman with a registries.conf, and a storage of its own."""
        return Podman.configured(self.directory / "podman", registries, *arguments)

    def start_containerd(self, machine: Machine | None = None, **settings: Any) -> Containerd:
        """A containerd that knows no mirror yet, or with its machine's and its own settings."""
        containerd = Containerd.start(self.directory / "containerd", machine, **settings)
        self.addCleanup(containerd.stop)
        return containerd

    def start_docker(
        self,
        *mirrors: str,
        machine: Machine | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Docker:
        """A dockerd that asks ``mirrors`` for docker.io."""
        docker = Docker.start(self.directory / "docker", mirrors, machine, variables)
        self.addCleanup(docker.stop)
        return docker

    def start_proxy(self, settings: Settings) -> Proxy:
        """A regproxy. However the test went, it must have left no trouble behind."""
        self.proxies += 1
        number = self.proxies
        proxy = Proxy.start(self.directory / f"regproxy{number}", settings)
        self.addCleanup(self._assert_sound, proxy)
        # Not the method of the process there is now: a test may start another.
        self.addCleanup(proxy.stop)
        return proxy

    def start_proxy_for(self, registry: Registry, **settings: Any) -> Proxy:
        """A regproxy for which one upstream is both ``registry-a.test`` and docker.io."""
        registries = {"registry-a.test": registry.url, "docker.io": registry.url}
        return self.start_proxy(Settings(registries, **settings))

    def _assert_sound(self, proxy: Proxy) -> None:
        self.assertEqual(proxy.unverified(), [])
        for line in proxy.access_log():
            self.assertLessEqual({"time", "cache", "status", "method"}, line.keys(), line)
        for trouble in ("Traceback", "Unhandled"):
            self.assertNotIn(trouble, proxy.application_log())

    def assert_pulled(self, pulled: Pulled, image: Manifest, platform: str = "linux/amd64") -> None:
        """The client knows the image by the digest that was pushed, and holds the same files."""
        child = image.for_platform(platform)
        self.assertTrue(
            pulled.digests & {image.digest, child.digest},
            f"{set(pulled.digests)} holds neither {image.digest} nor {child.digest}",
        )
        self.assertEqual(dict(pulled.files), child.files)
