"""Client processes: started early, released together, their readings collected."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from benchmarks.reader import Order, Reading
from benchmarks.servers import REPOSITORY_ROOT

_RUN_SECONDS = 240.0
_HEAD_START = 0.05  # seconds between the release and the moment that all start at


class ClientError(Exception):
    """A client got a wrong or incomplete answer, or none."""


def order(
    port: int,
    target: str,
    *,
    tls: bool = False,
    verify: bool = False,
    clients: int = 1,
    seconds: float = 0.0,
) -> Order:
    """Return an order for a reader, or with several clients for a crowd."""
    return Order(
        port=port,
        target=target,
        tls=tls,
        connect=False,
        name="",
        trusted="",
        verify=verify,
        clients=clients,
        seconds=seconds,
    )


def by_name(asked: Order, name: str, trusted: Path, *, connect: bool = False) -> Order:
    """Return the order of a client that means a host by its name, and checks its certificate.

    Args:
        asked: the order otherwise.
        name: the host.
        trusted: PEM file of what must have signed the certificate.
        connect: whether it knows that there is a proxy, and asks that by CONNECT.
    """
    return Order({**asked, "name": name, "trusted": str(trusted), "connect": connect})


class Clients:
    """Client processes that are ready, and wait for their release.

    As a context manager it leaves no process behind.
    """

    def __init__(self, orders: Sequence[Order], module: str = "benchmarks.reader") -> None:
        """Start one process per order, and wait until each is ready.

        Args:
            orders: what each process asks for.
            module: what they run.
        """
        self._processes: list[subprocess.Popen[str]] = []
        try:
            for each in orders:
                self._processes.append(
                    subprocess.Popen(
                        [sys.executable, "-S", "-m", module, json.dumps(each)],
                        cwd=REPOSITORY_ROOT,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                        start_new_session=True,
                    )
                )
            for process in self._processes:
                assert process.stdout is not None
                process.stdout.readline()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def run(self) -> list[Reading]:
        """Release all of them at one moment, and return what they saw.

        Raises:
            ClientError: one of them failed; its traceback's end is in the message.
        """
        start = f"{time.monotonic() + _HEAD_START}\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(start)
            process.stdin.flush()
        readings: list[Reading] = []
        for process in self._processes:
            try:
                output, errors = process.communicate(timeout=_RUN_SECONDS)
            except subprocess.TimeoutExpired:
                raise ClientError(f"no end within {_RUN_SECONDS:.0f} s") from None
            if process.returncode != 0:
                raise ClientError(errors.strip().rpartition("\n")[2])
            readings.append(json.loads(output))
        return readings


def read(orders: Sequence[Order]) -> list[Reading]:
    """Run one reader process per order, all at one moment.

    Raises:
        ClientError: one of them failed.
    """
    with Clients(orders) as clients:
        return clients.run()
