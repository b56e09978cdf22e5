"""Where a run was made: the machine, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import re
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_GIB_IN_KIB = 1024 * 1024


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _memory_gib() -> float:
    found = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) / _GIB_IN_KIB if found else 0.0


def _processor() -> str:
    found = re.search(r"model name\s+: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _program_version(command: Sequence[str]) -> str:
    """Return the first version number that a program prints about itself."""
    program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
    try:
        done = subprocess.run(
            [program, *command[1:]], check=False, capture_output=True, text=True, timeout=10
        )
    except OSError:
        return "not installed"
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "?"


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from this checkout"


def missing_programs() -> list[str]:
    """Return the programs that a run needs and that are not installed."""
    needed = ("nginx", "docker-registry", "wrk")
    return [n for n in needed if not shutil.which(n) and not Path(f"/usr/sbin/{n}").exists()]


def describe() -> list[str]:
    """Return a few lines of Markdown on the machine and the versions."""
    versions = {
        "regproxy": _package_version("regproxy"),
        "Twisted": _package_version("twisted"),
        "treq": _package_version("treq"),
        "pyOpenSSL": _package_version("pyopenssl"),
        "Python": platform.python_version(),
        "nginx": _program_version(["nginx", "-v"]),
        "docker-registry": _program_version(["docker-registry", "--version"]),
        "OpenSSL of the clients": ssl.OPENSSL_VERSION.split()[1],
    }
    return [
        (
            f"Machine: {cores()} cores ({_processor()}), {_memory_gib():.0f} GiB of memory, "
            f"Linux {platform.release().partition('-')[0]}."
        ),
        "Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
    ]
