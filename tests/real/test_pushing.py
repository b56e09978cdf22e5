"""Pushes through a relay: skopeo, podman, docker and containerd, and each step of an upload."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.real import instructions
from tests.real.case import RealCase
from tests.real.clients import Fetched, Podman, Pulled, curl, write_image
from tests.real.images import ACCEPT, Blob, Format, Layer, Manifest, Noise, make_image
from tests.real.library import library
from tests.real.machine import PROXY_ADDRESS
from tests.real.machine_case import LISTENERS, MachineCase
from tests.real.processes import CommandFailed, free_port
from tests.real.proxy import Proxy, Settings
from tests.real.rawhttp import Answer, fetch
from tests.real.registries import Registry

CORP = "registry.corp:5000"
_MIB = 1 << 20


def new_images(directory: Path) -> list[Manifest]:
    """One with a layer of 40 MiB, and two small ones of other content."""
    base = Layer.make(directory, {"etc/release": Noise(200, 5_000)})
    contents = [{"srv/big": Noise(201, 40 * _MIB)}, {"srv/b": Noise(202, 9_000)}, {}]
    own = [Layer.make(directory, files, level=0) for files in contents if files]
    chosen = [[base, own[0]], [base, own[1]], [base]]
    return [make_image(directory, layers, Format.OCI) for layers in chosen]


class ClientTests(MachineCase):
    """push.md on a client's machine: a registry that takes pushes, and one that does not."""

    def setUp(self) -> None:
        """Starts a regproxy with the registry of the page's sample."""
        super().setUp()
        self.upstream = self.start_registry("corp", storage=self.directory / "corp/storage")
        sample = tomllib.loads(instructions.block("push", "toml", 'push = "relay"'))
        table = sample["registries"][CORP]
        self.start_named_proxy(
            (*LISTENERS, {"endpoint": "tcp:443", "tls": True}),
            registries={CORP: self.upstream.url},
            aliases={CORP: table["aliases"]},
            registry_keys={CORP: {"push": table["push"]}},
        )
        self.podman_here = Podman.configured(self.directory / "podman", "")
        self.podman_here.furnish(self.machine.etc / "containers")
        self.images = new_images(self.directory)
        commands = instructions.commands("tls", "-o regproxy-ca.crt")
        self.machine.run(f"{commands}install -D -m 0644 regproxy-ca.crt certs/ca.crt")

    def push(self, number: int, command: str) -> None:
        """Runs a command with one of the images in ``dir:app``, then pulls what it tagged.

        The pull comes right behind the push, and the one before it has left the tag in the cache.
        """
        image = self.images[number]
        self.machine.run("rm -rf app")
        write_image(self.machine.directory / "app", image)
        self.machine.run(command)
        self.assert_pulled(self.pulled(), image)
        direct = self.skopeo().pull(f"127.0.0.1:{self.upstream.port}/team/app:1.0")
        self.assert_pulled(direct, image)

    def pulled(self) -> Pulled:
        """The tag, as it comes through the proxy."""
        return self.skopeo().pull(f"{self.proxy.host}/registry.corp/team/app:1.0")

    def assert_relayed(self, way: str) -> None:
        """Every step of a push went through the proxy, by that way in, and its bytes with it."""
        log = [line for line in self.proxy.access_log() if line["method"] in {"PATCH", "PUT"}]
        self.assertEqual({line["status"] for line in log}, {"201", "202"})
        said = {(each["way"], each["registry"], each["repository"]) for each in log}
        self.assertEqual(said, {(way, CORP, "team/app")})
        self.assertGreater(sum(int(line.get("received", 0)) for line in log), 40 * _MIB)

    def test_path_prefix(self) -> None:
        """On the plain listener by the page's command, and on the TLS listener."""
        before = memory(self.proxy)
        self.push(0, instructions.commands("push", "skopeo copy"))
        self.assertLess(memory(self.proxy) - before, 16 * _MIB)
        tls = "docker://proxy.example:5443/registry.corp/team/app:1.0"
        self.push(1, f"skopeo copy --dest-cert-dir certs dir:app {tls}")
        self.push(0, f"skopeo copy --dest-cert-dir certs dir:app {tls}")
        self.assert_relayed("prefix")

    def test_connect(self) -> None:
        """The registry's own name, with HTTPS_PROXY."""
        push = (
            "HTTPS_PROXY=http://proxy.example:5000 "
            f"skopeo copy --dest-cert-dir certs dir:app docker://{CORP}/team/app:1.0"
        )
        self.push(0, push)
        self.push(1, push)
        self.assert_relayed("connect")

    def test_interception(self) -> None:
        """The registry's own name leads to the proxy: over TLS, and by Host alone."""
        self.machine.know(f"{PROXY_ADDRESS} registry.corp\n")
        tls = "--dest-cert-dir certs dir:app docker://registry.corp/team/app:1.0"
        plain = f"--dest-tls-verify=false dir:app docker://{CORP}/team/app:1.0"
        for number, how in ((0, tls), (1, plain), (2, tls), (0, plain)):
            self.push(number, f"skopeo copy {how}")
        self.assert_relayed("interception")

    def test_podman(self) -> None:
        """The page's command; podman packs the layers anew, so the digest is podman's own."""
        write_image(self.machine.directory / "app", self.images[1])
        push = instructions.commands("push", "podman push").strip()
        self.machine.run(
            f"podman tag $(podman pull --quiet dir:app) team/app:1.0\n{push} --digestfile=digest"
        )
        digest = (self.machine.directory / "digest").read_text()
        pulled = self.pulled()
        self.assertEqual((pulled.digests, pulled.files), ({digest}, self.images[1].files))

    def test_skopeo(self) -> None:
        """skopeo.md's command, which is for another repository."""
        image = self.images[1]
        write_image(self.machine.directory / "busybox", image)
        self.machine.run(instructions.commands("skopeo", "dir:busybox docker://"))
        name = f"127.0.0.1:{self.upstream.port}/team/busybox:latest"
        self.assert_pulled(self.skopeo().pull(name), image)

    def test_docker(self) -> None:
        """By path prefix docker pushes, and mounts what the registry has from another name."""
        docker = self.start_docker(self.proxy.url)
        name = f"{self.proxy.host}/registry.corp/team"
        docker.push("app:small", f"{name}/app:1.0")
        self.assertEqual(self.pulled().files, library().images["small"].files)
        sent = steps(self.upstream, "PATCH")
        docker.push(f"{name}/app:1.0", f"{name}/other:2.0")
        # The configuration: docker mounts layers alone.
        self.assertEqual(steps(self.upstream, "PATCH"), sent + 1)
        other = self.skopeo().pull(f"{name}/other:2.0")
        self.assertEqual(other.files, library().images["small"].files)

    def test_containerd(self) -> None:
        """The page's hosts.toml has containerd push by path prefix."""
        self.push(1, instructions.commands("push", "skopeo copy"))
        hosts = self.machine.etc / "containerd/certs.d"
        toml = hosts / CORP / "hosts.toml"
        toml.parent.mkdir(parents=True)
        toml.write_text(instructions.block("push", "toml", "capabilities"))
        containerd = self.start_containerd(machine=self.machine)
        ctr = f"ctr --address={containerd.directory}/sock images"
        hosts_dir = "--hosts-dir=/etc/containerd/certs.d"
        self.machine.run(
            f"{ctr} pull {hosts_dir} --snapshotter=native {CORP}/team/app:1.0\n"
            f"{ctr} push {hosts_dir} {CORP}/new/app:1.0 {CORP}/team/app:1.0"
        )
        new = self.skopeo().pull(f"127.0.0.1:{self.upstream.port}/new/app:1.0")
        self.assert_pulled(new, self.images[1])
        ways = {each["way"] for each in self.proxy.access_log() if each["repository"] == "new/app"}
        self.assertEqual(ways, {"prefix"})

    def test_denied(self) -> None:
        """What no registry's table allows is refused with a message that clients show."""
        write_image(self.machine.directory / "app", self.images[1])
        why = 'pushing to quay.io through this proxy is not offered; push = "relay"'
        name = f"{self.proxy.host}/quay.io/team"
        push = f"skopeo copy --dest-tls-verify=false dir:app docker://{name}/new:1.0"
        failure = self.assertRaises(CommandFailed, self.machine.run, push)
        self.assertIn(why, str(failure).replace("\\", ""))
        docker = self.start_docker()
        failure = self.assertRaises(CommandFailed, docker.push, f"{name}/app:small", f"{name}/new")
        self.assertIn(why, str(failure))
        # A client that sends all of a layer at once reads the answer nevertheless.
        layer = str(self.images[0].layers[1].blob.path)
        upload = f"{self.proxy.url}/v2/quay.io/team/app/blobs/uploads/"
        for waits in ((), ("-H", "Expect:")):
            got = curl("-X", "POST", "-T", layer, *waits, upload + "?digest=sha256:0")
            self.assertEqual((got.exit_status, got.status), (0, 405), got)
        refused = [line for line in self.proxy.access_log() if line["method"] == "POST"]
        self.assertEqual({line["status"] for line in refused}, {"405"})
        self.assertEqual(steps(self.registry, "POST"), 0)


class UploadTests(RealCase):
    """Each step of an upload, where registries name all sorts of places for the next one."""

    def start(self, **http: object) -> None:
        """Starts a registry with settings for its URLs, and a regproxy."""
        port = free_port()
        if "host" in http:
            http["host"] = f"http://{http['host']}:{port}"
        storage = self.directory / "new/storage"
        self.upstream = self.start_registry("new", storage=storage, http=http, port=port)
        self.proxy = self.start_proxy(
            Settings(
                {"corp.test": self.upstream.url, "other.test": "http://127.0.0.1:1"},
                default_registry="corp.test",
                registry_keys={"corp.test": {"push": "relay"}},
            )
        )
        self.base = f"{self.proxy.url}/v2/corp.test/team/app"
        self.images = new_images(self.directory)

    def assert_uploads(self) -> None:
        """Every kind of upload ends well, and no step of it leads anywhere but to the proxy."""
        big = self.images[0].layers[1].blob
        self.assert_chunked(big, self.base)
        self.assert_monolithic(self.images[0].layers[0].blob, self.base)
        # A client that was led here by the registry's name keeps on using that name.
        host = ("-H", "Host: corp.test")
        config = self.images[1].config
        assert config is not None
        opened = self.step("http://corp.test/v2/team/app", "POST", "/blobs/uploads/", *host)
        self.assertTrue(location(opened).startswith("http://corp.test/v2/team/app/blobs/uploads/"))
        name = f"{self.proxy.host}/corp.test/team/app:1.0"
        for image in (self.images[1], self.images[0], self.images[2]):
            source = write_image(self.directory / image.digest[-9:], image)
            skopeo = self.skopeo("--dest-tls-verify=false")
            skopeo.copy(f"dir:{source}", *skopeo.arguments, destination=f"docker://{name}")
            self.assert_pulled(self.skopeo().pull(name), image)

    def assert_chunked(self, blob: Blob, base: str) -> None:
        """Uploads in two pieces, asking in between how far the registry is."""
        half = blob.size // 2
        content = blob.path.read_bytes()
        there = location(self.step(base, "POST", "/blobs/uploads/"))
        for start, piece in ((0, content[:half]), (half, content[half:])):
            path = self.directory / "piece"
            path.write_bytes(piece)
            span = f"Content-Range: {start}-{start + len(piece) - 1}"
            there = location(self.step(there, "PATCH", "", "-H", span, body=path))
            asked = fetch(there)
            self.assertEqual(asked.status, 204)
            self.assertEqual(asked.headers["range"], f"0-{start + len(piece) - 1}")
            there = asked.headers.get("location", there)
        self.assert_there(self.step(there, "PUT", f"&digest={blob.digest}"), blob)

    def assert_monolithic(self, blob: Blob, base: str) -> None:
        """Uploads with one PUT."""
        there = location(self.step(base, "POST", "/blobs/uploads/"))
        self.assert_there(self.step(there, "PUT", f"&digest={blob.digest}", body=blob.path), blob)

    def assert_there(self, done: Fetched, blob: Blob) -> None:
        """The registry said 201, and where the blob is now: at the proxy, by its plain name."""
        self.assertEqual((done.status, location(done)), (201, f"{self.base}/blobs/{blob.digest}"))
        answer: Answer = fetch(location(done))
        self.assertEqual((answer.status, answer.digest), (200, blob.digest))

    def step(
        self, url: str, method: str, more: str, *arguments: str, body: Path | None = None
    ) -> Fetched:
        """One request; its headers come with its body, and what it names is at the proxy."""
        url = url.replace("http://corp.test/", f"{self.proxy.url}/")
        sent = ("--data-binary", f"@{body}") if body else ("-H", "Content-Length: 0")
        kind = ("-H", "Content-Type: application/octet-stream")
        got = curl("-i", "-X", method, *sent, *kind, *arguments, url + more)
        self.assertIn(got.status, {201, 202}, got)
        ours = (f"{self.base}/blobs/", "http://corp.test/v2/team/app/blobs/")
        self.assertTrue(location(got).startswith(ours), got)
        return got

    def test_absolute(self) -> None:
        """The registry names its own URL."""
        self.start()
        self.assert_uploads()

    def test_relative(self) -> None:
        """The registry names paths."""
        self.start(relativeurls=True)
        self.assert_uploads()

    def test_elsewhere(self) -> None:
        """The registry names another origin."""
        self.start(host="localhost")
        self.assert_uploads()
        self.assertNotIn("localhost", curl("-i", "-X", "POST", f"{self.base}/blobs/uploads/").body)

    def test_own_name(self) -> None:
        """The registry names itself as its clients know it: a name that need lead nowhere else."""
        self.start(host="corp.test")
        self.assert_uploads()

    def test_forged(self) -> None:
        """The proxy goes nowhere that it did not name itself."""
        self.start()
        there = location(self.step(self.base, "POST", "/blobs/uploads/"))
        stolen = there.replace("/team/app/", "/team/other/")
        for url in (there[:-2] + "AA", stolen, there.partition("?")[0]):
            answer = fetch(url, method="PATCH")
            self.assertEqual((answer.status, answer.error_code()), (404, "BLOB_UPLOAD_UNKNOWN"))

    def test_mount(self) -> None:
        """Within a registry blobs are mounted, by whatever name the client has for it."""
        self.start()
        first, base = self.images[0], self.images[2]
        self.upstream.push("team/app", "1", first)
        name = f"{self.proxy.host}/corp.test"
        skopeo, insecure = self.skopeo(), ("--src-tls-verify=false", "--dest-tls-verify=false")
        # Only then skopeo knows that the registry has these blobs.
        skopeo.pull(f"{name}/team/app:1")
        sent = steps(self.upstream, "PATCH")
        copied = f"docker://{name}/team/copy:1"
        skopeo.copy(f"docker://{name}/team/app:1", *insecure, destination=copied)
        self.assert_pulled(skopeo.pull(f"{name}/team/copy:1"), first)
        # The configuration, which skopeo never mounts.
        self.assertEqual(steps(self.upstream, "PATCH"), sent + 1)
        mount = f"/blobs/uploads/?mount={base.layers[0].blob.digest}&from="
        for source, status in (("corp.test/team/app", 201), ("other.test/team/app", 202)):
            got = curl("-X", "POST", f"{self.proxy.url}/v2/corp.test/b{mount}{source}")
            self.assertEqual(got.status, status, source)
        got = curl("-X", "POST", "-H", "Host: corp.test", f"{self.proxy.url}/v2/c{mount}team/app")
        self.assertEqual(got.status, 201)

    def test_delete(self) -> None:
        """What was deleted through the proxy is not served by it any more."""
        self.start()
        image = self.images[1]
        self.upstream.push("team/app", "1", image)
        tag, digest = (f"{self.base}/manifests/{name}" for name in ("1", image.digest))
        self.assertEqual(fetch(tag, headers=ACCEPT).digest, image.digest)
        self.assertEqual(curl("-X", "DELETE", digest).status, 202)
        for url in (tag, digest):
            self.assertEqual(fetch(url, headers=ACCEPT).status, 404, url)

    def test_upstream_gone(self) -> None:
        """A registry that goes away in the middle: the client is told within seconds."""
        self.start()
        there = location(self.step(self.base, "POST", "/blobs/uploads/"))
        self.upstream.process.kill()
        answer = curl("-X", "PATCH", "-T", str(self.images[0].layers[1].blob.path), there)
        self.assertEqual(answer.status, 502, answer)
        (line,) = [each for each in self.proxy.access_log() if each["method"] == "PATCH"]
        self.assertLess(float(line["seconds"]), 5.0)


def memory(proxy: Proxy) -> int:
    """The most bytes of memory that the proxy ever had."""
    text = Path(f"/proc/{proxy.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def steps(registry: Registry, method: str) -> int:
    """How many requests of a method the registry has answered."""
    return sum(each.method == method for each in registry.requests())


def location(got: Fetched) -> str:
    """Where an answer leads, from its headers."""
    found = re.search(r"(?im)^location: (\S+)\r?$", got.body)
    return found[1] if found else f"nowhere: {got}"
