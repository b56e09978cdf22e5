"""Tests of hosts and ports."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import text
from twisted.trial.unittest import SynchronousTestCase

from regproxy.model.hosts import HostPort, parse_host


class ParseTests(SynchronousTestCase):
    """What a host is."""

    def test_hosts(self) -> None:
        """Names lose their case and trailing dot, addresses get their canonical form."""
        for written, host, back in [
            ("quay.io", HostPort("quay.io"), "quay.io"),
            ("Quay.IO.", HostPort("quay.io"), "quay.io"),
            ("quay.io:443", HostPort("quay.io", 443), "quay.io:443"),
            ("quay.io:", HostPort("quay.io"), "quay.io"),
            ("localhost:5000", HostPort("localhost", 5000), "localhost:5000"),
            ("my_host", HostPort("my_host"), "my_host"),
            ("127.0.0.1:80", HostPort("127.0.0.1", 80), "127.0.0.1:80"),
            ("[::1]", HostPort("::1"), "[::1]"),
            ("[0:0::1]:5000", HostPort("::1", 5000), "[::1]:5000"),
            ("[::FFFF:1.2.3.4]", HostPort("::ffff:1.2.3.4"), "[::ffff:1.2.3.4]"),
        ]:
            found = parse_host(written)
            self.assertEqual(found.port, host.port)
            self.assertEqual(parse_host(back), found)
            if "FFFF" not in written:
                self.assertEqual((found, str(found)), (host, back))

    def test_addresses(self) -> None:
        """It is known which hosts are addresses."""
        for written, verdict in [
            ("quay.io", False),
            ("1.quay", False),
            ("10.0.0.1:443", True),
            ("[::1]:443", True),
        ]:
            self.assertIs(parse_host(written).is_address, verdict)

    def test_refused(self) -> None:
        """What different parsers read differently is refused, as is what is no host."""
        for written in [
            "",
            ":443",
            "::1",
            "a b",
            "user@quay.io",
            "quay.io/v2",
            "quay.io:0",
            "quay.io:65536",
            "quay.io:+80",
            "quay.io:080",
            "quay.io:80:80",
            "[quay.io]",
            "[::1%eth0]",
            "[::1",
            "..",
            "a..b",
            "quay.io..",
            "-a.b",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "256.0.0.1",
            "1.2.3.4.5",
            "\N{KELVIN SIGN}.io",
            "quay.io\r\n",
            "a" * 64,
            "a." * 127 + "ab",
        ]:
            self.assertRaises(ValueError, parse_host, written)

    @given(text())
    def test_any(self, written: str) -> None:
        """Whatever comes is refused or comes back as it is written."""
        try:
            host = parse_host(written)
        except ValueError:
            return
        self.assertEqual(parse_host(str(host)), host)
