"""Processes under test: started on a free port and an empty directory, and gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from attrs import define, field, frozen

from benchmarks.accounting import family

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class ServerError(Exception):
    """A server did not start, or ended by itself."""


@frozen
class Setting:
    """What a server's configuration is made from.

    Attributes:
        directory: its own, for configuration, cache and logs.
        port: for plain HTTP on 127.0.0.1.
        tls_port: for TLS, or None when this run needs none.
        upstream: URL of the upstream registry.
        certificate: PEM file for TLS.
        private_key: PEM file for TLS.
    """

    directory: Path
    port: int
    tls_port: int | None
    upstream: str
    certificate: Path
    private_key: Path


Recipe = Callable[[Setting], Sequence[Sequence[str]]]
"""Writes a server's configuration, and returns the command lines that it takes."""


def free_port() -> int:
    """Return a port on 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    """Whether the version check is answered there (any status will do)."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/")
        connection.getresponse().read()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@define
class Server:
    """A server that runs, as one process or several, until it is stopped.

    Attributes:
        name: as the table shows it.
        setting: what it was started with.
    """

    name: str
    setting: Setting
    _processes: list[subprocess.Popen[bytes]] = field(factory=list)

    def start(self, recipe: Recipe) -> None:
        """Start it, and return once it answers.

        Raises:
            ServerError: it ended, or did not answer in time; what it wrote last is in the message.
        """
        self.setting.directory.mkdir(parents=True)
        for command in recipe(self.setting):
            log = self.setting.directory / f"output-{len(self._processes)}.log"
            with log.open("wb") as output:
                self._processes.append(
                    subprocess.Popen(
                        command,
                        cwd=REPOSITORY_ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # Ctrl-C reaches us alone, and we stop it
                    )
                )
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or any(p.poll() is not None for p in self._processes):
                raise ServerError(f"{self.name} did not start: {self._last_words()}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        if not _answers(self.setting.port):
            return False
        return self.setting.tls_port is None or _listens(self.setting.tls_port)

    def _last_words(self) -> str:
        logs = sorted(self.setting.directory.glob("*.log"))
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)

    def port(self, *, tls: bool) -> int:
        """Return the port to connect to.

        Raises:
            ServerError: TLS is wanted, and it was started without.
        """
        if not tls:
            return self.setting.port
        if self.setting.tls_port is None:
            raise ServerError(f"{self.name} was started without TLS")
        return self.setting.tls_port

    def pids(self) -> list[int]:
        """Return the ids of all its processes, workers included."""
        return family(process.pid for process in self._processes)

    def stop(self) -> None:
        """End its processes, by force if they take too long, and remove its directory."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.setting.directory, ignore_errors=True)


@define
class Launcher:
    """Starts servers side by side: one directory, one upstream, one certificate.

    Attributes:
        directory: on tmpfs where the machine has one.
        upstream: URL of the upstream registry.
        certificate: PEM file for TLS.
        private_key: PEM file for TLS.
        recipes: how each server is started, by name.
        running: the servers that were started and not stopped.
    """

    directory: Path
    upstream: str
    certificate: Path
    private_key: Path
    recipes: Mapping[str, Recipe]
    running: list[Server] = field(factory=list, init=False)
    _started: int = field(default=0, init=False)

    def start(self, name: str, *, tls: bool = False, upstream: str | None = None) -> Server:
        """Start a server on an empty cache.

        Args:
            name: which recipe.
            tls: whether it listens for TLS as well.
            upstream: URL of what it fetches from, if not from upstream itself.

        Raises:
            ServerError: it did not start.
        """
        self._started += 1
        setting = Setting(
            directory=self.directory / f"{name}-{self._started}",
            port=free_port(),
            tls_port=free_port() if tls else None,
            upstream=upstream or self.upstream,
            certificate=self.certificate,
            private_key=self.private_key,
        )
        server = Server(name, setting)
        self.running.append(server)
        server.start(self.recipes[name])
        return server

    def stop(self, server: Server) -> None:
        """Stop a server, and forget its cache."""
        server.stop()
        self.running.remove(server)

    def stop_all(self) -> None:
        """Stop whatever still runs."""
        while self.running:
            self.running.pop().stop()
