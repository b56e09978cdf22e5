"""Child processes: started with their output in files, waited for, ended by their pid."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

_POLL = 0.02
_STARTED: set[Process] = set()

# Below the range from which the kernel takes ports for outgoing connections, so that a client
# cannot be given the port between the moment it was found free and the moment it is bound.
_PORTS = range(15_000, 32_000)
_GIVEN_PORTS: set[int] = set()


class CommandFailed(Exception):
    """A command ended with another status than 0, or had to be killed at its deadline."""


@frozen
class Finished:
    """What a command that ran to its end left."""

    status: int
    stdout: str
    stderr: str


@define(eq=False)
class Process:
    """A running child, leader of a process group of its own.

    Args:
        name: what messages call it.
        popen: the child.
        stdout: the file that its standard output goes to.
        stderr: the file that its standard error goes to.
    """

    name: str
    popen: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    status: int | None = field(default=None, init=False)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        directory: Path,
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts ``argv`` with ``directory`` as its working and log directory."""
        directory.mkdir(parents=True, exist_ok=True)
        stdout, stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
        with stdout.open("ab") as out, stderr.open("ab") as err:
            popen = subprocess.Popen(
                [*_dies_with_us(), *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        process = cls(name, popen, stdout, stderr)
        _STARTED.add(process)
        return process

    @property
    def pid(self) -> int:
        """The child's process id, which is the id of its group too."""
        return self.popen.pid

    def ended(self) -> bool:
        """Whether the child itself has exited. It stays a zombie, so that its pid stays its own."""
        if self.status is not None:
            return True
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def wait(self, seconds: float) -> int:
        """The exit status (negative for a signal) once the child and its group are gone.

        Raises:
            CommandFailed: the child still runs after ``seconds``.
        """
        wait_until(self.ended, seconds, f"{self.name} to end", self.tail)
        return self._reap()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child alone."""
        if not self.ended():
            os.kill(self.pid, number)

    def stop(self, seconds: float = 15.0) -> int:
        """Ends the child with SIGTERM, or after ``seconds`` with SIGKILL, and then its group."""
        if self.status is not None:
            return self.status
        self.signal(signal.SIGTERM)
        # A suspended one hears nothing else.
        self.signal(signal.SIGCONT)
        try:
            return self.wait(seconds)
        except CommandFailed:
            return self.kill()

    def kill(self) -> int:
        """Ends the child and its group with SIGKILL."""
        if self.status is not None:
            return self.status
        os.killpg(self.pid, signal.SIGKILL)
        return self.wait(10.0)

    def tail(self, lines: int = 15) -> str:
        """The end of the child's output, for a message."""
        parts = []
        for path in (self.stdout, self.stderr):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join((f"--- {path.name}", *last)))
        return "\n".join(parts)

    def _reap(self) -> int:
        if self.status is None:
            # The zombie leader still holds the group's id: nobody else can be hit.
            os.killpg(self.pid, signal.SIGKILL)
            self.status = self.popen.wait()
            _STARTED.discard(self)
        return self.status


def run(
    argv: Sequence[str],
    *,
    seconds: float = 120.0,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
) -> Finished:
    """Runs a command to its end, and gives its output.

    Raises:
        CommandFailed: it took longer than ``seconds``, or ``check`` and its status is not 0.
    """
    with subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if environment is None else dict(environment),
        start_new_session=True,
    ) as popen:
        try:
            out, err = popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            out, err = popen.communicate()
            raise CommandFailed(
                f"killed after {seconds:.0f} s: {' '.join(argv)}\n{_text(err)}"
            ) from None
    finished = Finished(popen.returncode, _text(out), _text(err))
    if check and finished.status != 0:
        raise CommandFailed(
            f"status {finished.status}: {' '.join(argv)}\n{finished.stdout}{finished.stderr}"
        )
    return finished


def wait_until(
    condition: Callable[[], bool],
    seconds: float,
    what: str,
    explain: Callable[[], str] = str,
) -> None:
    """Returns as soon as ``condition`` holds.

    Raises:
        CommandFailed: it does not hold within ``seconds``; ``explain`` adds to the message.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise CommandFailed(f"waited {seconds:.0f} s for {what}\n{explain()}")
        time.sleep(_POLL)


def wait_for_port(
    port: int, process: Process, host: str = "127.0.0.1", seconds: float = 30.0
) -> None:
    """Returns once somebody listens on the port of a loopback address.

    Raises:
        CommandFailed: nobody does within ``seconds``, or ``process`` ended.
    """

    def listens() -> bool:
        if process.ended():
            raise CommandFailed(f"{process.name} ended at its start\n{process.tail()}")
        return is_listening(port, host)

    wait_until(listens, seconds, f"{process.name} to listen on port {port}", process.tail)


def is_listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a connection to the port of a loopback address is accepted."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A loopback port on which nobody listens, and which nobody was given before."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _GIVEN_PORTS:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN_PORTS.add(port)
        return port


def _dies_with_us() -> Sequence[str]:
    """Has the kernel end the child when the test run itself is killed."""
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", "TERM", "--")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@atexit.register
def _end_all() -> None:
    for process in list(_STARTED):
        process.kill()
