"""kill -9: at no moment may it leave a blob that is not what its name says."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import Future, ThreadPoolExecutor

from tests.real.case import RealCase
from tests.real.clients import Pulled
from tests.real.library import library
from tests.real.processes import CommandFailed, wait_until
from tests.real.rawhttp import Answer, fetch

_MIB = 1 << 20


class KilledTests(RealCase):
    """The process is killed, and another one is started on the same cache."""

    def test_in_the_middle_of_a_fill(self) -> None:
        """Nothing of an unfinished blob is served; the next pull is whole."""
        host = self.start_storage_host(rate=64 * _MIB)
        proxy = self.start_proxy_for(self.start_registry(redirect=host.url))
        image = library().images["large"]
        blob = image.layers[-1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"

        def half_written() -> bool:
            return any(part.stat().st_size > 32 * _MIB for part in proxy.parts())

        with ThreadPoolExecutor(1) as threads:
            client: Future[Answer] = threads.submit(fetch, url)
            wait_until(half_written, 20.0, "a part of 32 MiB", proxy.process.tail)
            proxy.process.kill()
            failure = client.exception(timeout=20.0)
        self.assertIsInstance(failure, OSError | http.client.HTTPException)
        self.assertEqual(proxy.stored(), [])
        proxy.restart()
        name = f"{proxy.host}/registry-a.test/team/app:large"
        self.assert_pulled(self.skopeo().pull(name), image)
        self.assertEqual(proxy.unverified(), [])
        self.assertEqual(len(proxy.stored()), len(image.blobs) + 1)
        self.assertEqual(proxy.parts(), [])

    def test_at_any_moment(self) -> None:
        """Killed again and again during pulls, it serves exactly what was verified."""
        proxy = self.start_proxy_for(self.start_registry())
        name = f"{proxy.host}/registry-a.test/team/app:medium"
        image = library().images["medium"]
        for delay in (0.05, 0.12, 0.2, 0.3, 0.5):
            skopeo = self.skopeo()
            with ThreadPoolExecutor(1) as threads:
                pull: Future[Pulled] = threads.submit(skopeo.pull, name)
                time.sleep(delay)
                proxy.process.kill()
                failure = pull.exception(timeout=60.0)
            self.assertIsInstance(failure, CommandFailed | None)
            self.assertEqual(proxy.unverified(), [])
            proxy.restart()
        self.assert_pulled(self.skopeo().pull(name), image)
        self.assertEqual(proxy.unverified(), [])

    def test_what_was_verified_stays(self) -> None:
        """A killed process's whole images are served by the next one, without upstream."""
        registry = self.start_registry()
        proxy = self.start_proxy_for(registry)
        name = f"{proxy.host}/registry-a.test/team/app"
        self.skopeo().pull(f"{name}:small")
        proxy.access_log()
        wait_until(lambda: not proxy.parts(), 10.0, "the fills to end")
        time.sleep(1.0)
        proxy.process.kill()
        registry.process.stop()
        proxy.restart()
        image = library().images["small"]
        self.assert_pulled(self.skopeo().pull(f"{name}:small"), image)
        self.assert_pulled(self.skopeo().pull(f"{name}@{image.digest}"), image)

    def test_stopped_and_started(self) -> None:
        """After a clean end as well."""
        registry = self.start_registry()
        proxy = self.start_proxy_for(registry)
        name = f"{proxy.host}/registry-a.test/team/app:multi"
        self.skopeo().pull(name)
        proxy.stop()
        registry.process.stop()
        proxy.restart()
        self.assert_pulled(self.skopeo().pull(name), library().images["multi"])
