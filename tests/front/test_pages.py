"""The proxy's own pages: what they hold can be applied as it stands."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from configparser import ConfigParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config import Config
from regproxy.config_tables import Registry
from regproxy.front.pages import Page, Pages

PLAIN = "http://proxy.corp:5000"
TLS = "https://proxy.corp"
ORIGINS = (
    PLAIN,
    TLS,
    "http://proxy",
    "https://proxy",
    "http://127.0.0.1:5000",
    "https://[fd00::5]:5443",
    "http://docker.proxy",
)
SETUPS = ("/setup/docker", "/setup/containerd", "/setup/podman", "/setup/systemd")
PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

CONFIG = Config(
    registries={
        "docker.io": Registry("docker.io", aliases=("index.docker.io",)),
        "quay.io": Registry("quay.io"),
        "registry.corp:5000": Registry("registry.corp:5000", aliases=("corp", "registry.corp")),
        "[fd00::5]:5000": Registry("[fd00::5]:5000"),
    }
)


def head(text: str) -> str:
    """The comments of a page, without their marks."""
    return "".join(line[2:] + "\n" for line in text.splitlines() if line.startswith("#"))


def body(text: str) -> str:
    """What is left of a page for a file that may hold no comments."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


class PagesCase(SynchronousTestCase):
    """Pages of one configuration."""

    config = CONFIG

    def setUp(self) -> None:
        """Makes the pages."""
        self.asked = 0
        self.pages = Pages(self.authority, self.config)

    def authority(self) -> bytes:
        """Counts how often the authority's certificate was wanted."""
        self.asked += 1
        return PEM

    def text(self, path: str, origin: str = PLAIN) -> str:
        """A page that is there, as text."""
        page = self.pages.find(path, origin)
        self.assertIsNotNone(page, (path, origin))
        assert page is not None
        return page.body.decode("ascii")

    def toml(self, path: str, origin: str) -> dict[str, Any]:
        """A page read as TOML, as it stands."""
        return tomllib.loads(self.text(path, origin))


class FindTests(PagesCase):
    """Which pages there are."""

    def test_certificate(self) -> None:
        """The authority's certificate is given as it is, and made no sooner than it is wanted."""
        for path in SETUPS:
            self.text(path)
        self.assertEqual(self.asked, 0)
        page = self.pages.find("/ca.crt", PLAIN)
        self.assertEqual(page, Page("application/pem-certificate-chain", PEM))

    def test_text(self) -> None:
        """Configuration is plain text, which browsers show rather than keep or run."""
        for path in (*SETUPS, "/setup", "/setup/"):
            page = self.pages.find(path, PLAIN)
            assert page is not None
            self.assertEqual(page.media_type, "text/plain; charset=utf-8")

    def test_nothing_else(self) -> None:
        """Any other path has no page."""
        for path in ("/", "", "/ca.crt/", "/setup/docker/", "/setup/other", "/Setup/", "/v2/"):
            self.assertIsNone(self.pages.find(path, PLAIN), path)

    def test_index(self) -> None:
        """The index names every other page by its full address."""
        text = self.text("/setup/", TLS)
        for path in SETUPS:
            self.assertIn(f"{TLS}{path} ", text)
        self.assertIn(f"{TLS}/ca.crt", text)

    def test_head(self) -> None:
        """Each page says first what it is for, and names the address that the client used."""
        for origin in ORIGINS:
            for path in SETUPS:
                text = self.text(path, origin)
                self.assertIn(origin, text.splitlines()[0])
                # The head ends before the configuration begins.
                self.assertEqual(text.count("\n\n", 0, text.index(body(text).strip())), 1)

    def test_width(self) -> None:
        """Prose can be read in a terminal; only commands are longer."""
        for path in SETUPS:
            for line in self.text(path).splitlines():
                self.assertTrue(len(line) <= 98 or line.startswith("#   "), line)


class HostileOriginTests(PagesCase):
    """Nothing from a request but a host is put onto a page."""

    def test_refused(self) -> None:
        """An origin that is no scheme and host has no configuration."""
        for origin in (
            "",
            "proxy.corp",
            "ftp://proxy.corp",
            "http://",
            "http://proxy.corp/path",
            "http://user@proxy.corp",
            "http://proxy.corp\n[Service]\nExecStart=/bin/sh",
            "http://proxy.corp\r\nX: y",
            "http://proxy.corp:5000\n",
            'http://proxy.corp"\n',
            "http://proxy.corp' $(id)",
            "http://proxy.corp:5000 proxy.test",
            "http://%n.corp",
            "http://proxy\u2028corp",
            "http://proxy.corp:99999",
        ):
            for path in (*SETUPS, "/setup/"):
                self.assertIsNone(self.pages.find(path, origin), origin)

    @given(
        st.text(alphabet="ab.:[]0\n\r\t\"'\\ #%$`;&|/@-_\x00\x85\u2028é", max_size=30),
        st.sampled_from(SETUPS),
    )
    def test_lines(self, host: str, path: str) -> None:
        """Whatever stands in a host, a page has the lines that it has for any other."""
        page = self.pages.find(path, f"http://{host}")
        if page is not None:
            got, usual = page.body.decode("ascii"), self.text(path, "http://ab.a:50")
            self.assertEqual(len(body(got).splitlines()), len(body(usual).splitlines()))
            self.assertTrue(set(got) <= {"\n", *map(chr, range(0x20, 0x7F))})


class DockerTests(PagesCase):
    """``/setup/docker``: daemon.json."""

    def settings(self, origin: str) -> Any:
        """The page as dockerd reads it, its comments taken out as the page says."""
        text = self.text("/setup/docker", origin)
        self.assertIn("grep -v '^#' | sudo tee /etc/docker/daemon.json", text)
        return json.loads(body(text))

    def test_plain(self) -> None:
        """The mirror is the client's address of the proxy, and image names may begin with it."""
        settings = {"registry-mirrors": [PLAIN], "insecure-registries": ["proxy.corp:5000"]}
        self.assertEqual(self.settings(PLAIN), settings)

    def test_tls(self) -> None:
        """Over TLS nothing is insecure; certs.d gets the authority."""
        self.assertEqual(self.settings(TLS), {"registry-mirrors": [TLS]})
        self.assertIn("/etc/docker/certs.d/proxy.corp/ca.crt\n", self.text("/setup/docker", TLS))

    def test_short_name(self) -> None:
        """A host without dot or port gets its port: docker takes it for a user of Docker Hub."""
        self.assertEqual(self.settings("http://proxy")["insecure-registries"], ["proxy:80"])
        self.assertIn("docker pull proxy:443/REG", self.text("/setup/docker", "https://proxy"))

    def test_every_registry(self) -> None:
        """Each registry is named by what can stand in a path, or is said to need an alias."""
        text = head(self.text("/setup/docker"))
        self.assertIn("REGISTRY is one of docker.io, quay.io, corp.", text)
        self.assertIn("[fd00::5]:5000 is not among them", text)


class OtherDefaultTests(PagesCase):
    """A proxy whose mirror way in does not lead to Docker Hub."""

    config = Config(default_registry="quay.io", registries={"quay.io": Registry("quay.io")})

    def test_no_mirror(self) -> None:
        """The daemon is not told of a mirror that would give it another registry's images."""
        text = self.text("/setup/docker")
        self.assertEqual(json.loads(body(text)), {"insecure-registries": ["proxy.corp:5000"]})
        self.assertIn("for quay.io.", text)


class ContainerdTests(PagesCase):
    """``/setup/containerd``: hosts.toml for every registry."""

    def test_plain(self) -> None:
        """One host, pulls only: containerd adds ``ns`` by itself."""
        host = {"capabilities": ["pull", "resolve"]}
        self.assertEqual(self.toml("/setup/containerd", PLAIN), {"host": {PLAIN: host}})

    def test_tls(self) -> None:
        """Over TLS the authority's file is named, and is where the head puts it."""
        text = self.text("/setup/containerd", TLS)
        ca = tomllib.loads(text)["host"][TLS]["ca"]
        self.assertIn(f"regproxy-ca.crt {ca}\n", head(text))

    def test_every_registry(self) -> None:
        """The file is for all registries; the head says which those are."""
        text = head(self.text("/setup/containerd"))
        self.assertIn("/etc/containerd/certs.d/_default/hosts.toml", text)
        for name in CONFIG.registries:
            self.assertIn(name, " ".join(text.split()))


class PodmanTests(PagesCase):
    """``/setup/podman``: registries.conf."""

    def mirrors(self, origin: str) -> dict[str, Any]:
        """Location of each registry to its only mirror."""
        mirrors = {}
        for registry in self.toml("/setup/podman", origin)["registry"]:
            (mirrors[registry["location"]],) = registry["mirror"]
        return mirrors

    def test_every_registry(self) -> None:
        """Each name that can begin an image's has a mirror whose path can stand in one."""

        def mirror(prefix: str) -> dict[str, object]:
            return {"location": f"proxy.corp:5000/{prefix}", "insecure": True}

        expected = {
            "docker.io": mirror("docker.io"),
            "index.docker.io": mirror("docker.io"),
            "quay.io": mirror("quay.io"),
            "registry.corp:5000": mirror("corp"),
            "registry.corp": mirror("corp"),
        }
        self.assertEqual(self.mirrors(PLAIN), expected)
        self.assertIn("[fd00::5]:5000 is not among them", head(self.text("/setup/podman")))

    def test_well_known(self) -> None:
        """The registries that need no configuration are there as well."""
        self.pages = Pages(self.authority, Config())
        self.assertLessEqual(set(Config().registries), set(self.mirrors(PLAIN)))

    def test_tls(self) -> None:
        """Over TLS nothing is insecure; certs.d gets the authority."""
        for mirror in self.mirrors(TLS).values():
            self.assertEqual(list(mirror), ["location"])
        text = self.text("/setup/podman", "https://proxy")
        self.assertIn("/etc/containers/certs.d/proxy:443/ca.crt\n", text)
        self.assertIn('location = "proxy:443/quay.io"', text)


class SystemdTests(PagesCase):
    """``/setup/systemd``: a drop-in for a unit."""

    def environment(self, origin: str) -> dict[str, str]:
        """The variables that systemd would set."""
        parser = ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(self.text("/setup/systemd", origin))
        self.assertEqual(parser.sections(), ["Service"])
        self.assertEqual(list(parser["Service"]), ["Environment"])
        pairs = shlex.split(parser["Service"]["Environment"])
        return dict(pair.split("=", 1) for pair in pairs)

    def test_proxy(self) -> None:
        """The proxy is the address that the client used; the proxy itself is reached directly."""
        for origin in ORIGINS:
            environment = self.environment(origin)
            self.assertEqual(set(environment), {"HTTPS_PROXY", "NO_PROXY"})
            self.assertEqual(environment["HTTPS_PROXY"], origin)
        self.assertEqual(self.environment(PLAIN)["NO_PROXY"], "localhost,127.0.0.1,::1,proxy.corp")
        # Go compares addresses without brackets.
        self.assertTrue(self.environment("https://[fd00::5]:5443")["NO_PROXY"].endswith(",fd00::5"))

    def test_units(self) -> None:
        """Both daemons are named, and every registry whose place the proxy takes."""
        text = " ".join(head(self.text("/setup/systemd")).split())
        self.assertIn("/etc/systemd/system/docker.service.d/regproxy.conf", text)
        self.assertIn("containerd.service.d", text)
        for name in CONFIG.registries:
            self.assertIn(name, text)


class AuthorityTests(PagesCase):
    """Where the authority is trusted, the page says how to find that it is the right one."""

    def test_fingerprint(self) -> None:
        """Fetched, its fingerprint printed, and the same at the proxy's own machine."""
        trusting = [(path, TLS) for path in SETUPS]
        for path, origin in [*trusting, ("/setup/systemd", PLAIN), ("/setup/", PLAIN)]:
            text = head(self.text(path, origin))
            self.assertIn(f"{origin}/ca.crt\n", text)
            self.assertEqual(len(re.findall(r"openssl x509 .*-fingerprint -sha256", text)), 2)
            self.assertIn("http://127.0.0.1:5001/ca.crt", text)
            # Over plain HTTP there is nothing to leave unverified.
            self.assertEqual(" -k " in text, origin == TLS)

    def test_verified_afterwards(self) -> None:
        """Only the certificate itself is fetched without verification."""
        for path in SETUPS:
            for line in head(self.text(path, TLS)).splitlines():
                if line.startswith("  curl") and "127.0.0.1" not in line:
                    unverified = " -k " in line
                    self.assertEqual(unverified, line.endswith("/ca.crt"), line)
                    self.assertNotEqual(unverified, "--cacert regproxy-ca.crt" in line, line)

    def test_not_needed(self) -> None:
        """A plain mirror needs no trust, and asks for none."""
        for path in ("/setup/docker", "/setup/containerd", "/setup/podman"):
            self.assertNotIn("ca.crt", self.text(path, PLAIN))
