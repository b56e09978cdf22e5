"""One client in a process of its own: reads one blob over a bare socket and says when.

It is run as ``python -m benchmarks.reader ORDER``, where ORDER is JSON (see `Order`). It says
``ready`` when it could start, reads the monotonic start time from its standard input, and prints
its `Reading` as JSON. Only the standard library is imported, so that eight of them start quickly.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
import socket
import ssl
import sys
import time
from typing import TypedDict

_BUFFER_SIZE = 1024 * 1024
_SILENCE = 120.0  # seconds without a byte after which the server counts as broken
_LENGTH = re.compile(rb"(?mi)^content-length:[ \t]*(\d+)[ \t]*\r?$")


class Order(TypedDict):
    """What to ask for.

    Attributes:
        port: the server's port on 127.0.0.1.
        target: the request target.
        tls: whether to speak TLS.
        connect: whether to ask for a connection to the name by CONNECT first.
        name: the host that is meant, by name and at its usual port, or "" for the server's address.
        trusted: PEM file of what must have signed the certificate, or "" to check nothing: the
            certificate was made in this run.
        verify: whether to hash the body, which costs the client as much as reading it.
        clients: how many connections; only the crowd takes more than one.
        seconds: when a crowd stops reading.
    """

    port: int
    target: str
    tls: bool
    connect: bool
    name: str
    trusted: str
    verify: bool
    clients: int
    seconds: float


class Reading(TypedDict):
    """What one client saw; times are seconds on the machine's monotonic clock.

    Attributes:
        started: when it began to connect.
        first_byte: when the first byte of the body was there.
        ended: when the last one was.
        size: length of the body in bytes.
        sha256: hex digest of the body, or "" when it was not asked for.
        cipher: the TLS cipher, or "".
        complete: connections that got the whole body.
    """

    started: float
    first_byte: float
    ended: float
    size: int
    sha256: str
    cipher: str
    complete: int


def request_bytes(order: Order) -> bytes:
    """Return the request that every client sends."""
    host = order["name"] or f"127.0.0.1:{order['port']}"
    head = (
        f"GET {order['target']} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: regproxy-benchmarks",
        "Accept: */*",
        "Connection: close",
    )
    return ("\r\n".join(head) + "\r\n\r\n").encode()


def body_length(head: bytes) -> int:
    """Return the length of the body that a response's head announces, in bytes.

    Raises:
        ValueError: it is no 200, or has no Content-Length.
    """
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise ValueError(f"unexpected response: {head[:300]!r}")
    return int(length[1])


def _connect(connection: socket.socket, name: str) -> None:
    """Ask a proxy to be connected to a host's port for HTTPS (RFC 9110 section 9.3.6).

    Raises:
        ValueError: it declines.
        OSError: the connection broke.
    """
    connection.sendall(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # nothing follows it: in TLS the client speaks first
        got = connection.recv(4096)
        if not got:
            raise ValueError(f"connection closed after CONNECT: {answer[:300]!r}")
        answer += got
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"unexpected response to CONNECT: {answer[:300]!r}")


def _tls_context(order: Order) -> ssl.SSLContext:
    """Return what the order says about TLS.

    Raises:
        OSError: what is to be trusted cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if order["trusted"]:
        context.load_verify_locations(order["trusted"])
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_blob(order: Order, context: ssl.SSLContext | None) -> Reading:
    """Read one blob to its end.

    Raises:
        ValueError: the answer is no 200 with a Content-Length, or ends early; CONNECT is declined.
        OSError: the connection broke, or the certificate is none that is to be trusted.
    """
    buffer = bytearray(_BUFFER_SIZE)
    view = memoryview(buffer)
    hasher = hashlib.sha256() if order["verify"] else None
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", order["port"]), timeout=_SILENCE) as plain:
        if order["connect"]:
            _connect(plain, order["name"])
        connection = plain
        if context is not None:
            connection = context.wrap_socket(plain, server_hostname=order["name"] or None)
        connection.sendall(request_bytes(order))
        filled = 0
        while (end := buffer.find(b"\r\n\r\n", 0, filled)) < 0:
            got = connection.recv_into(view[filled:])
            if not got:
                raise ValueError(f"connection closed in the head: {bytes(view[:filled])!r}")
            filled += got
        size = body_length(bytes(view[: end + 2]))
        received = filled - (end + 4)
        if hasher is not None:
            hasher.update(view[end + 4 : filled])
        first_byte = time.monotonic() if received else 0.0
        while received < size:
            got = connection.recv_into(buffer)
            if not got:
                raise ValueError(f"body ended after {received} of {size} bytes")
            first_byte = first_byte or time.monotonic()
            if hasher is not None:
                hasher.update(view[:got])
            received += got
        ended = time.monotonic()
        cipher = connection.cipher() if isinstance(connection, ssl.SSLSocket) else None
    return Reading(
        started=started,
        first_byte=first_byte,
        ended=ended,
        size=received,
        sha256=hasher.hexdigest() if hasher is not None else "",
        cipher=cipher[0] if cipher is not None else "",
        complete=1,
    )


def wait_for_start() -> None:
    """Say that this client is ready, and sleep until the moment that all clients are given."""
    gc.disable()
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    time.sleep(max(0.0, start - time.monotonic()))


def main() -> None:
    """Carry out the order in the first argument."""
    order: Order = json.loads(sys.argv[1])
    context = _tls_context(order) if order["tls"] else None
    wait_for_start()
    print(json.dumps(read_blob(order, context)), flush=True)


if __name__ == "__main__":
    main()
