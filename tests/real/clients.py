"""The real clients: each pulls an image its own way and says what it got."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from tests.real import peers
from tests.real.images import Manifest, layer_files, sha256, tar_files
from tests.real.processes import run

PULL_SECONDS = 120.0

_ACCEPT_ANYTHING = '{"default": [{"type": "insecureAcceptAnything"}]}'
_GRAPH_ROOT, _RUN_ROOT, _RUN_TMP = "root", "run", "tmp"


@frozen
class Pulled:
    """What a client holds after a pull.

    Args:
        digests: of the manifests under which it knows the image.
        files: every file of the image: name to digest of its content.
    """

    digests: frozenset[str]
    files: Mapping[str, str]


class Client(Protocol):
    """A program that pulls images."""

    def pull(self, reference: str) -> Pulled:
        """Pulls by tag or digest.

        Args:
            reference: such as ``registry-a.test/team/app:small``.

        Raises:
            CommandFailed: the client could not.
        """


@frozen
class Skopeo:
    """skopeo, copying into a directory of its own for each pull.

    Args:
        directory: where its pulls and its home go.
        arguments: given to each copy.
        variables: further variables of its environment.
    """

    directory: Path
    arguments: Sequence[str]
    variables: Mapping[str, str] = field(factory=dict)

    def pull(self, reference: str) -> Pulled:
        """Copies one platform's image, as it is served, with its manifest byte for byte."""
        return read_image(self.copy(f"docker://{reference}", *self.arguments))

    def pull_all(self, reference: str) -> Mapping[str, Pulled]:
        """Copies an index with every platform: the manifest's digest to what was got."""
        out = self.copy(f"docker://{reference}", "--all", *self.arguments)
        index = (out / "manifest.json").read_bytes()
        got = {sha256(index): Pulled(frozenset((sha256(index),)), {})}
        for child in json.loads(index)["manifests"]:
            digest = str(child["digest"])
            manifest = (out / f"{digest.removeprefix('sha256:')}.manifest.json").read_bytes()
            got[sha256(manifest)] = Pulled(frozenset((digest,)), _layer_files(out, manifest))
        return got

    def copy(self, source: str, *arguments: str, destination: str | None = None) -> Path:
        """Runs one copy; without ``destination`` into a new directory, which is returned."""
        out = self.directory / f"copy-{len(list(self.directory.glob('copy-*')))}"
        argv = [peers.find("skopeo"), "--insecure-policy", "copy", "--quiet", *arguments, source]
        run(
            [*argv, destination or f"dir:{out}"],
            seconds=PULL_SECONDS,
            environment={**environment(self.directory), **self.variables},
        )
        return out

    def list_tags(self, repository: str) -> set[str]:
        """The tags that the client is told of."""
        argv = [peers.find("skopeo"), "list-tags", "--tls-verify=false", f"docker://{repository}"]
        listed = run(argv, environment=environment(self.directory)).stdout
        return set(json.loads(listed)["Tags"])


@frozen
class Podman:
    """podman with its own storage, image by image.

    Args:
        directory: where storage, configuration and home go.
        arguments: given to each pull.
    """

    directory: Path
    arguments: Sequence[str]

    @classmethod
    def configured(cls, directory: Path, registries: str, *arguments: str) -> Podman:
        """One that reads ``registries`` as its registries.conf."""
        peers.need_root("podman")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "registries.conf").write_text(registries)
        (directory / "policy.json").write_text(_ACCEPT_ANYTHING)
        return cls(directory, arguments)

    def furnish(self, containers: Path) -> None:
        """Writes an ``/etc/containers`` with which podman has this storage without being told."""
        where = self.directory
        (containers / "registries.conf.d").mkdir(parents=True)
        (containers / "policy.json").write_text(_ACCEPT_ANYTHING)
        (containers / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{where / _GRAPH_ROOT}"\n'
            f'runroot = "{where / _RUN_ROOT}"\n'
        )
        (containers / "containers.conf").write_text(
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            f'tmp_dir = "{where / _RUN_TMP}"\n'
        )

    def pull(self, reference: str) -> Pulled:
        """Pulls into the storage, reads the image back, and removes it."""
        policy = f"--signature-policy={self.directory / 'policy.json'}"
        self._podman("pull", "--quiet", policy, *self.arguments, reference)
        return self.take(reference)

    def take(self, reference: str) -> Pulled:
        """Reads back an image that is in the storage, and removes it."""
        image = json.loads(self._podman("image", "inspect", reference))[0]
        archive = self.directory / "saved.tar"
        self._podman("save", "--quiet", "--output", str(archive), image["Id"])
        files = archive_files(archive)
        archive.unlink()
        self._podman("rmi", "--force", image["Id"])
        named = (str(name).partition("@")[2] for name in image["RepoDigests"])
        return Pulled(frozenset((str(image["Digest"]), *named)), files)

    def trust(self, host: str, authority: Path) -> None:
        """Has the authority vouch for ``host`` (with its port)."""
        where = self.directory / "home/.config/containers/certs.d" / host
        where.mkdir(parents=True)
        shutil.copy(authority, where / "ca.crt")

    def _podman(self, *arguments: str) -> str:
        where = self.directory
        return run(
            [
                peers.find("podman"),
                f"--root={where / _GRAPH_ROOT}",
                f"--runroot={where / _RUN_ROOT}",
                f"--tmpdir={where / _RUN_TMP}",
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
                *arguments,
            ],
            seconds=PULL_SECONDS,
            environment={
                **environment(where),
                "CONTAINERS_REGISTRIES_CONF": str(where / "registries.conf"),
            },
        ).stdout


@frozen
class Fetched:
    """What curl got.

    Args:
        exit_status: curl's own.
        status: of the answer, 0 for none.
        connect_status: of a proxy's answer to CONNECT, 0 for none.
        body: the answer's.
        error: what curl says went wrong.
    """

    exit_status: int
    status: int
    connect_status: int
    body: str
    error: str


def curl(*arguments: str) -> Fetched:
    """Runs curl with no proxy but what its arguments name."""
    argv = [peers.find("curl"), "--silent", "--show-error", "--max-time", "30"]
    argv += ["--write-out", "\n%{http_code} %{http_connect}", *arguments]
    finished = run(argv, environment={"PATH": os.environ.get("PATH", os.defpath)}, check=False)
    body, _, statuses = finished.stdout.rpartition("\n")
    status, connect_status = map(int, statuses.split())
    return Fetched(finished.status, status, connect_status, body, finished.stderr)


def read_image(directory: Path) -> Pulled:
    """One platform's image as skopeo's ``dir:`` lays it out."""
    manifest = (directory / "manifest.json").read_bytes()
    return Pulled(frozenset((sha256(manifest),)), _layer_files(directory, manifest))


def write_image(directory: Path, image: Manifest) -> Path:
    """Lays an image out for skopeo's ``dir:``; gives the directory."""
    directory.mkdir(parents=True)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(image.data)
    for blob in image.blobs:
        os.link(blob.path, directory / blob.digest.removeprefix("sha256:"))
    return directory


def _layer_files(directory: Path, manifest: bytes) -> dict[str, str]:
    files = {}
    for layer in json.loads(manifest)["layers"]:
        files.update(layer_files(directory / str(layer["digest"]).removeprefix("sha256:")))
    return files


def environment(directory: Path) -> dict[str, str]:
    """What a client is started with: a home of its own, and no way off the machine.

    A client that gives up on its mirror asks the registry itself. The proxy named here does not
    exist, which ends that at once; none of the clients uses a proxy for loopback addresses.
    """
    home = directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    nowhere = "http://127.0.0.1:1"
    return {
        "PATH": os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/sbin",
        "HOME": str(home),
        "TMPDIR": str(directory),
        "XDG_RUNTIME_DIR": str(home),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
    }


def archive_files(archive: Path) -> dict[str, str]:
    """What is in the layers of an archive in ``docker save``'s format."""
    files = {}
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("manifest.json")
        assert listed is not None
        for name in json.load(listed)[0]["Layers"]:
            layer = tar.extractfile(name)
            assert layer is not None
            files.update(tar_files(layer))
    return files
