"""A line to upstream: passes on what upstream sends at a limited rate, all connections together.

It is run as ``python -m benchmarks.line PORT UPSTREAM_PORT RATE``, RATE in bytes a second.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

_PIECE = 64 * 1024  # bytes that cross the line at a time
_CREDIT = 0.01  # seconds of the line's rate that oversleeping may be made up for


class Line:
    """What all connections share: when the line is free again."""

    def __init__(self, rate: int) -> None:
        """Make a line that nothing is crossing.

        Args:
            rate: bytes a second.
        """
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def cross(self, size: int) -> None:
        """Return when so many bytes have had their turn on the line."""
        with self._lock:
            earliest = time.monotonic() - _CREDIT
            self._free_at = max(self._free_at, earliest) + size / self._rate
            due = self._free_at
        time.sleep(max(0.0, due - time.monotonic()))


def _pass_on(source: socket.socket, target: socket.socket, line: Line | None) -> None:
    """Pass on everything, then the end, from one socket to another."""
    piece = memoryview(bytearray(_PIECE))
    with suppress(OSError):
        while got := source.recv_into(piece):
            if line is not None:
                line.cross(got)
            target.sendall(piece[:got])
    for each in (source, target):  # either end's end is the other's, as for a cut connection
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _connect(client: socket.socket, upstream_port: int, line: Line) -> None:
    with client, socket.create_connection(("127.0.0.1", upstream_port)) as upstream:
        back = threading.Thread(target=_pass_on, args=(client, upstream, None), daemon=True)
        back.start()
        _pass_on(upstream, client, line)
        back.join()


def main() -> None:
    """Listen until the process is ended."""
    port, upstream_port, rate = (int(argument) for argument in sys.argv[1:])
    line = Line(rate)
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(
                target=_connect, args=(client, upstream_port, line), daemon=True
            ).start()


if __name__ == "__main__":
    main()
