"""A real regproxy: its configuration written, the process started, its log read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from attrs import define, field, frozen

import regproxy
from tests.real.certificates import Certificates
from tests.real.processes import Process, free_port, wait_for_port, wait_until
from tests.real.rawhttp import fetch

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
_SETTLED = 0.15

# The twistd of the interpreter that runs the tests, whether or not its script is on the PATH.
_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


@frozen
class Settings:
    """What a proxy is told.

    Args:
        registries: name to upstream URL.
        aliases: name to further names of the same registry.
        default_registry: where the mirror way in leads.
        tag_ttl: how long a tag is fresh.
        stale_if_error: how long a tag is served stale.
        timeouts: further deadlines, key to duration.
        access_log: ``logfmt`` or ``json``.
        cache: a cache directory that other proxies may share; None for one of its own.
        keys: further keys of the top level.
        tables: further tables, name to keys.
        registry_keys: further keys of registries, name to keys.
        listeners: further listeners, each by its keys.
        environment: further variables of the process.
    """

    registries: Mapping[str, str]
    aliases: Mapping[str, Sequence[str]] = field(factory=dict)
    default_registry: str = "docker.io"
    tag_ttl: str = "5m"
    stale_if_error: str = "30d"
    timeouts: Mapping[str, str] = field(factory=dict)
    access_log: str = "logfmt"
    cache: Path | None = None
    keys: Mapping[str, object] = field(factory=dict)
    tables: Mapping[str, Mapping[str, object]] = field(factory=dict)
    registry_keys: Mapping[str, Mapping[str, object]] = field(factory=dict)
    listeners: Sequence[Mapping[str, object]] = ()
    environment: Mapping[str, str] = field(factory=dict)


@define
class Proxy:
    """A regproxy process that can be stopped and started again on its cache.

    Args:
        directory: where configuration, cache, state and logs go.
        port: of the plain listener.
        tls_port: of the TLS listener.
        admin_port: of the admin endpoint.
        certificates: what the TLS listener shows.
        process: the process that runs or ran last.
        environment: further variables of each process.
    """

    directory: Path
    port: int
    tls_port: int
    admin_port: int
    certificates: Certificates
    process: Process
    environment: Mapping[str, str]

    @classmethod
    def start(cls, directory: Path, settings: Settings) -> Proxy:
        """Writes the configuration and starts a process, ready to serve."""
        certificates = Certificates.make(directory / "certificates")
        if settings.cache is not None:
            settings.cache.mkdir(exist_ok=True)
            (directory / "cache").symlink_to(settings.cache)
        port, tls_port, admin_port = free_port(), free_port(), free_port()
        text = _toml(directory, settings, (port, tls_port, admin_port), certificates)
        (directory / "regproxy.toml").write_text(text)
        environment = settings.environment
        process = launch(directory, environment=environment)
        proxy = cls(directory, port, tls_port, admin_port, certificates, process, environment)
        try:
            proxy._wait()
        except BaseException:
            proxy.process.kill()
            raise
        return proxy

    def restart(self) -> None:
        """Starts another process on the same configuration and cache."""
        self.process = launch(self.directory, environment=self.environment)
        self._wait()

    def stop(self) -> int:
        """Ends the process that runs now; its exit status."""
        return self.process.stop()

    @property
    def host(self) -> str:
        """The plain listener, as an image reference begins."""
        return f"127.0.0.1:{self.port}"

    @property
    def tls_host(self) -> str:
        """The TLS listener, as an image reference begins."""
        return f"127.0.0.1:{self.tls_port}"

    @property
    def url(self) -> str:
        """The plain listener's URL, without a slash at the end."""
        return f"http://{self.host}"

    @property
    def tls_url(self) -> str:
        """The TLS listener's URL, without a slash at the end."""
        return f"https://{self.tls_host}"

    @property
    def admin_url(self) -> str:
        """The admin endpoint's URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def cache(self) -> Path:
        """The cache directory."""
        return self.directory / "cache"

    def access_log(self) -> list[dict[str, str]]:
        """Every line of the access log, once nothing is added to it any more."""
        # A client has its last byte before the proxy has its line out.
        size = -1
        while size != (size := self.process.stdout.stat().st_size) and not self.process.ended():
            time.sleep(_SETTLED)
        return [_parse(line) for line in self.process.stdout.read_text().splitlines()]

    def application_log(self) -> str:
        """What the process wrote on its standard error."""
        return self.process.stderr.read_text(errors="replace")

    def wait_for_fills(self) -> None:
        """Returns once no fill runs: a client has its last byte before the blob has its name."""
        wait_until(lambda: not self.parts(), 30.0, "the fills to end", self.process.tail)

    def stored(self) -> list[Path]:
        """Every file that bears a blob's name."""
        return [path for path in (self.cache / "blobs").rglob("*") if path.is_file()]

    def parts(self) -> list[Path]:
        """Every file of a fill that runs, or was cut short."""
        return [path for path in (self.cache / "parts").rglob("*") if path.is_file()]

    def unverified(self) -> list[Path]:
        """The stored files whose content is not what their name says."""
        wrong = []
        for path in self.stored():
            with path.open("rb") as content:
                actual = hashlib.file_digest(content, path.relative_to(self.cache).parts[1])
            if actual.hexdigest() != path.name:
                wrong.append(path)
        return wrong

    def _wait(self) -> None:
        for port in (self.port, self.tls_port, self.admin_port):
            wait_for_port(port, self.process)

        def healthy() -> bool:
            return fetch(f"{self.admin_url}/healthz").status == 200

        wait_until(healthy, 15.0, "regproxy to be healthy", self.process.tail)


def launch(
    directory: Path,
    config: str = "regproxy.toml",
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Process:
    """Starts ``twistd -n regproxy`` with a configuration file in ``directory``."""
    source = str(Path(regproxy.__file__).resolve().parent.parent)
    argv = [*_TWISTD, "-n", "--pidfile=", "regproxy", "--config", str(directory / config)]
    # Where this regproxy lies, its plugin lies too, installed or not.
    return Process.start(
        argv,
        directory,
        name="regproxy",
        environment={**os.environ, "PYTHONPATH": source, **environment},
    )


def words(lines: Sequence[Mapping[str, str]]) -> list[str]:
    """The log's word for each request that asked for content, in the log's order."""
    return [line["cache"] for line in lines if line["cache"] != "-"]


def counted(lines: Sequence[Mapping[str, str]]) -> Counter[str]:
    """How often each word of the log came."""
    return Counter(words(lines))


def _parse(line: str) -> dict[str, str]:
    if line.startswith("{"):
        return {key: str(value) for key, value in json.loads(line).items()}
    return {
        key: json.loads(value) if value.startswith('"') else value
        for key, value in _FIELD.findall(line)
    }


def _toml(
    directory: Path, settings: Settings, ports: Sequence[int], certificates: Certificates
) -> str:
    plain, tls, admin = ports
    lines = [
        f"default_registry = {json.dumps(settings.default_registry)}",
        f"state_directory = {json.dumps(str(directory / 'state'))}",
        f"access_log = {json.dumps(settings.access_log)}",
        "well_known = false",
        *_keys(settings.keys),
        "[[listeners]]",
        f'endpoint = "tcp:{plain}:interface=127.0.0.1"',
        "[[listeners]]",
        f'endpoint = "tcp:{tls}:interface=127.0.0.1"',
        "tls = true",
        f"certificate = {json.dumps(str(certificates.certificate))}",
        f"private_key = {json.dumps(str(certificates.private_key))}",
        "[admin]",
        f'endpoint = "tcp:{admin}:interface=127.0.0.1"',
        "[cache]",
        f"directory = {json.dumps(str(directory / 'cache'))}",
        f"tag_ttl = {json.dumps(settings.tag_ttl)}",
        f"stale_if_error = {json.dumps(settings.stale_if_error)}",
        "[timeouts]",
        *_keys(settings.timeouts),
    ]
    for listener in settings.listeners:
        lines += ["[[listeners]]", *_keys(listener)]
    for table, keys in settings.tables.items():
        lines += [f"[{table}]", *_keys(keys)]
    for name, upstream in settings.registries.items():
        lines += [f"[registries.{json.dumps(name)}]", f"upstream = {json.dumps(upstream)}"]
        lines.append(f"aliases = {json.dumps(list(settings.aliases.get(name, ())))}")
        lines += _keys(settings.registry_keys.get(name, {}))
    return "\n".join(lines) + "\n"


def _keys(keys: Mapping[str, object]) -> list[str]:
    # Strings, numbers, booleans and arrays of them are written alike in JSON and TOML.
    return [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
