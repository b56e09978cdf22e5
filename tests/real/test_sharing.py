"""Many clients and one transfer; many registries and no confusion."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

from tests.real.case import RealCase
from tests.real.images import ACCEPT
from tests.real.library import library, other_library
from tests.real.processes import wait_until
from tests.real.proxy import Settings, counted
from tests.real.rawhttp import fetch, fetch_together
from tests.real.registries import transfers

_CLIENTS = 8
_MIB = 1 << 20


class HerdTests(RealCase):
    """Eight clients want the same cold content at the same moment."""

    def test_skopeo(self) -> None:
        """One image, pulled by eight: every blob and the manifest cross the wire once."""
        registry = self.start_registry()
        proxy = self.start_proxy_for(registry)
        image = library().images["medium"]
        name = f"{proxy.host}/registry-a.test/team/app:medium"
        clients = [self.skopeo() for _ in range(_CLIENTS)]
        with ThreadPoolExecutor(_CLIENTS) as threads:
            for pulled in threads.map(lambda client: client.pull(name), clients):
                self.assert_pulled(pulled, image)
        requests = registry.requests()
        self.assertEqual(transfers(requests), {blob.digest: 1 for blob in image.blobs})
        asked = [each for each in requests if each.target.endswith("manifests/medium")]
        self.assertEqual([each.method for each in asked], ["GET"])

    def test_large_blob(self) -> None:
        """A layer of over 200 MB, fetched by eight, crosses the wire once."""
        registry = self.start_registry()
        proxy = self.start_proxy_for(registry)
        blob = library().images["large"].layers[-1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        for answer in fetch_together(url, _CLIENTS):
            self.assertEqual((answer.size, answer.digest), (blob.size, blob.digest))
        self.assertEqual(transfers(registry.requests()), {blob.digest: 1})
        proxy.wait_for_fills()
        self.assertEqual(fetch(url).headers["cache-status"], "regproxy; hit")

    def test_large_blob_over_tls(self) -> None:
        """The same over TLS, for two, and a range of it afterwards."""
        proxy = self.start_proxy_for(self.start_registry())
        blob = library().images["large"].layers[-1].blob
        url = f"{proxy.tls_url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        trust = proxy.certificates.trust()
        with ThreadPoolExecutor(2) as threads:
            for answer in threads.map(lambda _: fetch(url, trust=trust), range(2)):
                self.assertEqual((answer.size, answer.digest), (blob.size, blob.digest))
        tail = fetch(url, headers={"Range": "bytes=-1000"}, trust=trust)
        with blob.path.open("rb") as content:
            content.seek(-1000, os.SEEK_END)
            self.assertEqual(tail.body, content.read())

    def test_joiners_stream(self) -> None:
        """From a slow upstream everybody gets bytes while the transfer runs, and one of it."""
        host = self.start_storage_host(rate=4 * _MIB)
        proxy = self.start_proxy_for(self.start_registry(redirect=host.url))
        blob = library().images["medium"].layers[1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        answers = fetch_together(url, _CLIENTS)
        for answer in answers:
            self.assertEqual((answer.status, answer.digest), (200, blob.digest))
            self.assertGreater(answer.seconds, 1.0)
            self.assertLess(answer.first_byte, answer.seconds / 2)
        self.assertEqual(transfers(host.requests()), {blob.digest: 1})
        self.assertEqual(counted(proxy.access_log()), {"MISS": 1, "JOIN": _CLIENTS - 1})
        said = sorted(answer.headers["cache-status"] for answer in answers)
        self.assertEqual(sum("collapsed" in each for each in said), _CLIENTS - 1, said)

    def test_ranges_of_a_fill(self) -> None:
        """A range is served while its blob is still on its way, from the same transfer."""
        host = self.start_storage_host(rate=4 * _MIB)
        proxy = self.start_proxy_for(self.start_registry(redirect=host.url))
        blob = library().images["medium"].layers[2].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        content = blob.path.read_bytes()
        with ThreadPoolExecutor(3) as threads:
            whole = threads.submit(fetch, url)
            wait_until(lambda: bool(host.requests() or proxy.parts()), 10.0, "the fill to start")
            early = threads.submit(fetch, url, headers={"Range": "bytes=1000-1999"})
            late = threads.submit(fetch, url, headers={"Range": f"bytes={blob.size - 10}-"})
            self.assertEqual(early.result().body, content[1000:2000])
            self.assertFalse(whole.done())
            self.assertEqual(late.result().body, content[-10:])
            self.assertEqual(whole.result().digest, blob.digest)
        self.assertEqual((early.result().status, late.result().status), (206, 206))
        self.assertEqual(transfers(host.requests()), {blob.digest: 1})

    def test_client_leaves(self) -> None:
        """A fill goes on when its only client hangs up; the next one finds it."""
        host = self.start_storage_host(rate=8 * _MIB)
        proxy = self.start_proxy_for(self.start_registry(redirect=host.url))
        blob = library().images["medium"].layers[3].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        left = fetch(url, until=lambda received: received > 100_000)
        self.assertLess(left.size, blob.size)
        wait_until(lambda: bool(proxy.stored()), 15.0, "the fill to end by itself")
        answer = fetch(url)
        self.assertEqual(answer.digest, blob.digest)
        self.assertEqual(answer.headers["cache-status"], "regproxy; hit")
        self.assertEqual(transfers(host.requests()), {blob.digest: 1})


class SharedDirectoryTests(RealCase):
    """Two regproxies on one cache directory."""

    def setUp(self) -> None:
        """Starts both, in front of one slow upstream."""
        super().setUp()
        self.host = self.start_storage_host(rate=4 * _MIB)
        registry = self.start_registry(redirect=self.host.url)
        cache = self.directory / "cache"
        self.one, self.other = (self.start_proxy_for(registry, cache=cache) for _ in range(2))
        self.blob = library().images["medium"].layers[1].blob
        self.path = f"/v2/registry-a.test/team/app/blobs/{self.blob.digest}"

    def test_one_transfer(self) -> None:
        """Whoever is asked, one of them fetches, and the other's clients read along."""
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(fetch, self.one.url + self.path)
            wait_until(lambda: bool(self.one.parts()), 10.0, "the fill to start")
            second = threads.submit(fetch, self.other.url + self.path)
            answers = first.result(), second.result()
        for answer in answers:
            self.assertEqual((answer.status, answer.digest), (200, self.blob.digest))
        self.assertLess(answers[1].first_byte, answers[1].seconds / 2)
        self.assertEqual(transfers(self.host.requests()), {self.blob.digest: 1})
        for proxy in (self.one, self.other):
            hit = fetch(proxy.url + self.path)
            self.assertEqual(hit.headers["cache-status"], "regproxy; hit")

    def test_killed(self) -> None:
        """When the one that fetches is killed, the other's client still gets its blob whole."""
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(fetch, self.one.url + self.path)
            wait_until(lambda: bool(self.one.parts()), 10.0, "the fill to start")
            second = threads.submit(fetch, self.other.url + self.path)
            time.sleep(0.5)
            self.one.process.kill()
            self.assertRaises((OSError, HTTPException), first.result)
            answer = second.result()
        self.assertEqual((answer.status, answer.digest), (200, self.blob.digest))


class SeveralRegistriesTests(RealCase):
    """One regproxy for registries in which the same names mean different things."""

    def setUp(self) -> None:
        """Starts two upstreams; both have ``team/app:small``."""
        super().setUp()
        self.a = self.start_registry("a")
        self.b = self.start_registry("b", storage=other_library().storage)
        registries = {"registry-a.test": self.a.url, "registry-b.test": self.b.url}
        self.proxy = self.start_proxy(
            Settings(registries, default_registry="registry-b.test", aliases={})
        )
        self.images = {
            "registry-a.test": library().images["small"],
            "registry-b.test": other_library().images["small"],
        }

    def test_images(self) -> None:
        """Each registry's image is its own, cold, warm and interleaved."""
        skopeo = self.skopeo()
        for _ in range(2):
            for name, image in self.images.items():
                reference = f"{self.proxy.host}/{name}/team/app:small"
                self.assert_pulled(skopeo.pull(reference), image)
        mirrored = skopeo.pull(f"{self.proxy.host}/team/app:small")
        self.assert_pulled(mirrored, self.images["registry-b.test"])

    def test_namespaces(self) -> None:
        """The same holds where ``ns`` says the registry, for containerd."""
        containerd = self.start_containerd()
        for name in self.images:
            containerd.mirror(name, self.proxy.url)
        for _ in range(2):
            for name, image in self.images.items():
                self.assert_pulled(containerd.pull(f"{name}/team/app:small"), image)

    def test_at_once(self) -> None:
        """Asked for at the same moment, the two stay apart."""
        barrier = threading.Barrier(_CLIENTS)

        def ask(name: str) -> tuple[str, str]:
            barrier.wait()
            url = f"{self.proxy.url}/v2/{name}/team/app/manifests/small"
            return name, fetch(url, headers=ACCEPT).digest

        with ThreadPoolExecutor(_CLIENTS) as threads:
            for name, digest in threads.map(ask, [*self.images] * (_CLIENTS // 2)):
                self.assertEqual(digest, self.images[name].digest)

    def test_content_is_not_shared_by_guessing(self) -> None:
        """A blob of one registry is unknown in the other, stored or not."""
        layer = self.images["registry-a.test"].layers[1].blob
        self.skopeo().pull(f"{self.proxy.host}/registry-a.test/team/app:small")
        answer = fetch(f"{self.proxy.url}/v2/registry-b.test/team/app/blobs/{layer.digest}")
        self.assertEqual((answer.status, answer.error_code()), (404, "BLOB_UNKNOWN"))
