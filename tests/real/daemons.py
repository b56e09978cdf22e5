"""The clients that are daemons: containerd with ``ctr``, dockerd with ``docker``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.real import peers
from tests.real.clients import PULL_SECONDS, Pulled, archive_files, environment
from tests.real.images import layer_files
from tests.real.processes import Process, run, wait_until

_START_SECONDS = 60.0


@frozen
class Containerd:
    """A containerd process and ``ctr``.

    Args:
        directory: where root, state, socket and ``hosts`` are.
        process: the daemon.
        hosts: the directory of a ``hosts.toml`` per registry.
    """

    directory: Path
    process: Process
    hosts: Path

    @classmethod
    def start(cls, directory: Path) -> Containerd:
        """Starts a daemon that knows no mirror yet."""
        peers.need_root("containerd")
        peers.find("ctr")
        hosts = directory / "hosts"
        hosts.mkdir(parents=True)
        # CRI would start a streaming server, and wants a network configuration.
        config = directory / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        argv = [
            peers.find("containerd"),
            f"--config={config}",
            f"--root={directory / 'root'}",
            f"--state={directory / 'state'}",
            f"--address={directory / 'sock'}",
        ]
        process = Process.start(
            argv, directory, name="containerd", environment=environment(directory)
        )
        client = cls(directory, process, hosts)
        try:
            wait_until(client._answers, _START_SECONDS, "containerd to answer", process.tail)
        except BaseException:
            client.stop()
            raise
        return client

    def mirror(self, registry: str, url: str, *settings: str) -> None:
        """Writes the registry's hosts.toml: ``url`` is asked first, and nobody after it."""
        where = self.hosts / registry
        where.mkdir()
        # The registry's own URL leads nowhere, so that a refused pull cannot leave the machine.
        lines = ['server = "http://127.0.0.1:1"', f'[host."{url}"]']
        lines += ['capabilities = ["pull", "resolve"]', *settings]
        (where / "hosts.toml").write_text("\n".join(lines) + "\n")

    def pull(self, reference: str) -> Pulled:
        """Pulls this machine's platform, reads the blobs back, and removes the image."""
        return self.pull_platform(reference, "linux/amd64")

    def pull_platform(self, reference: str, platform: str) -> Pulled:
        """Pulls one platform's image."""
        options = [f"--hosts-dir={self.hosts}", f"--platform={platform}", "--snapshotter=native"]
        self._ctr("images", "pull", *options, reference)
        root = self._digest_of(reference)
        manifest = self._json(root)
        for child in manifest.get("manifests", ()):
            if f"{child['platform']['os']}/{child['platform']['architecture']}" == platform:
                manifest = self._json(child["digest"])
        files = {}
        for layer in manifest["layers"]:
            files.update(layer_files(self._blob(layer["digest"])))
        self._ctr("images", "rm", "--sync", reference)
        return Pulled(frozenset((root,)), files)

    def stop(self) -> None:
        """Ends the daemon, and unmounts what a killed one leaves mounted."""
        self.process.stop()
        unmount_below(self.directory)

    def _answers(self) -> bool:
        argv = [*self._argv(), "--connect-timeout=2s", "version"]
        return run(argv, environment=environment(self.directory), check=False).status == 0

    def _digest_of(self, reference: str) -> str:
        for line in self._ctr("images", "ls", f"name=={reference}").splitlines()[1:]:
            return line.split()[2]
        raise AssertionError(f"ctr does not list {reference}")

    def _json(self, digest: str) -> Any:
        return json.loads(self._blob(digest).read_bytes())

    def _blob(self, digest: str) -> Path:
        # The blob as it was fetched; reading it where it lies spares a copy through ctr.
        content = self.directory / "root/io.containerd.content.v1.content/blobs/sha256"
        return content / digest.removeprefix("sha256:")

    def _argv(self) -> list[str]:
        return [peers.find("ctr"), f"--address={self.directory / 'sock'}"]

    def _ctr(self, *arguments: str) -> str:
        argv = [*self._argv(), *arguments]
        return run(argv, seconds=PULL_SECONDS, environment=environment(self.directory)).stdout


@frozen
class Docker:
    """A dockerd process and ``docker``.

    Args:
        directory: where data, socket and logs are.
        process: the daemon.
    """

    directory: Path
    process: Process

    @classmethod
    def start(cls, directory: Path, mirrors: Sequence[str] = ()) -> Docker:
        """Starts a daemon that asks ``mirrors`` (URLs) for what is on docker.io."""
        peers.need_root("dockerd")
        peers.find("docker")
        peers.find("containerd")
        directory.mkdir(parents=True, exist_ok=True)
        # An empty file of its own, lest the machine's daemon.json be read.
        config = directory / "daemon.json"
        config.write_text("{}")
        argv = [
            peers.find("dockerd"),
            f"--config-file={config}",
            f"--data-root={directory / 'data'}",
            f"--exec-root={directory / 'exec'}",
            f"--host=unix://{directory / 'sock'}",
            f"--pidfile={directory / 'pid'}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--storage-driver=vfs",
            *(f"--registry-mirror={mirror}" for mirror in mirrors),
        ]
        process = Process.start(argv, directory, name="dockerd", environment=environment(directory))
        docker = cls(directory, process)
        try:
            wait_until(docker._answers, _START_SECONDS, "dockerd to answer", process.tail)
        except BaseException:
            docker.stop()
            raise
        return docker

    def pull(self, reference: str) -> Pulled:
        """Pulls, reads the image back, and removes it."""
        self._docker("pull", "--quiet", reference)
        image = json.loads(self._docker("image", "inspect", reference))[0]
        archive = self.directory / "saved.tar"
        self._docker("save", "--output", str(archive), image["Id"])
        files = archive_files(archive)
        archive.unlink()
        self._docker("rmi", "--force", image["Id"])
        digests = (str(name).partition("@")[2] for name in image["RepoDigests"])
        return Pulled(frozenset(digests), files)

    def push(self, source: str, reference: str) -> None:
        """Pulls ``source``, and pushes it under another name.

        Raises:
            CommandFailed: it was refused.
        """
        self._docker("pull", "--quiet", source)
        self._docker("tag", source, reference)
        self._docker("push", reference)

    def stop(self) -> None:
        """Ends the daemon, and unmounts what a killed one leaves mounted."""
        self.process.stop(seconds=30.0)
        unmount_below(self.directory)

    def _answers(self) -> bool:
        argv = [*self._argv(), "version"]
        return run(argv, environment=environment(self.directory), check=False).status == 0

    def _argv(self) -> list[str]:
        return [peers.find("docker"), f"--host=unix://{self.directory / 'sock'}"]

    def _docker(self, *arguments: str) -> str:
        argv = [*self._argv(), *arguments]
        return run(argv, seconds=PULL_SECONDS, environment=environment(self.directory)).stdout


def unmount_below(directory: Path) -> None:
    """Unmounts every file system mounted inside the directory, the innermost first."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    for point in reversed([line.split()[4] for line in mounts]):
        if Path(point).is_relative_to(directory):
            run(["umount", "--lazy", point], check=False)
