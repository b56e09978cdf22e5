"""The upstream registry, and what its own log says was fetched from it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from attrs import frozen

from benchmarks.blobs import Blob
from benchmarks.peers import upstream_registry
from benchmarks.servers import Server, Setting, free_port

_QUIET = 1.0  # seconds without a new line after which transfers count as over
_PATIENCE = 20.0  # seconds to wait for that
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|µs|us|ns|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}


@frozen
class Transfer:
    """One answered GET of a blob.

    Attributes:
        size: bytes of the body that upstream sent.
        seconds: how long it took upstream.
    """

    size: int
    seconds: float


def parse_duration(text: str) -> float:
    """Return the seconds of a duration as Go prints it, such as ``1m2.5s``.

    Raises:
        ValueError: it is none.
    """
    parts = _DURATION.findall(text)
    if not parts:
        raise ValueError(f"found {text!r}, expected a duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@frozen
class Upstream:
    """A docker-registry that logs each response with its exact length.

    Attributes:
        server: the process.
    """

    server: Server

    @classmethod
    def start(cls, directory: Path) -> Upstream:
        """Start it with its storage under the given directory.

        Raises:
            ServerError: it did not start.
        """
        port = free_port()
        setting = Setting(
            directory=directory / "upstream",
            port=port,
            tls_port=None,
            upstream=f"http://127.0.0.1:{port}",
            certificate=directory,
            private_key=directory,
        )
        server = Server("upstream", setting)
        try:
            server.start(upstream_registry)
        except BaseException:
            server.stop()
            raise
        return cls(server)

    @property
    def url(self) -> str:
        """Where the caches fetch from."""
        return self.server.setting.upstream

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        return self.server.setting.port

    @property
    def _log(self) -> Path:
        return self.server.setting.directory / "output-0.log"

    def mark(self) -> int:
        """Return a place in the log: what is written from now on comes after it."""
        return self._log.stat().st_size

    def transfers(self, blob: Blob, since: int) -> list[Transfer]:
        """Return the transfers of a blob that ended after a mark."""
        with self._log.open("rb") as log:
            log.seek(since)
            lines = log.read().splitlines()
        found = []
        for line in lines:
            if b'"response completed"' not in line or blob.digest.encode() not in line:
                continue
            entry = json.loads(line)
            if entry["http.request.method"] == "GET":
                size = int(entry["http.response.written"])
                found.append(Transfer(size, parse_duration(entry["http.response.duration"])))
        return found

    def wait_until_quiet(self) -> None:
        """Return once no response has ended for a while; logged transfers are those that ended."""
        deadline = time.monotonic() + _PATIENCE
        seen = self.mark()
        while time.monotonic() < deadline:
            time.sleep(_QUIET)
            if (now := self.mark()) == seen:
                return
            seen = now
