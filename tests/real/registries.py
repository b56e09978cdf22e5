"""Upstreams: docker-registry, and nginx as the storage host that it redirects to."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from attrs import frozen

from tests.real import peers
from tests.real.images import Blob, Manifest
from tests.real.processes import Process, free_port, wait_for_port

_COMBINED = re.compile(
    r'^(?P<client>\S+) \S+ \S+ \[[^]]*\] "(?P<method>[A-Z]+) (?P<target>\S+) [^"]*" '
    r'(?P<status>\d+) (?P<size>\d+) "[^"]*" "(?P<agent>[^"]*)"(?: "(?P<authorization>[^"]*)")?'
)
_BLOB = re.compile(r"sha256(?::|/[0-9a-f]{2}/)([0-9a-f]{64})")


@frozen
class Request:
    """One line of a server's own access log.

    Args:
        method: the request's method.
        target: path and query.
        status: the response's status code.
        size: bytes of body sent.
        agent: the User-Agent.
        authorization: the Authorization header, ``-`` or empty for none.
    """

    method: str
    target: str
    status: int
    size: int
    agent: str
    authorization: str


def read_log(path: Path) -> list[Request]:
    """Every request in a log of the combined format; other lines are passed over."""
    matches = map(_COMBINED.match, path.read_text(errors="replace").splitlines())
    return [
        Request(
            match["method"],
            match["target"],
            int(match["status"]),
            int(match["size"]),
            match["agent"],
            match["authorization"] or "",
        )
        for match in matches
        if match is not None
    ]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def transfers(requests: Sequence[Request]) -> Counter[str]:
    """How often each blob's body was asked for: digest to number of GETs that sent bytes."""
    sent = (
        _BLOB.search(request.target)
        for request in requests
        if request.method == "GET" and request.status in {200, 206} and "blobs" in request.target
    )
    return Counter(f"sha256:{match[1]}" for match in sent if match is not None)


@frozen
class Registry:
    """A docker-registry process.

    Args:
        port: where it listens, plain HTTP on loopback.
        process: the process; its access log is its standard output.
        host: the address that it listens on.
    """

    port: int
    process: Process
    host: str = "127.0.0.1"

    @classmethod
    def start(
        cls,
        directory: Path,
        storage: Path,
        *,
        redirect: str | None = None,
        auth: Mapping[str, object] | None = None,
        port: int | None = None,
        host: str = "127.0.0.1",
        http: Mapping[str, object] | None = None,
    ) -> Registry:
        """Serves what ``storage`` holds.

        Args:
            directory: where configuration and logs go.
            storage: the storage driver's root; several processes may share one.
            redirect: the storage host's URL, to which requests for blobs are sent.
            auth: docker-registry's ``auth`` section; None asks nobody for anything.
            port: where to listen, to bring a stopped one back.
            host: the loopback address to listen on.
            http: further settings of docker-registry's ``http`` section.
        """
        program = peers.find("docker-registry")
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port() if port is None else port
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"{_in_url(host)}:{port}", "secret": "one for all", **(http or {})},
        }
        if redirect is not None:
            config["middleware"] = {
                "storage": [{"name": "redirect", "options": {"baseurl": redirect}}]
            }
        if auth is not None:
            config["auth"] = auth
        path = directory / "registry.json"
        # JSON is YAML, which is what docker-registry reads.
        path.write_text(json.dumps(config))
        process = Process.start([program, "serve", str(path)], directory, name=f"registry-{port}")
        wait_for_port(port, process, host)
        return cls(port, process, host)

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://{_in_url(self.host)}:{self.port}"

    def requests(self) -> list[Request]:
        """Every request that it answered, the unfinished ones not yet."""
        return read_log(self.process.stdout)

    def push(self, repository: str, tag: str, manifest: Manifest, *, source: str = "") -> None:
        """Uploads an image or an index with all that it names, and tags it.

        Blobs that the repository ``source`` (by default the same one) has already are mounted.
        """
        for blob in manifest.blobs:
            self._push_blob(repository, blob, source or repository)
        for child in manifest.children:
            self._push_manifest(repository, child.digest, child)
        self._push_manifest(repository, tag, manifest)

    def _push_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        target = f"/v2/{repository}/manifests/{reference}"
        self._send("PUT", target, manifest.data, manifest.media_type)

    def _push_blob(self, repository: str, blob: Blob, source: str) -> None:
        uploads = f"/v2/{repository}/blobs/uploads/"
        status, location = self._send("POST", f"{uploads}?mount={blob.digest}&from={source}", b"")
        if status == 202:
            where = urlsplit(location)
            with blob.path.open("rb") as content:
                self._send("PUT", f"{where.path}?{where.query}&digest={blob.digest}", content)

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | BinaryIO,
        media_type: str = "application/octet-stream",
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, target, body, {"Content-Type": media_type})
            response = connection.getresponse()
            answer = response.read()
            if response.status not in {201, 202}:
                raise AssertionError(f"{method} {target}: {response.status} {answer!r}")
            return response.status, response.getheader("Location", "")
        finally:
            connection.close()


_NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    log_format trial '$remote_addr - - [$time_iso8601] "$request" $status $body_bytes_sent '
                     '"-" "$http_user_agent" "$http_authorization"';
    access_log {directory}/access.log trial;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {storage};
        sendfile on;
        limit_rate {rate};
    }}
}}
"""


@frozen
class StorageHost:
    """An nginx process that serves a registry's storage directory as it lies on disk.

    Args:
        port: where it listens, plain HTTP on loopback.
        process: the process.
        log: its access log, with the Authorization that each request carried.
    """

    port: int
    process: Process
    log: Path

    @classmethod
    def start(
        cls, directory: Path, storage: Path, *, rate: int = 0, port: int | None = None
    ) -> StorageHost:
        """Serves ``storage``, each connection at ``rate`` bytes a second (0: no limit).

        ``port`` brings a stopped one back.
        """
        program = peers.find("nginx")
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port() if port is None else port
        path = directory / "nginx.conf"
        path.write_text(_NGINX.format(directory=directory, port=port, storage=storage, rate=rate))
        argv = [program, "-c", str(path), "-e", "stderr"]
        process = Process.start(argv, directory, name=f"storage-host-{port}")
        wait_for_port(port, process)
        return cls(port, process, directory / "access.log")

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> list[Request]:
        """Every request that it finished."""
        return read_log(self.log)
