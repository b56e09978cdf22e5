"""A machine of a client's own: its network, its /etc and whom it trusts, gone when the test ends.

What the how-to pages have people do to a host is done to such a machine, word for word.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from tests.real import peers
from tests.real.processes import run

PROXY_ADDRESS = "192.0.2.10"
"""The proxy's address in the how-to pages; clients treat no loopback address like any other."""

PROXY_NAME = "proxy.example"
"""The proxy's name in the how-to pages."""

_LOCAL_AUTHORITIES = "/usr/local/share/ca-certificates"

# linux/sched.h, linux/sockios.h, linux/if.h
_CLONE_NEWNET = 0x40000000
_SIOCSIFADDR = 0x8916
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# os.unshare and os.setns came with Python 3.12.
_LIBC = ctypes.CDLL(None, use_errno=True)


@frozen
class Network:
    """A network namespace: nothing in it but loopback, which has the proxy's address as well.

    Every port is free there, and no packet leaves it. The thread that enters it is in it with all
    that it starts until it leaves.

    Args:
        outside: a descriptor of the namespace to go back to.
    """

    outside: int

    @classmethod
    def enter(cls) -> Network:
        """Makes a namespace and goes in.

        Raises:
            SkipTest: the process may not.
        """
        peers.need_root("a network namespace")
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if _LIBC.unshare(_CLONE_NEWNET) != 0:
            os.close(outside)
            reason = os.strerror(ctypes.get_errno())
            raise peers.missing(f"a network namespace cannot be made here ({reason})")
        network = cls(outside)
        try:
            _bring_up()
        except BaseException:
            network.leave()
            raise
        return network

    def leave(self) -> None:
        """Goes back to where the thread came from."""
        failed = _LIBC.setns(self.outside, _CLONE_NEWNET)
        os.close(self.outside)
        if failed:
            raise OSError(ctypes.get_errno(), "setns")


def _bring_up() -> None:
    with socket.socket() as control:
        # struct ifreq: a name of 16 bytes, then flags or a struct sockaddr_in.
        up = struct.pack("16sH22x", b"lo", _IFF_UP)
        fcntl.ioctl(control, _SIOCSIFFLAGS, up)
        packed = socket.inet_aton(PROXY_ADDRESS)
        address = struct.pack("16sHH4s16x", b"lo:1", socket.AF_INET, 0, packed)
        fcntl.ioctl(control, _SIOCSIFADDR, address)


@frozen
class Machine:
    """Programs run with it have another /etc, in which nobody but Debian's tools has been.

    Args:
        directory: where commands are run, and where the files are.
    """

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Machine:
        """One that trusts nobody, and knows no name but its own and the proxy's."""
        peers.find("unshare")
        peers.find("update-ca-certificates")
        machine = cls(directory)
        machine._trusted.mkdir(parents=True)
        for needed in ("ssl/certs", "systemd/system"):
            (machine.etc / needed).mkdir(parents=True)
        (machine.etc / "ca-certificates.conf").touch()
        (machine.etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        machine.know(f"127.0.0.1 localhost\n{PROXY_ADDRESS} {PROXY_NAME}\n")
        return machine

    @property
    def etc(self) -> Path:
        """What is its /etc."""
        return self.directory / "etc"

    @property
    def _trusted(self) -> Path:
        return self.directory / "ca-certificates"

    def know(self, lines: str) -> None:
        """Adds lines to /etc/hosts."""
        with (self.etc / "hosts").open("a") as hosts:
            hosts.write(lines)

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` on this machine, as the same process."""
        mounts = f'mount --bind "$1" /etc; mount --bind "$2" {_LOCAL_AUTHORITIES}; shift 2'
        unshare = [peers.find("unshare"), "--mount", "--propagation=private"]
        script = ["sh", "-ec", f'{mounts}; exec "$@"', "sh"]
        return [*unshare, *script, str(self.etc), str(self._trusted), *argv]

    def run(self, commands: str) -> str:
        """Runs shell commands as a page has them, and gives what they print.

        Args:
            commands: one a line. ``sudo`` is not needed here, and ``systemctl`` starts nothing:
                a daemon is started by the test.

        Raises:
            CommandFailed: one ended with another status than 0.
        """
        here = shlex.quote(str(self.directory))
        script = f'sudo() {{ "$@"; }}\nsystemctl() {{ :; }}\ncd {here}\n{commands}'
        return run(self.wrap(["sh", "-ec", script]), environment=self.environment()).stdout

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a program of this machine is started with: no proxy, unless ``variables`` say so."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin:/sbin",
            "HOME": str(home),
            "TMPDIR": str(self.directory),
            **(variables or {}),
        }

    def unit_environment(self, unit: str) -> dict[str, str]:
        """What the files in a unit's ``.service.d`` put into its environment."""
        variables: dict[str, str] = {}
        for path in sorted((self.etc / f"systemd/system/{unit}.service.d").glob("*.conf")):
            for line in path.read_text().splitlines():
                key, _, value = line.partition("=")
                for each in shlex.split(value) if key == "Environment" else ():
                    name, _, text = each.partition("=")
                    variables[name] = text
        return variables
