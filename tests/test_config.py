"""Tests for :mod:`regproxy.config` and for the page that documents it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from attrs import NOTHING, evolve, fields
from attrs.exceptions import FrozenInstanceError
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config import TABLES, Config
from regproxy.config_file import known_keys, load_config
from regproxy.config_tables import Cache, Listener, Registry
from regproxy.config_values import KINDS, KeyReader, written_duration, written_size
from regproxy.config_well_known import WELL_KNOWN
from regproxy.model.names import parse_registry
from regproxy.model.outgoing import DIRECT
from regproxy.model.route import RegistryLookup

DOCS = Path(__file__).parent.parent / "docs"


def docs_script() -> ModuleType:
    """The script that writes the tables of the reference."""
    spec = importlib.util.spec_from_file_location(
        "configuration_reference", DOCS / "configuration_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ConfigTests(SynchronousTestCase):
    """A configuration is an immutable value that knows its registries."""

    def test_find(self) -> None:
        """Names and aliases, in any case, give the canonical name; others give None."""
        lookup: RegistryLookup = Config(
            default_registry="quay.io",
            registries={
                "quay.io": Registry("quay.io"),
                "registry.corp:5000": Registry("registry.corp:5000", aliases=("corp", "c.corp")),
            },
        )
        for name, expected in (
            ("quay.io", "quay.io"),
            ("Quay.IO", "quay.io"),
            ("registry.corp:5000", "registry.corp:5000"),
            ("CORP", "registry.corp:5000"),
            ("c.corp", "registry.corp:5000"),
            ("registry.corp", None),
            ("docker.io", None),
            ("", None),
        ):
            self.assertEqual(lookup.find(name), expected)
        self.assertEqual(lookup.default_registry, "quay.io")
        self.assertEqual(lookup.known(), ["quay.io", "registry.corp:5000"])

    def test_find_lowers_ascii_only(self) -> None:
        """A letter that lower() turns into ASCII does not make a configured name."""
        self.assertEqual("registry.\u212a8s.io".lower(), "registry.k8s.io")
        self.assertIsNone(Config().find("registry.\u212a8s.io"))

    def test_immutable(self) -> None:
        """Neither attributes nor the registries can be changed, nor through the dict given."""
        given = {"quay.io": Registry("quay.io")}
        config = Config(registries=given)
        given.clear()
        self.assertEqual(list(config.registries), ["quay.io"])
        with self.assertRaises(FrozenInstanceError):
            config.cache = Cache()  # type: ignore[misc]
        with self.assertRaises(TypeError):
            config.registries["x"] = Registry("x")  # type: ignore[index]

    def test_evolve(self) -> None:
        """A changed copy finds what it has, not what the original had."""
        config = evolve(Config(), registries={"r.corp": Registry("r.corp")})
        self.assertEqual(config.find("r.corp"), "r.corp")
        self.assertIsNone(config.find("quay.io"))

    def test_upstream_of_a_name(self) -> None:
        """A registry is served at https://NAME when nothing else is said."""
        self.assertEqual(Registry("registry.corp:5000").upstream, "https://registry.corp:5000")

    def test_well_known(self) -> None:
        """The well-known registries have canonical names, each its own; Docker Hub its host."""
        names = [name for each in WELL_KNOWN.values() for name in (each.name, *each.aliases)]
        self.assertEqual(names, [parse_registry(name) for name in names])
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(WELL_KNOWN["docker.io"].upstream, "https://registry-1.docker.io")
        self.assertEqual(Config().find("index.docker.io"), "docker.io")
        self.assertEqual(Config().default_registry, "docker.io")

    def test_listens_on_loopback(self) -> None:
        """Nothing but this machine reaches a proxy that nobody told where to listen."""
        self.assertEqual(Config().listeners, (Listener("tcp:5000:interface=127.0.0.1"),))
        self.assertEqual(Config().admin.endpoint, "tcp:5001:interface=127.0.0.1")


class MetadataTests(SynchronousTestCase):
    """What is said about each key is complete."""

    def test_every_key(self) -> None:
        """Each key has a known kind and a help text that is a sentence."""
        for table in TABLES.values():
            self.assertTrue(table.__doc__)
            for key in fields(table):
                if key.name not in {"name", "_canonical", "_hosts"}:
                    self.assertIn(
                        key.metadata["kind"], {*KINDS, "table", "tables", "tables by name"}
                    )
                    self.assertRegex(key.metadata["help"], r"\A[A-Z`].*\.\Z")

    def test_defaults_are_valid(self) -> None:
        """Each default, written as in a file, is read back as it is."""
        for table in TABLES.values():
            for key in fields(table):
                kind, default = key.metadata.get("kind"), key.default
                if kind not in KINDS or default in {NOTHING, None} or key.name == "upstream":
                    continue
                written: object = default
                if kind == "duration":
                    written = written_duration(default)
                elif kind == "size":
                    written = written_size(default)
                elif isinstance(default, tuple):
                    written = list(default)
                elif default == DIRECT:
                    written = "none"
                elif isinstance(default, Path):
                    written = str(default)
                self.assertEqual(KeyReader(key.metadata, Path("/")).read(written), default)


class PageTests(SynchronousTestCase):
    """docs/reference/configuration.md beside the classes."""

    def setUp(self) -> None:
        """Read the page."""
        self.page = (DOCS / "reference" / "configuration.md").read_text("utf-8")

    def test_tables(self) -> None:
        """The tables are what docs/configuration_reference.py writes."""
        self.assertEqual(
            docs_script().renewed(self.page),
            self.page,
            "run: python docs/configuration_reference.py",
        )

    def test_complete(self) -> None:
        """Every table of the file and every kind of value is on the page."""
        for name in TABLES:
            self.assertIn(f"<!-- table: {name or 'top level'} -->", self.page)
        values = self.page.partition("## Values")[2]
        for kind in set(KINDS) - {"word"}:
            self.assertIn(f"\n| {kind} | ", values)

    def test_example(self) -> None:
        """The example can be loaded, has every key, and means what it says."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in ("proxy.pem", "proxy.key", "corp-ca.pem", "client.pem", "client.key"):
            (directory / name).touch()
        example = self.page.partition("```toml\n")[2].partition("```")[0]
        path = directory / "regproxy.toml"
        path.write_text(example, "utf-8")
        config = load_config(path, {})
        for table in TABLES.values():
            for key in known_keys(table):
                self.assertRegex(example, rf"(?m)^(\[*{key}[\].]|{key} = )")
        self.assertEqual(config.listeners[1].certificate, path.absolute().parent / "proxy.pem")
        self.assertEqual(config.registries["docker.io"].tag_ttl, 3600)
        self.assertEqual(config.registries["ghcr.io"].tag_ttl, 300)
        self.assertEqual(config.find("registry.corp"), "registry.corp:5000")
        self.assertEqual(config.registries["registry.corp:5000"].resolve, ("10.1.2.3",))
        self.assertEqual(config.registries["registry.corp:5000"].proxy, DIRECT)
        self.assertEqual(config.registries["quay.io"].proxy, config.proxy)
        self.assertNotEqual(config.proxy, DIRECT)
        self.assertEqual(config.timeouts, Config().timeouts)
        self.assertEqual(config.limits, Config().limits)
        self.assertEqual(config.cache, Cache())
        self.assertEqual(config.admin, Config().admin)

    def test_message(self) -> None:
        """The message that the page shows is the one that the mistake gives."""
        path = Path(self.mktemp())
        path.write_text('[registries."docker.io"]\ntag_tll = "1h"')
        shown = re.findall(r"```text\nregproxy\.toml(.*)\n```", self.page)
        with self.assertRaises(Exception) as caught:
            load_config(path, {})
        self.assertEqual([f"{path}{shown[0]}"], [str(caught.exception)])
