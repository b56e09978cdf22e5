"""How many clients the process has descriptors for."""

from __future__ import annotations

from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front import descriptors


class AffordableTests(SynchronousTestCase):
    """The process's limits, and what is made of them."""

    def affordable(self, soft: int, hard: int, connections: int) -> tuple[int, int]:
        """The clients that may be connected, and the soft limit afterwards."""
        limits = [(soft, hard)]
        self.patch(descriptors, "getrlimit", lambda _: limits[-1])
        self.patch(descriptors, "setrlimit", lambda _, both: limits.append(both))
        found = descriptors.affordable(connections)
        self.assertEqual(limits[-1][1], hard)
        return found, limits[-1][0]

    def test_raised(self) -> None:
        """The soft limit is raised as far as is of use, and is allowed."""
        for soft, hard, expected in [
            (1024, 524_288, 30_512),
            (1024, RLIM_INFINITY, 30_512),
            (1024, 20_000, 20_000),
            (65_536, 524_288, 65_536),
            (RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY),
        ]:
            with capturedLogs() as logged:
                self.assertEqual(self.affordable(soft, hard, 10_000), (10_000, expected))
            self.assertEqual(logged, [])

    def test_too_few(self) -> None:
        """Clients leave a quarter to files and upstreams, and the operator is told so, once."""
        with capturedLogs() as logged:
            self.assertEqual(self.affordable(1024, 4096, 10_000), (3072, 4096))
            self.assertEqual(self.affordable(150, 150, 10_000), (113, 150))
        self.assertEqual(
            [(each["room"], each["connections"]) for each in logged],
            [(3072, 10_000), (113, 10_000)],
        )

    def test_few_wanted(self) -> None:
        """An operator's own limit is never exceeded."""
        self.assertEqual(self.affordable(1024, 4096, 100), (100, 1024))

    def test_this_process(self) -> None:
        """The kernel takes what is asked of it."""
        before = getrlimit(RLIMIT_NOFILE)
        self.addCleanup(setrlimit, RLIMIT_NOFILE, before)
        lower = 256
        setrlimit(RLIMIT_NOFILE, (lower, before[1]))
        self.assertEqual(descriptors.affordable(300), 300)
        self.assertEqual(getrlimit(RLIMIT_NOFILE), (1412, before[1]))
