"""The clients that are daemons: containerd with ``ctr``, dockerd with ``docker``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from tests.real import peers
from tests.real.clients import PULL_SECONDS, Pulled, archive_files, environment
from tests.real.images import layer_files
from tests.real.machine import Machine
from tests.real.processes import CommandFailed, Process, run, wait_until

_START_SECONDS = 60.0

# CRI would start a streaming server, and wants a network configuration.
_WITHOUT_CRI = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


@frozen
class Surroundings:
    """What a client's programs find around them.

    Args:
        directory: where the client's files are.
        machine: the one that the programs run on; None for the one that the tests run on.
        variables: further variables of the environment, on a machine of its own.
    """

    directory: Path
    machine: Machine | None = None
    variables: Mapping[str, str] = field(factory=dict)

    def argv(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` there."""
        return list(argv) if self.machine is None else self.machine.wrap(argv)

    @property
    def environment(self) -> dict[str, str]:
        """The environment to run it with."""
        if self.machine is None:
            return environment(self.directory)
        return self.machine.environment(self.variables)


@frozen
class Containerd:
    """A containerd process and ``ctr``.

    Args:
        directory: where root, state, socket and ``hosts`` are.
        process: the daemon.
        hosts: the directory of a ``hosts.toml`` per registry.
        around: what the daemon and ``ctr`` run in.
    """

    directory: Path
    process: Process
    hosts: Path
    around: Surroundings

    @classmethod
    def start(
        cls,
        directory: Path,
        machine: Machine | None = None,
        variables: Mapping[str, str] | None = None,
        config: str = _WITHOUT_CRI,
    ) -> Containerd:
        """Starts a daemon that knows no mirror yet, or those in its machine's certs.d.

        Args:
            directory: where its files go.
            machine: where it runs.
            variables: further variables of its environment, on a machine of its own.
            config: its configuration.
        """
        peers.need_root("containerd")
        peers.find("ctr")
        around = Surroundings(directory, machine, variables or {})
        hosts = directory / "hosts"
        hosts.mkdir(parents=True)
        path = directory / "containerd.toml"
        path.write_text(config)
        argv = around.argv(
            peers.find("containerd"),
            f"--config={path}",
            f"--root={directory / 'root'}",
            f"--state={directory / 'state'}",
            f"--address={directory / 'sock'}",
        )
        process = Process.start(argv, directory, name="containerd", environment=around.environment)
        if machine is not None:
            hosts = Path("/etc/containerd/certs.d")
        client = cls(directory, process, hosts, around)
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
        return self._take(reference, platform)

    def pull_by_kubelet(self, reference: str) -> Pulled:
        """Has the daemon pull, as the kubelet does, reads the blobs back, and removes the image.

        Raises:
            CommandFailed: it could not.
        """
        # PullImageRequest.image.image in the Kubernetes CRI; each field 1, and no value too long
        # for one byte of length.
        spec = bytes([0x0A, len(reference)]) + reference.encode("ascii")
        request = bytes([0x0A, len(spec)]) + spec
        message = self.directory / "request"
        # gRPC: not compressed, and the length in 4 bytes.
        message.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
        call = ["--silent", "--show-error", "--http2-prior-knowledge", "--dump-header", "-"]
        call += ["--header", "Content-Type: application/grpc", "--header", "TE: trailers"]
        call += ["--data-binary", f"@{message}", "--output", "/dev/null"]
        socket = ["--unix-socket", str(self.directory / "sock")]
        url = "http://containerd/runtime.v1.ImageService/PullImage"
        answer = run([peers.find("curl"), *call, *socket, url], seconds=PULL_SECONDS).stdout
        if "grpc-status: 0" not in answer:
            raise CommandFailed(answer)
        return self._take(reference, "linux/amd64", "--namespace=k8s.io")

    def _take(self, reference: str, platform: str, *options: str) -> Pulled:
        root = self._digest_of(reference, *options)
        manifest = self._json(root)
        for child in manifest.get("manifests", ()):
            if f"{child['platform']['os']}/{child['platform']['architecture']}" == platform:
                manifest = self._json(child["digest"])
        files = {}
        for layer in manifest["layers"]:
            files.update(layer_files(self._blob(layer["digest"])))
        # CRI gives an image further names.
        names = self._ctr(*options, "images", "ls", "--quiet").split()
        self._ctr(*options, "images", "rm", "--sync", *names)
        return Pulled(frozenset((root,)), files)

    def push(self, source: str, reference: str) -> None:
        """Pulls ``source``, pushes it under another name, and removes it.

        Raises:
            CommandFailed: it was refused.
        """
        hosts = f"--hosts-dir={self.hosts}"
        self._ctr("images", "pull", hosts, "--snapshotter=native", source)
        self._ctr("images", "tag", source, reference)
        self._ctr("images", "push", hosts, reference)
        self._ctr("images", "rm", "--sync", source, reference)

    def stop(self) -> None:
        """Ends the daemon, and unmounts what a killed one leaves mounted."""
        self.process.stop()
        unmount_below(self.directory)

    def _answers(self) -> bool:
        argv = self._argv("--connect-timeout=2s", "version")
        return run(argv, environment=self.around.environment, check=False).status == 0

    def _digest_of(self, reference: str, *options: str) -> str:
        listed = self._ctr(*options, "images", "ls", f"name=={reference}")
        for line in listed.splitlines()[1:]:
            return line.split()[2]
        raise AssertionError(f"ctr does not list {reference}")

    def _json(self, digest: str) -> Any:
        return json.loads(self._blob(digest).read_bytes())

    def _blob(self, digest: str) -> Path:
        # The blob as it was fetched; reading it where it lies spares a copy through ctr.
        content = self.directory / "root/io.containerd.content.v1.content/blobs/sha256"
        return content / digest.removeprefix("sha256:")

    def _argv(self, *arguments: str) -> list[str]:
        return self.around.argv(
            peers.find("ctr"), f"--address={self.directory / 'sock'}", *arguments
        )

    def _ctr(self, *arguments: str) -> str:
        argv = self._argv(*arguments)
        return run(argv, seconds=PULL_SECONDS, environment=self.around.environment).stdout


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
    def start(
        cls,
        directory: Path,
        mirrors: Sequence[str] = (),
        machine: Machine | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Docker:
        """Starts a daemon that asks ``mirrors`` (URLs) for what is on docker.io.

        On a machine of its own it reads /etc/docker/daemon.json.
        """
        peers.need_root("dockerd")
        peers.find("docker")
        peers.find("containerd")
        directory.mkdir(parents=True, exist_ok=True)
        around = Surroundings(directory, machine, variables or {})
        # An empty file of its own, lest the daemon.json of the tests' machine be read.
        config = directory / "daemon.json"
        config.write_text("{}")
        argv = around.argv(
            peers.find("dockerd"),
            *((f"--config-file={config}",) if machine is None else ()),
            f"--data-root={directory / 'data'}",
            f"--exec-root={directory / 'exec'}",
            f"--host=unix://{directory / 'sock'}",
            f"--pidfile={directory / 'pid'}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--storage-driver=vfs",
            *(f"--registry-mirror={mirror}" for mirror in mirrors),
        )
        process = Process.start(argv, directory, name="dockerd", environment=around.environment)
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
        """Pulls ``source``, pushes it under another name, and removes it.

        Raises:
            CommandFailed: it was refused.
        """
        self._docker("pull", "--quiet", source)
        self._docker("tag", source, reference)
        self._docker("push", reference)
        self._docker("rmi", source, reference)

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
