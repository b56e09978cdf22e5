"""What the metadata and the layout of the files promise."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins, pluginPackagePaths
from twisted.trial.unittest import SynchronousTestCase

import regproxy

ROOT = Path(regproxy.__file__).resolve().parent.parent


class LayoutTests(SynchronousTestCase):
    """Files that must be there, and files that must not."""

    def test_plugin_directory_is_no_package(self) -> None:
        """Neither twisted/ nor twisted/plugins/ is a package: one of ours would hide Twisted's."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])

    def test_plugin_directory_holds_one_plugin(self) -> None:
        """Everything that twistd finds in the directory is ours."""
        names = [path.name for path in (ROOT / "twisted" / "plugins").glob("*.py")]
        self.assertEqual(names, ["regproxy_plugin.py"])

    def test_every_directory_of_code_is_a_package(self) -> None:
        """A room without __init__.py would be shipped, and then left out by other tools."""
        rooms = {path.parent for path in (ROOT / "regproxy").rglob("*.py")}
        self.assertEqual([str(room) for room in rooms if not (room / "__init__.py").exists()], [])

    def test_typed(self) -> None:
        """The marker that tells type checkers to read our annotations is beside the code."""
        self.assertTrue((ROOT / "regproxy" / "py.typed").exists())


class PluginTests(SynchronousTestCase):
    """The plugin as twistd sees it from here."""

    def test_found_once(self) -> None:
        """One service maker is called regproxy, and it points at the module that wires it."""
        if str(ROOT / "twisted" / "plugins") not in pluginPackagePaths("twisted.plugins"):
            self.fail("the checkout is not on the path: run trial in it, or install it")
        found = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "regproxy"]
        self.assertEqual([getattr(maker, "module", "") for maker in found], ["regproxy.tap"])


class MetadataTests(SynchronousTestCase):
    """setup.cfg and pyproject.toml agree with the code."""

    def setUp(self) -> None:
        """Reads both files."""
        self.setup = configparser.ConfigParser(interpolation=None)
        self.setup.read_string((ROOT / "setup.cfg").read_text(encoding="utf-8"))
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def test_version(self) -> None:
        """The version is stated once, in the package, in a form that needs no running of code."""
        self.assertEqual(self.setup["metadata"]["version"], "attr: regproxy.__version__")
        self.assertRegex(regproxy.__version__, r"\A\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?\Z")

    def test_dependencies_are_explained(self) -> None:
        """Each dependency has its line, with the same bound, in the table of the documentation."""
        table = (ROOT / "docs" / "explanation" / "dependencies.md").read_text(encoding="utf-8")
        extras = self.setup["options.extras_require"]
        required = [
            line
            for value in (self.setup["options"]["install_requires"], *extras.values())
            for line in value.splitlines()
            if line and not line.startswith("regproxy[")
        ]
        rows = {
            cells[1].strip(" `") + cells[2].strip(" `")
            for cells in (line.split("|") for line in table.splitlines() if line.startswith("| `"))
        }
        self.assertEqual([requirement for requirement in required if requirement not in rows], [])

    def test_oldest_python(self) -> None:
        """pip, ruff and mypy are told the same oldest Python."""
        oldest = self.setup["options"]["python_requires"].removeprefix(">=")
        self.assertEqual(self.project["tool"]["mypy"]["python_version"], oldest)
        self.assertEqual(
            self.project["tool"]["ruff"]["target-version"], "py" + oldest.replace(".", "")
        )
