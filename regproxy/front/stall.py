"""Whether a client still takes what it asked for."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_PROGRESS = 1024
"""Bytes that a client must take within the write-stall deadline."""

_TCP_INFO_LENGTH = 192
_BYTES_ACKED_OFFSET = 120
"""Of ``tcpi_bytes_acked`` in ``struct tcp_info`` (Linux 4.1, include/uapi/linux/tcp.h)."""


class ClientGone(Exception):
    """The client hung up, or was hung up on because it took nothing."""

    def __init__(self, why: str = "client left") -> None:
        """Args:
        why: For the access log.
        """
        super().__init__(why)


class HasTransport(Protocol):
    """What sends to a client."""

    @property
    def transport(self) -> Any:
        """The client's transport."""


class StallWatch:
    """Tells when a client has taken (next to) nothing for the whole write-stall deadline.

    A transport resumes its producer only when its whole buffer is gone, which takes a slow reader
    longer than any deadline; the kernel's count of acknowledged bytes tells slow from stuck.
    """

    def __init__(
        self,
        consumer: HasTransport,
        clock: IReactorTime,
        seconds: float,
        stalled: Callable[[ClientGone], None],
    ) -> None:
        """Args:
        consumer: What sends to the client.
        clock: Measures.
        seconds: The deadline.
        stalled: Called when it has passed.
        """
        self._consumer = consumer
        self._clock = clock
        self._seconds = seconds
        self._stalled = stalled
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._moved = False
        self._acknowledged: int | None = None

    def paused(self) -> None:
        """The client's buffers are full."""
        self._paused = True
        if self._timer is None:
            self._start()

    def resumed(self) -> None:
        """The client's buffers are empty."""
        self._paused = False
        self._moved = True

    def stop(self) -> None:
        """Nothing more is sent, unless it is paused again."""
        self._paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        self._moved = False
        self._acknowledged = _acknowledged_bytes(self._consumer.transport)
        self._timer = self._clock.callLater(self._seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._paused:
            return
        before, now = self._acknowledged, _acknowledged_bytes(self._consumer.transport)
        slow = before is not None and now is not None and now - before >= _PROGRESS
        if self._moved or slow:
            self._start()
        else:
            self._stalled(ClientGone(f"took nothing for {self._seconds:g} s"))


def _acknowledged_bytes(transport: Any) -> int | None:
    """Bytes that the client's TCP has acknowledged, None where the kernel does not tell."""
    while transport is not None:
        handle = getattr(transport, "getHandle", lambda: None)()
        if isinstance(handle, socket.socket):
            with contextlib.suppress(OSError, struct.error):
                information = handle.getsockopt(
                    socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH
                )
                return int(struct.unpack_from("=Q", information, _BYTES_ACKED_OFFSET)[0])
            return None
        # TLS wraps the transport that has the socket.
        transport = getattr(transport, "transport", None)
    return None
