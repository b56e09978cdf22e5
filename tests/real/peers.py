"""The programs that the trials drive: found, or the test is skipped with the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from twisted.trial.unittest import FailTest, SkipTest

REQUIRE_VARIABLE = "REGPROXY_REQUIRE_PEERS"
"""Set to ``1``, it turns a missing peer from a skip into a failure."""

_DEBIAN_PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "ctr": "containerd",
    "curl": "curl",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "nginx": "nginx",
    "openssl": "openssl",
    "podman": "podman",
    "skopeo": "skopeo",
    "unshare": "util-linux",
    "update-ca-certificates": "ca-certificates",
}

# Debian keeps daemons in directories that are not on every user's PATH.
_DAEMON_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def find(program: str) -> str:
    """The full path of an installed program.

    Raises:
        SkipTest: it is not installed.
        FailTest: it is not installed, and ``REGPROXY_REQUIRE_PEERS=1``.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_DAEMON_DIRECTORIES))
    found = shutil.which(program, path=path)
    if found is None:
        raise missing(f"{program} is not installed (Debian package: {_DEBIAN_PACKAGES[program]})")
    return found


def need_root(program: str) -> None:
    """Returns when the process may do what ``program`` needs root for.

    Raises:
        SkipTest: another user runs the tests.
        FailTest: another user runs the tests, and ``REGPROXY_REQUIRE_PEERS=1``.
    """
    if os.geteuid() != 0:
        raise missing(f"{program} needs root here")


def missing(reason: str) -> Exception:
    """What to raise when something that a test needs is not there: a skip, or a failure."""
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        return FailTest(f"{reason}, and {REQUIRE_VARIABLE}=1")
    return SkipTest(reason)
