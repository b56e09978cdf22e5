"""Tests for :mod:`regproxy.config_file`."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from regproxy.config import Config
from regproxy.config_file import ConfigError, load_config
from regproxy.config_tables import AccessLogFormat, Cache, Listener, RelayPolicy
from regproxy.config_well_known import WELL_KNOWN
from regproxy.model.hosts import HostPort
from regproxy.model.outgoing import ProxyRules

NOBODY = 65_534
FILE = "expected the path of a readable file"


class FileTestCase(SynchronousTestCase):
    """Writes configurations to a directory of its own."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "regproxy.toml"

    def load(self, text: str) -> Config:
        """Load a configuration from its text."""
        self.path.write_text(text, "utf-8")
        return load_config(self.path, {})

    def refusal(self, text: str) -> str:
        """The message for a text that is refused, after the file's name."""
        with self.assertRaises(ConfigError) as caught:
            self.load(text)
        message = str(caught.exception)
        self.assertTrue(message.startswith(f"{self.path}: "), message)
        return message.removeprefix(f"{self.path}: ")


class NoFileTests(SynchronousTestCase):
    """Without a file, the proxy serves the user who starts it."""

    def test_xdg_directories(self) -> None:
        """State and cache are where the environment says."""
        config = load_config(None, {"XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"})
        expected = Config(
            state_directory=Path("/s/regproxy"), cache=Cache(directory=Path("/c/regproxy"))
        )
        self.assertEqual(config, expected)

    def test_home(self) -> None:
        """Variables that are unset, empty or relative count as the XDG defaults."""
        for environ in ({}, {"XDG_STATE_HOME": "", "XDG_CACHE_HOME": "cache"}):
            config = load_config(None, {"HOME": "/home/me", **environ})
            self.assertEqual(config.state_directory, Path("/home/me/.local/state/regproxy"))
            self.assertEqual(config.cache.directory, Path("/home/me/.cache/regproxy"))

    def test_no_home(self) -> None:
        """A user without a home directory is told what to set."""
        with self.assertRaises(ConfigError) as caught:
            load_config(None, {"XDG_STATE_HOME": "/s"})
        self.assertEqual(
            str(caught.exception),
            "environment: XDG_CACHE_HOME: found neither it nor HOME as an absolute path, "
            "expected one of the two",
        )


class LoadTests(FileTestCase):
    """A file says what differs from the defaults."""

    def test_empty(self) -> None:
        """An empty file is the system's default: the same ports, directories under /var."""
        self.assertEqual(self.load(""), Config())
        self.assertEqual(Config().state_directory, Path("/var/lib/regproxy"))
        self.assertEqual(Config().cache.directory, Path("/var/cache/regproxy"))

    def test_byte_order_mark_and_crlf(self) -> None:
        """What some editors add does no harm."""
        self.path.write_bytes(b'\xef\xbb\xbfaccess_log = "json"\r\nwell_known = true\r\n')
        self.assertIs(load_config(self.path, {}).access_log, AccessLogFormat.JSON)

    def test_listeners(self) -> None:
        """Listeners in the file replace the default one; files are found beside it."""
        (self.directory / "proxy.pem").touch()
        (self.directory / "proxy.key").touch()
        config = self.load(
            '[[listeners]]\nendpoint = "tcp:5000"\n'
            '[[listeners]]\nendpoint = "tcp:5443"\ntls = true\n'
            'certificate = "proxy.pem"\nprivate_key = "./proxy.key"\n'
        )
        self.assertEqual(
            config.listeners,
            (
                Listener("tcp:5000"),
                Listener(
                    "tcp:5443", True, self.directory / "proxy.pem", self.directory / "proxy.key"
                ),
            ),
        )

    def test_relative_file_name(self) -> None:
        """Paths start from the file's directory however the file is named."""
        self.path.write_text('[cache]\ndirectory = "cache"')
        config = load_config(Path(os.path.relpath(self.path)), {})
        self.assertEqual(config.cache.directory, self.directory / "cache")

    def test_no_admin(self) -> None:
        """An empty endpoint is no admin endpoint."""
        self.assertIsNone(self.load('[admin]\nendpoint = ""').admin.endpoint)

    def test_tag_ttl(self) -> None:
        """A registry's tag_ttl is the cache's unless it has its own."""
        config = self.load(
            '[cache]\ntag_ttl = 7\n[registries."Quay.IO"]\ntag_ttl = "1h"\n'
            '[registries."registry.corp:5000"]\nconnections = 2'
        )
        self.assertEqual(config.registries["quay.io"].tag_ttl, 3600)
        self.assertEqual(config.registries["registry.corp:5000"].tag_ttl, 7)
        self.assertEqual(config.registries["docker.io"].tag_ttl, 7)

    def test_well_known_overridden(self) -> None:
        """A table for a well-known registry replaces the keys that it gives."""
        config = self.load(
            '[registries."docker.io"]\naliases = ["hub"]\n'
            '[registries."ghcr.io"]\nupstream = "http://127.0.0.1:5000/"'
        )
        hub = config.registries["docker.io"]
        self.assertEqual(hub.upstream, "https://registry-1.docker.io")
        self.assertEqual(hub.aliases, ("hub",))
        self.assertEqual(config.registries["ghcr.io"].upstream, "http://127.0.0.1:5000")
        self.assertEqual(set(config.registries), set(WELL_KNOWN))

    def test_not_well_known(self) -> None:
        """With well_known = false, only the file's registries are there."""
        config = self.load(
            'well_known = false\ndefault_registry = "registry.corp"\n'
            '[registries."registry.corp"]\n[registries."docker.io"]'
        )
        self.assertEqual(config.known(), ["docker.io", "registry.corp"])
        self.assertEqual(config.registries["docker.io"], WELL_KNOWN["docker.io"])

    def test_default_registry_by_alias(self) -> None:
        """An alias will do; the configuration has the canonical name."""
        config = self.load('default_registry = "Index.Docker.IO"')
        self.assertEqual(config.default_registry, "docker.io")

    def test_ways_in(self) -> None:
        """The keys for ways in and out are there, each value in its one spelling."""
        config = self.load(
            'names = ["Proxy.Corp.", "proxy.corp:5000", "[FD00::05]:5000", "10.1.2.4"]\n'
            '[registries."quay.io"]\npush = "relay"\nother_requests = "deny"\n'
            'resolve = ["10.1.2.3", "FD00::05"]\n'
            '[connect]\ntunnel = ["*.Example.com:443", "[fd00::/8]:*"]\n'
            '[timeouts]\ntunnel_idle = "1h"'
        )
        self.assertEqual(
            config.names, ("proxy.corp", "proxy.corp:5000", "[fd00::5]:5000", "10.1.2.4")
        )
        quay = config.registries["quay.io"]
        self.assertIs(quay.push, RelayPolicy.RELAY)
        self.assertIs(quay.other_requests, RelayPolicy.DENY)
        self.assertEqual(quay.resolve, ("10.1.2.3", "fd00::5"))
        self.assertEqual(config.connect.tunnel, ("*.Example.com:443", "[fd00::/8]:*"))
        self.assertEqual(config.timeouts.tunnel_idle, 3600)

    def test_closed_by_default(self) -> None:
        """Without being told, nothing is tunnelled or pushed, and the file can say so."""
        for text in ("", "[connect]\ntunnel = false"):
            config = self.load(text)
            self.assertIs(config.connect.tunnel, False)
            for registry in config.registries.values():
                self.assertIs(registry.push, RelayPolicy.DENY)
                self.assertIs(registry.other_requests, RelayPolicy.RELAY)
        self.assertIs(self.load("[connect]\ntunnel = true").connect.tunnel, True)

    def test_units(self) -> None:
        """Durations and sizes become seconds and bytes."""
        config = self.load(
            '[timeouts]\nconnect = "1m30s"\nheaders = 2.5\nsilence = 7\ndrain = "0s"\n'
            '[limits]\nheader_size = "32KiB"\nmanifest_size = 8000000'
        )
        timeouts = config.timeouts
        self.assertEqual(
            (timeouts.connect, timeouts.headers, timeouts.silence, timeouts.drain), (90, 2.5, 7, 0)
        )
        self.assertIs(type(timeouts.silence), float)
        self.assertEqual(config.limits.header_size, 32_768)
        self.assertEqual(config.limits.manifest_size, 8_000_000)

    def test_any_port_twice(self) -> None:
        """Port 0 is another port each time."""
        self.load('listeners = [{endpoint = "tcp:0"}, {endpoint = "tcp:0"}]')


class UnreadableTests(FileTestCase):
    """A file that cannot be read, or is no TOML, is refused as a whole."""

    def refused_file(self, path: Path) -> str:
        """The message for a file, after its name."""
        with self.assertRaises(ConfigError) as caught:
            load_config(path, {})
        return str(caught.exception).removeprefix(f"{path}: ")

    def test_no_file(self) -> None:
        """A file that is not there, or no file, is told so."""
        for path, found in (
            (self.directory / "none.toml", "no such file"),
            (self.directory, "a directory"),
            (self.directory / ("a" * 300), "file name too long"),
        ):
            self.assertEqual(
                self.refused_file(path), f"found {found}, expected a readable TOML file"
            )

    def test_permission(self) -> None:
        """Files that belong to others are told so: the configuration, and what it names."""
        secret = self.directory / "secret.key"
        secret.touch(0o600)
        self.path.write_text(f'[[listeners]]\nendpoint = "tcp:0"\nprivate_key = "{secret.name}"')
        private = self.directory / "private.toml"
        private.touch(0o600)
        if os.geteuid() == 0:
            # Root may read everything. trial's temporary directory is closed to others.
            self.directory.parent.chmod(0o755)
            self.addCleanup(os.seteuid, 0)
            os.seteuid(NOBODY)
            if not os.access(self.path, os.R_OK, effective_ids=True):
                raise SkipTest("needs a temporary directory that everybody may enter")
        else:
            secret.chmod(0)
            private.chmod(0)
        self.assertEqual(
            self.refused_file(private), "found permission denied, expected a readable TOML file"
        )
        self.assertEqual(
            self.refused_file(self.path),
            f'listeners[0].private_key: found "{secret.name}": permission denied, {FILE}',
        )

    def test_no_utf8(self) -> None:
        """Bytes that are no UTF-8 are told with their line."""
        self.path.write_bytes(b"# a comment\n# \xff")
        self.assertEqual(
            self.refused_file(self.path), "found bytes that are no UTF-8 in line 2, expected UTF-8"
        )

    def test_no_toml(self) -> None:
        """Mistakes in the syntax are told with line and column."""
        for text, found in (
            ("a = 1\nb c = 2\n", "invalid TOML at line 2, column "),
            ("a = [", "invalid TOML at the end"),
            ("[cache]\n[cache]", "invalid TOML at line 2, column "),
            ("a = 1" + "0" * 5000, "invalid TOML"),
            ("a = '\x00'", "invalid TOML at line 1, column "),
            ("a = " + "[" * 5000, "arrays or tables nested too deeply"),
        ):
            message = self.refusal(text)
            self.assertTrue(message.startswith(f"found {found}"), message)
            self.assertTrue(message.endswith(", expected TOML"), message)
            self.assertTrue(message.isprintable())

    @settings(deadline=None)
    @given(st.binary(max_size=40))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes make a configuration or one line."""
        self.path.write_bytes(data)
        try:
            load_config(self.path, {})
        except ConfigError as error:
            self.assertTrue(str(error).isprintable())

    def test_strange_file_name(self) -> None:
        """A file's name cannot break the line."""
        with self.assertRaises(ConfigError) as caught:
            load_config(self.directory / "a\nb\udcff.toml", {})
        self.assertIn("/a\\nb\\udcff.toml: found no such file", str(caught.exception))


class ProxyTests(FileTestCase):
    """Which outgoing proxy leads to a registry."""

    ENVIRONMENT = {"HTTPS_PROXY": "http://me:secret@env.test:3128", "NO_PROXY": "quay.io"}  # noqa: RUF012

    def load_with(self, text: str, environ: dict[str, str]) -> Config:
        """Load a configuration in an environment."""
        self.path.write_text(text, "utf-8")
        return load_config(self.path, environ)

    def proxies(self, text: str) -> dict[str, str]:
        """The proxy of some registries."""
        config = self.load_with(text, self.ENVIRONMENT)
        found = {}
        for name in ("docker.io", "quay.io", "ghcr.io"):
            proxy = config.registries[name].proxy.choose("https", HostPort(name, 443))
            found[name] = str(proxy)
        return found

    def test_environment(self) -> None:
        """Where nothing is configured, it is the environment's, with a file and without."""
        expected = {"docker.io": "env.test:3128", "quay.io": "None", "ghcr.io": "env.test:3128"}
        self.assertEqual(self.proxies(""), expected)
        config = load_config(None, {**self.ENVIRONMENT, "HOME": "/home/me"})
        proxies = {each.proxy for each in config.registries.values()}
        self.assertEqual(proxies, {ProxyRules.from_environment(self.ENVIRONMENT)})

    def test_configured(self) -> None:
        """A registry's own comes first, then that of the top level, and both replace the rest."""
        self.assertEqual(
            self.proxies(
                'proxy = "http://top.test:1"\n[registries."docker.io"]\nproxy = "none"\n'
                '[registries."GHCR.io"]\nproxy = "http://own.test:2"'
            ),
            {"docker.io": "None", "quay.io": "top.test:1", "ghcr.io": "own.test:2"},
        )
        for none in ("none", ""):
            self.assertEqual(set(self.proxies(f'proxy = "{none}"').values()), {"None"})

    def test_hidden(self) -> None:
        """No password is part of what a configuration shows of itself."""
        text = 'proxy = "http://me:secret@top.test:1"'
        for config in (self.load(text), self.load_with("", self.ENVIRONMENT)):
            self.assertNotIn("secret", repr(config))
            self.assertNotIn("bWU6", repr(config))

    def test_unusable(self) -> None:
        """What the environment says and cannot be used is told by its name, unless unneeded."""
        environ = {"https_proxy": "socks5://me:secret@p:1080"}
        with self.assertRaises(ConfigError) as caught:
            self.load_with("", environ)
        self.assertEqual(
            str(caught.exception),
            "environment: https_proxy: found a URL that does not begin with http://, expected a "
            'proxy such as "http://proxy.corp:3128" or "http://user:password@proxy.corp:3128", or '
            '"none"',
        )
        self.load_with('proxy = "none"', environ)
