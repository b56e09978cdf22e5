"""What the how-to pages for skopeo and podman say, done word for word but for the images."""

from __future__ import annotations

from tests.real import instructions
from tests.real.clients import Podman, read_image
from tests.real.library import library
from tests.real.machine_case import HUB, QUAY, MachineCase
from tests.real.processes import CommandFailed
from tests.real.proxy import words

_IMAGES = {
    "prometheus/busybox:latest": "team/app:small",
    "library/alpine:3.20": "library/app:small",
}
_IN_HUB = "docker.io/library/app:small"
_IN_QUAY = "quay.io/team/app:small"


class PageCase(MachineCase):
    """A machine with skopeo and podman, and nothing else in /etc/containers than they need."""

    page = ""

    def setUp(self) -> None:
        """Makes the machine, with a storage for podman."""
        super().setUp()
        self.podman_here = Podman.configured(self.directory / "podman", "")
        self.podman_here.furnish(self.machine.etc / "containers")
        self.image = library().images["small"]
        self.seen = 0

    def do(self, holding: str, page: str = "") -> str:
        """Does what the page's first block with ``holding`` says, and gives what that prints."""
        commands = instructions.commands(page or self.page, holding)
        for theirs, ours in _IMAGES.items():
            commands = commands.replace(theirs, ours)
        return self.machine.run(f"set -e\n{commands}")

    def fetch_authority(self) -> None:
        """Does what tls.md says, and compares the two fingerprints."""
        self.do("-o regproxy-ca.crt", "tls")
        admin = self.proxy.admin_url.removeprefix("http://")
        here = instructions.commands("tls", "127.0.0.1:5001").replace("127.0.0.1:5001", admin)
        fetched = self.machine.run("openssl x509 -in regproxy-ca.crt -noout -fingerprint -sha256")
        self.assertEqual(self.machine.run(here), fetched)

    def assert_copied(self, directory: str, way: str, registry: str = QUAY) -> None:
        """What skopeo put into a directory is the image, and it came that way alone."""
        copied = self.machine.directory / directory
        self.assert_pulled(read_image(copied), self.image)
        self.assert_way(way, registry)

    def assert_held(self, name: str, way: str, registry: str = QUAY) -> None:
        """What podman has by that name is the image, and it came that way alone."""
        self.assert_pulled(self.podman_here.take(name), self.image)
        self.assert_way(way, registry)

    def assert_way(self, way: str, registry: str) -> None:
        """All content since the last look came that way, of that registry."""
        log = self.proxy.access_log()[self.seen :]
        self.seen += len(log)
        self.assertTrue(words(log))
        said = {(line["way"], line["registry"]) for line in log if line["cache"] != "-"}
        self.assertEqual(said, {(way, registry)})


class SkopeoTests(PageCase):
    """skopeo.md."""

    page = "skopeo"

    def test_named(self) -> None:
        """By path prefix on either listener, by a mirror, and with no registry's name at all."""
        self.start_named_proxy()
        self.assertIn(self.image.digest, self.do("skopeo inspect"))
        self.assert_pulled(read_image(self.machine.directory / "busybox"), self.image)
        log = self.proxy.access_log()
        self.seen = len(log)
        said = {(line["way"], line["registry"]) for line in log if line["cache"] != "-"}
        self.assertEqual(said, {("prefix", HUB), ("prefix", QUAY)})
        self.fetch_authority()
        self.do("proxy.example:5443")
        self.assert_copied("busybox", "prefix")
        conf = instructions.block("skopeo", "toml", "registry.mirror")
        (self.machine.directory / "registries.conf").write_text(conf)
        self.do("--registries-conf")
        self.assert_copied("busybox", "prefix")
        self.do("dir:alpine")
        self.assert_copied("alpine", "mirror", HUB)

    def test_https_proxy(self) -> None:
        """The registry's own name, through a CONNECT that is intercepted."""
        self.start_named_proxy()
        self.fetch_authority()
        self.machine.run("install -D -m 0644 regproxy-ca.crt certs/regproxy-ca.crt")
        self.do("HTTPS_PROXY=")
        self.assert_copied("busybox", "connect")
        proxied = "SSL_CERT_FILE=regproxy-ca.crt HTTPS_PROXY=http://proxy.example:5000"
        self.machine.run(f"{proxied} skopeo copy docker://{_IN_QUAY} dir:trusted")
        self.assert_copied("trusted", "connect")

    def test_interception(self) -> None:
        """The registry's own name, which leads to the proxy's port 443."""
        self.start_intercepting_proxy()
        self.intercept()
        self.do("http://proxy.example/ca.crt", "interception")
        self.machine.run("install -D -m 0644 regproxy-ca.crt certs/regproxy-ca.crt")
        self.do("copy --src-cert-dir ./certs docker://quay.io")
        self.assert_copied("busybox", "interception")
        # By Host alone: what is no TLS is tried once port 80 has turned a handshake down.
        plain = "docker://quay.io:80/team/app:small dir:plain"
        self.machine.run(f"skopeo copy --src-tls-verify=false {plain}")
        self.assert_copied("plain", "interception")

    def test_fill_in_advance(self) -> None:
        """A copy to nowhere leaves every platform in the cache."""
        self.start_named_proxy()
        fill = instructions.commands("skopeo", "mktemp").replace("alpine:3.20", "app:multi")
        self.machine.run(fill)
        self.proxy.wait_for_fills()
        self.registry.process.stop()
        index = library().images["multi"]
        got = self.skopeo().pull_all(f"{self.proxy.host}/{HUB}/library/app:multi")
        self.assertEqual(set(got), {index.digest, *(each.digest for each in index.children)})

    def test_host_trust(self) -> None:
        """What tls.md has Debian's trust told, both clients follow, by HTTPS_PROXY."""
        self.start_named_proxy()
        self.fetch_authority()
        self.do("update-ca-certificates", "tls")
        self.do("export HTTPS_PROXY", "proxy-environment")
        self.assert_copied("busybox", "connect")
        self.assert_pulled(self.podman_here.take(_IN_QUAY), self.image)


class PodmanTests(PageCase):
    """podman.md, and ``/setup/podman`` as the proxy serves it."""

    page = "podman"

    def test_mirror(self) -> None:
        """The served configuration is the page's; applied as it says, it brings both registries."""
        self.start_named_proxy(aliases={HUB: ()})
        served = self.do("/setup/podman")
        documented = instructions.block("podman", "toml", "registry.mirror")
        self.assertEqual(instructions.contents(served), documented)
        self.follow(served)
        self.do("podman pull docker.io/")
        self.assert_held(_IN_HUB, "prefix", HUB)
        self.machine.run(f"podman pull {_IN_QUAY}")
        self.assert_held(_IN_QUAY, "prefix")

    def test_mirror_tls(self) -> None:
        """On the TLS listener the page has the authority fetched, and put where podman looks."""
        self.start_named_proxy()
        served = self.machine.run("curl -fsSk https://proxy.example:5443/setup/podman")
        self.assertNotIn("insecure", instructions.contents(served))
        install = instructions.commands("podman", "certs.d/proxy.example:5443")
        self.assertIn(install, instructions.steps(served, admin=""))
        self.follow(served)
        self.do("podman pull docker.io/")
        self.assert_held(_IN_HUB, "prefix", HUB)

    def test_own_names(self) -> None:
        """In the image's name; with a variable and trust for one registry; not without trust."""
        self.start_named_proxy()
        self.do("--tls-verify=false")
        self.assert_held(f"proxy.example:5000/{_IN_QUAY}", "prefix")
        pull = f"HTTPS_PROXY=http://proxy.example:5000 podman pull {_IN_QUAY}"
        failure = self.assertRaises(CommandFailed, self.machine.run, pull)
        self.assertIn("x509", str(failure))
        self.do("HTTPS_PROXY=")
        self.assert_held(_IN_QUAY, "connect")

    def test_interception(self) -> None:
        """The same trust and no variable."""
        self.start_intercepting_proxy()
        self.intercept()
        self.do("http://proxy.example/ca.crt", "interception")
        self.machine.run(
            "install -D -m 0644 regproxy-ca.crt /etc/containers/certs.d/quay.io/ca.crt\n"
            f"podman pull {_IN_QUAY}",
        )
        self.assert_held(_IN_QUAY, "interception")
