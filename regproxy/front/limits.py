"""What clients are allowed."""

from __future__ import annotations

from attrs import frozen


@frozen
class ClientLimits:
    """What clients are allowed.

    Attributes:
        header_size: Bytes of a request's line and headers.
        request_headers: Seconds from a request's first byte to the end of its headers.
        idle: Seconds that a connection may do nothing between requests.
        write_stall: Seconds in which a client must take something of its answer.
        body_silence: Seconds in which a client must send something of its body while it is read.
    """

    header_size: int
    request_headers: float
    idle: float
    write_stall: float
    body_silence: float = 60.0
