"""Bare sockets to a regproxy process, and what the process holds on to."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from pathlib import Path

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_RESIDENT = re.compile(r"VmRSS:\s+(\d+) kB")


def connect(port: int, seconds: float = 10.0) -> socket.socket:
    """A connection to a loopback port, on which nothing takes longer than ``seconds``."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read(connection: socket.socket) -> bytes:
    """Everything that comes until the other side closes or resets.

    Raises:
        TimeoutError: it does neither.
    """
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def read_head(connection: socket.socket) -> bytes:
    """The next bytes up to an empty line, and not one more."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            break
        received += piece
    return received


def exchange(port: int, *pieces: bytes) -> bytes:
    """What a process sends until it closes, to a client that sends ``pieces``."""
    with connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        return read(connection)


def statuses(received: bytes) -> list[int]:
    """The status of each answer, in their order."""
    return [int(status) for status in _STATUS.findall(received)]


def tunnel(target: str) -> bytes:
    """A CONNECT."""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


class TlsClient:
    """A TLS client without a socket of its own, whose bytes are sent as a test likes.

    Args:
        name: for which it asks, None for none.
    """

    def __init__(self, name: str | None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trusting_all().wrap_bio(self._in, self._out, server_hostname=name)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()

    def pending(self) -> bytes:
        """What has to be sent; at first the ClientHello."""
        return self._out.read()

    def ask(self, connection: socket.socket, request: bytes) -> bytes:
        """Ends the handshake, and sends a request: what comes until the other side closes.

        Raises:
            ssl.SSLError: the other side refused.
        """
        received, established = b"", False
        while True:
            try:
                if not established:
                    self._tls.do_handshake()
                    established = True
                    self._tls.write(request)
                while piece := self._tls.read(65536):
                    received += piece
                return received
            except ssl.SSLWantReadError:
                connection.sendall(self.pending())
            piece = connection.recv(65536)
            if piece:
                self._in.write(piece)
            else:
                self._in.write_eof()


def trusting_all() -> ssl.SSLContext:
    """Whoever answers is trusted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def resident(pid: int) -> int:
    """KiB of memory that a process has (``VmRSS``)."""
    match = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1])


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_time(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
