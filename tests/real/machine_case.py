"""The common ground of the trials on a machine of the client's own, set up as the pages say."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tests.real import instructions
from tests.real.case import RealCase
from tests.real.clients import Client
from tests.real.library import library
from tests.real.machine import PROXY_ADDRESS, PROXY_NAME, Machine, Network
from tests.real.proxy import Proxy, Settings, words
from tests.real.registries import Registry

HUB = "docker.io"
QUAY = "quay.io"

LISTENERS = ({"endpoint": "tcp:5000"}, {"endpoint": "tcp:5443", "tls": True})
"""What the pages assume: the proxy as ``proxy.example``, plain and with TLS."""


@frozen
class Image:
    """A repository as one client writes it, and as the log should have it.

    Args:
        name: what the client is told.
        way: the way in.
        registry: the registry.
        repository: the repository there.
    """

    name: str
    way: str
    registry: str = QUAY
    repository: str = "team/app"


class MachineCase(RealCase):
    """A network of the test's own; in it an upstream that is quay.io and docker.io, and a client.

    Nothing is on that network but this machine: a client that would go past the proxy fails.
    """

    def setUp(self) -> None:
        """Enters the network, and starts the upstream."""
        super().setUp()
        self.addCleanup(Network.enter().leave)
        self.registry = self.start_registry()
        self.machine = Machine.make(self.directory / "machine")

    def start_named_proxy(
        self, listeners: Sequence[Mapping[str, object]] = LISTENERS, **settings: Any
    ) -> Proxy:
        """A regproxy with the pages' name and ports, for the two registries and further ones."""
        registries = {QUAY: self.registry.url, HUB: self.registry.url}
        registries.update(settings.pop("registries", {}))
        aliases = {HUB: ("index.docker.io", "registry-1.docker.io"), **settings.pop("aliases", {})}
        keys = settings.pop("keys", {"names": [PROXY_NAME]})
        self.proxy = self.start_proxy(
            Settings(registries, aliases=aliases, keys=keys, listeners=listeners, **settings)
        )
        return self.proxy

    def start_intercepting_proxy(self, **settings: Any) -> Proxy:
        """A regproxy with the listeners, the names and the authority of the page's sample."""
        sample = tomllib.loads(instructions.block("interception", "toml", "[[listeners]]"))
        settings |= {"keys": {"names": sample["names"]}, "tables": {"ca": sample["ca"]}}
        return self.start_named_proxy(sample["listeners"], **settings)

    def intercept(self) -> None:
        """Adds the page's lines to the machine's /etc/hosts."""
        self.machine.know(instructions.block("interception", "text", PROXY_ADDRESS))

    def trust(self, page: str) -> None:
        """Has the whole machine trust the authority, by a how-to page's commands."""
        printed = self.machine.run(instructions.commands(page, "update-ca-certificates"))
        self.assertIn("1 added, 0 removed", printed)

    def served(self, page: str, source: str, *, command: str = "") -> str:
        """A page under /setup/, fetched by the command that a how-to page gives for it.

        Args:
            page: its path.
            source: the how-to page.
            command: instead of the how-to page's.
        """
        return self.machine.run(command or instructions.commands(source, page))

    def follow(self, served: str) -> None:
        """Does what the head of a page under /setup/ says, and compares the fingerprints."""
        admin = self.proxy.admin_url.removeprefix("http://")
        printed = self.machine.run(instructions.steps(served, admin=admin))
        prints = [line for line in printed.splitlines() if "Fingerprint=" in line]
        if "ca.crt" in served:
            self.assertEqual(len(prints), 2, printed)
            self.assertEqual(len(set(prints)), 1, printed)

    def assert_pulls(self, client: Client, *images: Image) -> None:
        """Images come cold, then warm and with upstream stopped; the log says which way in.

        Args:
            client: the one that pulls.
            images: the repositories, of which all hold the same.
        """
        by_tag, by_digest = "small", "multi"
        wanted = {tag: library().images[tag] for tag in (by_tag, by_digest)}
        for image in images:
            for tag, expected in wanted.items():
                self.assert_pulled(client.pull(f"{image.name}:{tag}"), expected)
        self.proxy.wait_for_fills()
        cold = self.proxy.access_log()
        self.assertLessEqual({"MISS"}, set(words(cold)))
        self.assertLessEqual(set(words(cold)), {"MISS", "HIT"})
        self.registry.process.stop()
        for image in images:
            for tag, expected in wanted.items():
                reference = f":{tag}" if tag == by_tag else f"@{expected.digest}"
                self.assert_pulled(client.pull(image.name + reference), expected)
        log = self.proxy.access_log()
        self.assertEqual(set(words(log[len(cold) :])), {"HIT"})
        said = {(e["way"], e["registry"], e["repository"]) for e in log if e["cache"] != "-"}
        self.assertEqual(said, {(each.way, each.registry, each.repository) for each in images})
        # A note says why an answer was cut short: none was.
        self.assertEqual([line["note"] for line in log if "note" in line], [])


def pushed_to(registry: Registry) -> dict[str, Any]:
    """The settings of a proxy that has the registry of the sample in push.md, on this machine."""
    sample = instructions.block("push", "toml", 'push = "relay"')
    [(name, table)] = tomllib.loads(sample)["registries"].items()
    return {
        "registries": {name: registry.url},
        "aliases": {name: table["aliases"]},
        "registry_keys": {name: {"push": table["push"]}},
    }
