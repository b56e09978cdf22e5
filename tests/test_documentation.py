"""What the documentation says of settings, errors and files is what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from attrs import fields_dict
from twisted.trial.unittest import SynchronousTestCase

import regproxy
from regproxy.config_file import load_config
from regproxy.config_tables import Limits, Timeouts
from regproxy.front.accesslog import Entry, format_logfmt
from regproxy.model import errors
from regproxy.model.outcome import Outcome
from regproxy.model.units import parse_duration, parse_size

_FILES = re.compile(r"(?m)^(tls|(client_)?certificate|private_key|client_key|ca_file) = .*$")

ROOT = Path(regproxy.__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def read(path: Path) -> str:
    """A page as text."""
    return path.read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without the code marks around them."""
    return [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


class DeadlinesPageTests(SynchronousTestCase):
    """docs/reference/deadlines.md beside the classes of the configuration."""

    def table(self, name: str) -> dict[str, str]:
        """The defaults that the page gives for the keys of one table."""
        section = read(DOCS / "reference" / "deadlines.md").split(f"## `[{name}]`\n")[1]
        return {row[0]: row[1] for row in rows(section.split("\n## ")[0])[2:]}

    def test_timeouts(self) -> None:
        """Every deadline is there, with its default."""
        documented = {key: parse_duration(text) for key, text in self.table("timeouts").items()}
        self.assertEqual(documented, {k: f.default for k, f in fields_dict(Timeouts).items()})

    def test_limits(self) -> None:
        """Every limit is there, with its default."""
        documented = {
            key: int(text) if text.isdigit() else parse_size(text)
            for key, text in self.table("limits").items()
        }
        self.assertEqual(documented, {k: f.default for k, f in fields_dict(Limits).items()})


class ErrorsPageTests(SynchronousTestCase):
    """docs/reference/errors.md beside the errors that the code can make."""

    def test_every_error(self) -> None:
        """Each error has a row with its status and its code."""
        documented = {
            (row[1], code)
            for row in rows(read(DOCS / "reference" / "errors.md"))
            for code in re.findall(r"[A-Z_]{5,}", row[2])
        }
        made = set()
        for _, make in inspect.getmembers(errors, inspect.isfunction):
            signature = inspect.signature(make, eval_str=True)
            if not issubclass(signature.return_annotation, errors.RegistryError):
                continue
            values = {"message": "m", "challenges": (), "retry_after": None, "size": 1}
            error = make(**{k: v for k, v in values.items() if k in signature.parameters})
            made.add((str(error.status), error.code))
        # What the registry does not have keeps the registry's own code.
        own = {("404", "MANIFEST_UNKNOWN"), ("404", "BLOB_UNKNOWN")}
        self.assertEqual(made - own - documented, set())


class LogPageTests(SynchronousTestCase):
    """docs/reference/log.md beside what is logged and sent."""

    def setUp(self) -> None:
        """Reads the tables."""
        self.rows = rows(read(DOCS / "reference" / "log.md"))

    def test_fields(self) -> None:
        """The fields of a line are explained, in their order."""
        line = format_logfmt(Entry(received=1, note="why"), 0.0)
        documented = [row[0] for row in self.rows if len(row) == 2]
        self.assertEqual(documented[2:], re.findall(r"(\w+)=", line))

    def test_words(self) -> None:
        """Each word has a row, with the Cache-Status that goes with it."""
        documented = {row[0]: row[2] for row in self.rows if len(row) == 3}
        del documented["cache="], documented["---"]
        self.assertEqual(documented, {word.value: word.cache_status for word in Outcome})


class ConfigurationExamplesTests(SynchronousTestCase):
    """Configurations that are there to be copied."""

    def check(self, text: str) -> None:
        """Loads a configuration; the files that it names are made up, and left out."""
        path = Path(self.mktemp())
        path.write_text(_FILES.sub("", text))
        load_config(path, {})

    def test_image(self) -> None:
        """The configuration in the container image is one, and writes to the image's volumes."""
        config = load_config(ROOT / "docker" / "regproxy.toml", {})
        volumes = {str(config.cache.directory), str(config.state_directory)}
        found = re.search(r"(?m)^VOLUME (\[.*\])$", read(ROOT / "Dockerfile"))
        self.assertIsNotNone(found)
        assert found is not None
        self.assertEqual(volumes, set(re.findall(r'"([^"]+)"', found[1])))

    def test_examples(self) -> None:
        """Each TOML example that has a listener can be loaded."""
        examples = [
            block
            for page in DOCS.rglob("*.md")
            for block in re.findall(r"(?ms)^```toml\n(.*?)^```$", read(page))
            if "[[listeners]]" in block
        ]
        self.assertGreaterEqual(len(examples), 2)
        for example in examples:
            self.check(example)


class LinksTests(SynchronousTestCase):
    """Links of the pages that Sphinx does not read."""

    def test_readme(self) -> None:
        """Each file that a page at the top names is there."""
        for page in (ROOT / "README.md", ROOT / "CHANGELOG.md"):
            for target in re.findall(r"\]\(([^)#:]+)\)", read(page)):
                self.assertTrue((ROOT / target).exists(), f"{page.name}: {target}")
