"""What hostile clients send, and where they want to get to."""

from __future__ import annotations

from collections.abc import Mapping

HOST = "registry-a.test"
"""A registry that they may use."""

NO_TARGETS = (
    "", ":", ":443", HOST, f"{HOST}:", f"{HOST}:0", f"{HOST}:99999", f"{HOST}:-1", f"{HOST}:+443",
    f"user:password@{HOST}:443", "[fe80::1%eth0]:443", "[fe80::1%25eth0]:443", "[::1", "[]:443",
    "a" * 300 + ":443", "a" * 15_000 + ":443", f"http://{HOST}/", "/", f"{HOST}:443/x",
    "registry-a\x00.test:443", "registry-a.test\x01:443", "registry-a.test\t:443", "caf\xe9.test:1",
    "127.1:443", "0x7f.1:443", "0177.0.0.1:443", "2130706433:443", "0:443",
)  # fmt: skip
"""What no CONNECT may be for."""

PRIVATE = (
    "127.0.0.1", "localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
    "[::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "[::]", "169.254.169.254", "[fe80::1]", "10.0.0.1",
    "192.168.1.1", "[fd00::1]", "100.64.0.1", "224.0.0.1",
)  # fmt: skip
"""Hosts that nobody gets to without being named."""

NO_HOSTS = ("0", "127.1", "2130706433", "0x7f000001", "017700000001", "user@localhost", "a b", "")

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

SHAPES: Mapping[str, bytes] = {
    "both lengths": b"Content-Length: 4\r\n" + CHUNKED + b"0\r\n\r\n",
    "both lengths, the other way round": b"Transfer-Encoding: chunked\r\n"
    b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\n\r\n",
    "identity and a length": b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "chunked twice": b"Transfer-Encoding: chunked\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunked, chunked": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded": b"X: y\r\n " + CHUNKED + b"0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "negative": b"Content-Length: -3\r\n\r\nabc",
    "signed": b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal": b"Content-Length: 0x3\r\n\r\nabc",
    "thousands of digits": b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
    "bare line feed": b"X: y\nContent-Length: 0\r\n\r\n",
    "bare carriage return": b"X: y\rContent-Length: 3\r\n\r\nabc",
    "NUL in a value": b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": b"X\x00: ab\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"Content-Length\r\n\r\n",
    "second Host": b"Host: registry-b.test\r\nContent-Length: 0\r\n\r\n",
}
"""Headers that parsers disagree about; what is behind them must not become a request."""

CHUNKS = (
    b"-1\r\n", b"+3\r\nabc\r\n", b"0x3\r\nabc\r\n", b" 3\r\nabc\r\n", b"3 \r\nabc\r\n", b"\r\nabc",
    b"ffffffffffffffffffff\r\nabc", b"3;" + b"a" * 100_000 + b"\r\nabc\r\n", b"3\nabc\n",
    b"3;a\nabc\r\n", b"3\r\nabcdef\r\n", b"0\r\n" + b"X: y\r\n" * 20_000,
)  # fmt: skip
"""Bodies in chunks that are none."""
