"""Upstreams that are stopped, gone, silent, or changed."""

from __future__ import annotations

import signal
import socket
import time

from tests.real.case import RealCase
from tests.real.images import ACCEPT
from tests.real.library import library, other_library
from tests.real.processes import CommandFailed, free_port
from tests.real.proxy import Settings, words
from tests.real.rawhttp import fetch
from tests.real.registries import Registry, Request, transfers

_TTL = "1s"
_AFTER_TTL = 1.2


class StoppedTests(RealCase):
    """The upstream answers no more."""

    def setUp(self) -> None:
        """Starts an upstream and a regproxy that believes a tag for a second."""
        super().setUp()
        self.registry = self.start_registry()
        self.proxy = self.start_proxy_for(self.registry, tag_ttl=_TTL)
        self.name = f"{self.proxy.host}/registry-a.test/team/app"

    def test_stale(self) -> None:
        """Stored tags are served after their time, and the log calls them STALE."""
        skopeo, images = self.skopeo(), library().images
        for tag in ("small", "multi"):
            skopeo.pull(f"{self.name}:{tag}")
        self.proxy.wait_for_fills()
        self.registry.process.stop()
        time.sleep(_AFTER_TTL)
        before = len(self.proxy.access_log())
        for tag in ("small", "multi"):
            self.assert_pulled(skopeo.pull(f"{self.name}:{tag}"), images[tag])
        log = self.proxy.access_log()[before:]
        self.assertEqual(words(log).count("STALE"), 2, log)
        self.assertEqual(set(words(log)), {"STALE", "HIT"}, log)
        answer = fetch(
            f"{self.proxy.url}/v2/registry-a.test/team/app/manifests/small", headers=ACCEPT
        )
        self.assertIn("stale", answer.headers["cache-status"])

    def test_hanging(self) -> None:
        """An upstream that hangs costs a moment once; then stored tags are served at once."""
        skopeo = self.skopeo()
        skopeo.pull(f"{self.name}:small")
        self.proxy.wait_for_fills()
        self.registry.process.signal(signal.SIGSTOP)
        time.sleep(_AFTER_TTL)
        url = f"{self.proxy.url}/v2/registry-a.test/team/app/manifests/small"
        lasted = []
        for _ in range(2):
            answer = fetch(url, headers=ACCEPT)
            self.assertEqual(answer.digest, library().images["small"].digest)
            self.assertIn("stale", answer.headers["cache-status"])
            lasted.append(answer.seconds)
        self.assertLess(lasted[0], 5.0)
        self.assertLess(lasted[1], 0.5)

    def test_stale_for_head(self) -> None:
        """Clients that begin with HEAD get their stale tag as well."""
        containerd = self.start_containerd()
        containerd.mirror("registry-a.test", self.proxy.url)
        image = library().images["small"]
        containerd.pull("registry-a.test/team/app:small")
        self.proxy.wait_for_fills()
        self.registry.process.stop()
        time.sleep(_AFTER_TTL)
        self.assert_pulled(containerd.pull("registry-a.test/team/app:small"), image)
        self.assertIn("STALE", words(self.proxy.access_log()))

    def test_never_pulled(self) -> None:
        """What is not stored is a bad gateway, not an unknown image."""
        self.registry.process.stop()
        answer = fetch(
            f"{self.proxy.url}/v2/registry-a.test/team/app/manifests/small", headers=ACCEPT
        )
        self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
        digest = library().images["small"].layers[0].blob.digest
        answer = fetch(f"{self.proxy.url}/v2/registry-a.test/team/app/blobs/{digest}")
        self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
        self.assertRaises(CommandFailed, self.skopeo().pull, f"{self.name}:small")

    def test_back_again(self) -> None:
        """An upstream that is back serves what is cold, at once."""
        skopeo = self.skopeo()
        skopeo.pull(f"{self.name}:small")
        self.proxy.wait_for_fills()
        self.registry.process.stop()
        time.sleep(_AFTER_TTL)
        skopeo.pull(f"{self.name}:small")
        storage = library().storage
        again = Registry.start(self.directory / "again", storage, port=self.registry.port)
        self.addCleanup(again.process.stop)
        self.assert_pulled(skopeo.pull(f"{self.name}:multi"), library().images["multi"])


class UnreachableTests(RealCase):
    """Nobody is there, or nobody who speaks."""

    def test_refused(self) -> None:
        """A refused connection is 502, and says which upstream it was."""
        registries = {"gone.test": f"http://127.0.0.1:{free_port()}"}
        proxy = self.start_proxy(Settings(registries, default_registry="gone.test"))
        answer = fetch(f"{proxy.url}/v2/gone.test/team/app/manifests/latest")
        self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
        self.assertIn(b"127.0.0.1 cannot be reached", answer.body)

    def test_silent(self) -> None:
        """An upstream that accepts and says nothing is 504 when the budget is spent."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            registries = {"mute.test": f"http://127.0.0.1:{silent.getsockname()[1]}"}
            proxy = self.start_proxy(
                Settings(registries, default_registry="mute.test", timeouts={"headers": "2s"})
            )
            digest = library().images["small"].digest
            for what in ("manifests/latest", f"manifests/{digest}", f"blobs/{digest}"):
                started = time.monotonic()
                answer = fetch(f"{proxy.url}/v2/mute.test/team/app/{what}")
                self.assertEqual((answer.status, answer.error_code()), (504, "UNKNOWN"), what)
                self.assertTrue(1.5 < time.monotonic() - started < 6.0, what)


class TagTests(RealCase):
    """Tags whose time is over, and tags that move."""

    def setUp(self) -> None:
        """Starts an upstream of the test's own, holding one tag, and a regproxy."""
        super().setUp()
        self.registry = self.start_registry(storage=self.directory / "storage")
        self.first = library().images["small"]
        self.second = other_library().images["small"]
        self.registry.push("team/app", "moving", self.first)
        self.pushed = len(self.registry.requests())
        self.name = "registry-a.test/team/app:moving"

    def test_revalidated(self) -> None:
        """After its time a tag costs one HEAD upstream, and the manifest is not sent again."""
        proxy = self.start_proxy_for(self.registry, tag_ttl=_TTL)
        skopeo = self.skopeo()
        self.assert_pulled(skopeo.pull(f"{proxy.host}/{self.name}"), self.first)
        proxy.wait_for_fills()
        time.sleep(_AFTER_TTL)
        before = len(proxy.access_log())
        self.assert_pulled(skopeo.pull(f"{proxy.host}/{self.name}"), self.first)
        log = proxy.access_log()[before:]
        self.assertEqual(words(log).count("REVALIDATED"), 1, log)
        self.assertEqual(set(words(log)), {"REVALIDATED", "HIT"}, log)
        asked = [each.method for each in self._asked_for("manifests/moving")]
        self.assertEqual(asked, ["GET", "HEAD"])
        self.assertEqual(set(transfers(self.registry.requests()[self.pushed :]).values()), {1})

    def test_moved(self) -> None:
        """A moved tag is seen when its time is over."""
        proxy = self.start_proxy_for(self.registry, tag_ttl=_TTL)
        skopeo = self.skopeo()
        self.assert_pulled(skopeo.pull(f"{proxy.host}/{self.name}"), self.first)
        self.registry.push("team/app", "moving", self.second)
        time.sleep(_AFTER_TTL)
        self.assert_pulled(skopeo.pull(f"{proxy.host}/{self.name}"), self.second)

    def test_fresh(self) -> None:
        """Within its time a tag means what it meant, and upstream is not asked."""
        proxy = self.start_proxy_for(self.registry, tag_ttl="1h")
        skopeo = self.skopeo()
        skopeo.pull(f"{proxy.host}/{self.name}")
        self.registry.push("team/app", "moving", self.second)
        self.assert_pulled(skopeo.pull(f"{proxy.host}/{self.name}"), self.first)
        asked = [each.method for each in self._asked_for("manifests/moving")]
        self.assertEqual(asked, ["GET", "PUT"])

    def _asked_for(self, what: str) -> list[Request]:
        requests = self.registry.requests()[self.pushed :]
        return [each for each in requests if each.target.endswith(what)]
