"""Blobs that are cut, fall silent, are wrong, or cannot be kept."""

from __future__ import annotations

import http.client
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from tests.real import peers
from tests.real.case import RealCase
from tests.real.daemons import unmount_below
from tests.real.images import Blob
from tests.real.library import library
from tests.real.processes import CommandFailed, run, wait_until
from tests.real.proxy import Proxy, words
from tests.real.rawhttp import fetch
from tests.real.registries import StorageHost

_MIB = 1 << 20
_CUT = (OSError, http.client.HTTPException)


class CutTests(RealCase):
    """The storage host does not get to the end of a blob."""

    def setUp(self) -> None:
        """Starts a slow storage host, and what redirects to it."""
        super().setUp()
        self.host = self.start_storage_host(rate=2 * _MIB)
        self.registry = self.start_registry(redirect=self.host.url)
        self.proxy = self.start_proxy_for(self.registry, timeouts={"silence": "2s"})
        self.blob = library().images["medium"].layers[1].blob
        self.url = f"{self.proxy.url}/v2/registry-a.test/team/app/blobs/{self.blob.digest}"

    def test_back_again(self) -> None:
        """The transfer resumes where it was cut, and the client notices nothing."""
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(fetch, self.url)
            self.wait_for_some()
            self.host.process.kill()
            time.sleep(0.7)
            self.assertFalse(client.done())
            directory, storage = self.directory / "again", library().storage
            again = StorageHost.start(directory, storage, port=self.host.port)
            self.addCleanup(again.process.stop)
            self.assertEqual(client.result().digest, self.blob.digest)
        (request,) = again.requests()
        self.assertEqual(request.status, 206)
        self.assertLess(request.size, self.blob.size - _MIB)

    def test_silent(self) -> None:
        """A transfer without a byte for the configured time counts as cut, and resumes as well."""
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(fetch, self.url)
            self.wait_for_some()
            self.host.process.signal(signal.SIGSTOP)
            time.sleep(3.5)
            self.assertFalse(client.done())
            self.assertIn("sent nothing for 2 s", self.proxy.application_log())
            self.host.process.signal(signal.SIGCONT)
            self.assertEqual(client.result().digest, self.blob.digest)

    def test_gone(self) -> None:
        """When nobody comes back, the client is told by a cut connection; nothing is kept."""
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(fetch, self.url)
            self.wait_for_some()
            self.host.process.kill()
            self.assertIsInstance(client.exception(timeout=45.0), _CUT)
        self.assertEqual(self.proxy.stored(), [])
        self.assertEqual(self.proxy.parts(), [])

    def wait_for_some(self) -> None:
        """Returns when a part of the blob is there."""

        def some() -> bool:
            return any(part.stat().st_size > _MIB for part in self.proxy.parts())

        wait_until(some, 10.0, "a MiB of the blob", self.proxy.process.tail)


class WrongBytesTests(RealCase):
    """The upstream sends another blob than was asked for."""

    def setUp(self) -> None:
        """Starts a registry on whose disk one byte of a layer has changed."""
        super().setUp()
        storage = self.directory / "storage"
        self.registry = self.start_registry(storage=storage)
        self.image = library().images["small"]
        self.registry.push("team/app", "small", self.image)
        self.blob = self.image.layers[1].blob
        (path,) = storage.rglob(f"blobs/sha256/*/{self.blob.path.name}/data")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        self.proxy = self.start_proxy_for(self.registry)

    def test_no_whole_body(self) -> None:
        """Nobody gets the whole of it, not by ranges either, and nothing of it is kept."""
        url = f"{self.proxy.url}/v2/registry-a.test/team/app/blobs/{self.blob.digest}"
        for headers in ({}, {"Range": "bytes=1000-"}, {"Range": "bytes=-1"}, {}):
            try:
                answer = fetch(url, headers=headers)
            except _CUT:
                continue
            self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
        self.assertEqual(self.proxy.stored(), [])
        # The log says what was promised and what came.
        self.assertIn(self.blob.digest.removeprefix("sha256:"), self.proxy.application_log())

    def test_skopeo(self) -> None:
        """A pull fails, as it does without the proxy."""
        name = f"{self.proxy.host}/registry-a.test/team/app:small"
        self.assertRaises(CommandFailed, self.skopeo().pull, name)


class FullDiskTests(RealCase):
    """The cache directory is a file system that is too small."""

    def start_on(self, size: int) -> Proxy:
        """A regproxy with that many bytes for its cache."""
        peers.need_root("mount")
        cache = self.directory / "regproxy1/cache"
        cache.mkdir(parents=True)
        options = f"size={size}"
        made = run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(cache)], check=False)
        if made.status != 0:
            raise peers.missing(f"no tmpfs can be mounted here: {made.stderr.strip()}")
        self.addCleanup(unmount_below, self.directory)
        return self.start_proxy_for(self.start_registry())

    def test_pull(self) -> None:
        """The pull succeeds all the same, for one client and for those who joined it."""
        proxy = self.start_on(12 * _MIB)
        image = library().images["medium"]
        name = f"{proxy.host}/registry-a.test/team/app:medium"
        clients = [self.skopeo() for _ in range(3)]
        with ThreadPoolExecutor(len(clients)) as threads:
            for pulled in threads.map(lambda client: client.pull(name), clients):
                self.assert_pulled(pulled, image)
        self.assertIn("RELAY", words(proxy.access_log()))

    def test_one_large_blob(self) -> None:
        """Most of a blob does not fit: each client still gets it whole, ranges too."""
        proxy = self.start_on(20 * _MIB)
        blob: Blob = library().images["large"].layers[-1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        with ThreadPoolExecutor(3) as threads:
            for answer in threads.map(fetch, [url] * 3):
                self.assertEqual((answer.status, answer.digest), (200, blob.digest))
        answer = fetch(url, headers={"Range": f"bytes={blob.size - 100}-"})
        self.assertEqual((answer.status, answer.size), (206, 100))
        self.assertEqual(proxy.stored(), [])
