"""twistd finds regproxy after each documented way to install it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import FailTest, SkipTest, SynchronousTestCase

import regproxy
from tests.real.peers import REQUIRE_VARIABLE

ROOT = Path(regproxy.__file__).resolve().parent.parent

# What pip says when it cannot ask an index, or asks one that has nothing.
_NO_INDEX = re.compile("(Could not find a version that satisfies|No matching distribution).*")

_DEADLINE = 600.0  # seconds; packages are fetched, on a slow day
_NOT_SOURCE = shutil.ignore_patterns(
    ".*", "_build", "_trial_temp*", "__pycache__", "*.egg-info", "build", "dist", "dropin.cache"
)


class FreshEnvironmentTests(SynchronousTestCase):
    """Each test installs a copy of the checkout into a virtual environment of its own."""

    def setUp(self) -> None:
        """Copies the checkout, makes the environment, and a directory to be in that is neither."""
        scratch = Path(self.mktemp()).resolve()
        self.environment = scratch / "environment"
        self.checkout = scratch / "checkout"
        self.elsewhere = scratch / "elsewhere"
        shutil.copytree(ROOT, self.checkout, ignore=_NOT_SOURCE)
        self.elsewhere.mkdir()
        self.run_program(sys.executable, "-m", "venv", str(self.environment))
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)

    def run_program(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command away from the checkout, without help from our own environment."""
        ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        return subprocess.run(
            command,
            cwd=self.elsewhere,
            env={name: value for name, value in os.environ.items() if name not in ours},
            capture_output=True,
            check=False,
            text=True,
            timeout=_DEADLINE,
        )

    def in_environment(self, program: str, *arguments: str) -> str:
        """The standard output of one of the environment's programs, which must succeed."""
        done = self.run_program(str(self.environment / "bin" / program), *arguments)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def install(self, *arguments: str) -> None:
        """Runs ``pip install``.

        Raises:
            SkipTest: no package index answers.
            FailTest: none does, and ``REGPROXY_REQUIRE_PEERS=1``; or pip fails otherwise.
        """
        pip = str(self.environment / "bin" / "pip")
        done = self.run_program(pip, "install", "--disable-pip-version-check", *arguments)
        if done.returncode == 0:
            return
        unreachable = _NO_INDEX.search(done.stderr)
        if unreachable is not None and os.environ.get(REQUIRE_VARIABLE) != "1":
            raise SkipTest(f"pip has no package index to ask: {unreachable[0]}")
        raise FailTest(done.stderr)

    def assert_twistd_offers_regproxy(self) -> None:
        """Asserts that regproxy is listed, can be loaded, and leaves Twisted where it was."""
        listed = self.in_environment("twistd", "--help")
        self.assertRegex(listed, r"(?m)^ *regproxy +A caching proxy for container registries\.$")
        self.assertIn("--config", self.in_environment("twistd", "regproxy", "--help"))
        where = self.in_environment("python", "-c", "import twisted; print(twisted.__file__)")
        self.assertTrue(Path(where.strip()).is_relative_to(self.environment), where)

    def test_installed(self) -> None:
        """``pip install .`` is enough for twistd to list and load regproxy."""
        self.install(str(self.checkout))
        self.assert_twistd_offers_regproxy()
        version = self.in_environment(
            "python", "-c", "from importlib.metadata import version; print(version('regproxy'))"
        )
        self.assertEqual(version.strip(), regproxy.__version__)

    def test_editable(self) -> None:
        """``pip install --editable .`` is enough as well, and the code stays in the checkout."""
        self.install("--editable", str(self.checkout))
        self.assert_twistd_offers_regproxy()
        where = self.in_environment("python", "-c", "import regproxy; print(regproxy.__file__)")
        self.assertTrue(Path(where.strip()).is_relative_to(self.checkout), where)
