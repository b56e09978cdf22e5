"""Many clients in one process, for the memory of a server: they count bytes and drop them.

Run like the reader (``python -m benchmarks.crowd ORDER``). The kernel discards the bodies
(MSG_TRUNC, tcp(7)), so that one process can keep 64 connections busy.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field

from benchmarks.reader import Order, Reading, body_length, request_bytes, wait_for_start

_PIECE = 1024 * 1024  # bytes per turn and connection


@dataclass
class _Member:
    """One connection of the crowd: its response's head, and how far it is."""

    connection: socket.socket
    head: bytearray = field(default_factory=bytearray)
    size: int = -1
    received: int = 0

    def read(self, buffer: bytearray) -> bool:
        """Take what is there; whether the body is complete.

        Raises:
            ValueError: the answer is no 200 with a Content-Length, or ends early.
        """
        if self.size >= 0:
            got = self.connection.recv_into(buffer, _PIECE, socket.MSG_TRUNC)
            self.received += got
        else:
            got = self.connection.recv_into(buffer, 4096)
            self.head += buffer[:got]
            if (end := self.head.find(b"\r\n\r\n")) >= 0:
                self.size = body_length(bytes(self.head[: end + 2]))
                self.received = len(self.head) - (end + 4)
        if not got and self.received != self.size:
            raise ValueError(f"body ended after {self.received} of {self.size} bytes")
        return self.received == self.size


def read_together(order: Order) -> Reading:
    """Read one blob over many connections until all are complete or the time is up."""
    buffer = bytearray(_PIECE)
    started = time.monotonic()
    first_byte = 0.0
    received = 0
    complete = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(order["clients"]):
            connection = socket.create_connection(("127.0.0.1", order["port"]))
            connection.sendall(request_bytes(order))
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, _Member(connection))
        deadline = started + order["seconds"]
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(1.0):
                member: _Member = key.data
                before = member.received
                done = member.read(buffer)
                received += member.received - before
                first_byte = first_byte or time.monotonic()
                if done:
                    complete += 1
                    selector.unregister(member.connection)
                    member.connection.close()
        for key in list(selector.get_map().values()):
            key.data.connection.close()
    return Reading(
        started=started,
        first_byte=first_byte,
        ended=time.monotonic(),
        size=received,
        sha256="",
        cipher="",
        complete=complete,
    )


def main() -> None:
    """Carry out the order in the first argument."""
    order: Order = json.loads(sys.argv[1])
    wait_for_start()
    print(json.dumps(read_together(order)), flush=True)


if __name__ == "__main__":
    main()
