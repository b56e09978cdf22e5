"""The way in for twistd: what is built, how it starts, what it prints where, how it stops."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from twisted.application.service import Application, IServiceCollection, Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase

import regproxy
from regproxy.front.listeners import Listener
from regproxy.service import RegproxyService
from regproxy.tap import Options, make_service
from tests.front.proxy import parse_logfmt
from tests.real.certificates import Certificates

ROOT = Path(regproxy.__file__).resolve().parent.parent
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
DATA = os.urandom(300_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
BLOB = f"/v2/library/alpine/blobs/{DIGEST}"
PATIENCE = 60.0  # seconds, on a busy machine


class OptionsTests(SynchronousTestCase):
    """What the command line and the files it names must be."""

    def setUp(self) -> None:
        """Makes a directory for files."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def options(self, text: str) -> Options:
        """The options for a configuration file with this text."""
        path = self.directory / "regproxy.toml"
        path.write_text(f'state_directory = "state"\n[cache]\ndirectory = "cache"\n{text}')
        options = Options()
        options.parseOptions(["--config", str(path)])
        return options

    def refusal(self, text: str) -> str:
        """The one line that ends the start."""

        def start() -> None:
            make_service(self.options(text), MemoryReactorClock())

        said = str(self.assertRaises(SystemExit, start))
        self.assertNotIn("\n", said)
        self.assertFalse((self.directory / "cache").exists())
        return said

    def test_mistake(self) -> None:
        """A mistake in the file is one line that says where, what, and what would do."""
        said = self.refusal("[limits]\nconections = 5\n")
        self.assertIn("regproxy.toml", said)
        self.assertIn("limits.conections", said)
        self.assertIn('"connections"', said)

    def test_no_file(self) -> None:
        """A file that is not there is named."""
        said = self.assertRaises(SystemExit, Options().parseOptions, ["--config", "/nowhere.toml"])
        self.assertIn("/nowhere.toml", str(said))

    def test_wrong_key(self) -> None:
        """A key that does not belong to its certificate ends the start."""
        one = Certificates.make(self.directory / "one")
        two = Certificates.make(self.directory / "two")
        said = self.refusal(
            '[[listeners]]\nendpoint = "tcp:0"\ntls = true\n'
            f'certificate = "{one.certificate.resolve()}"\n'
            f'private_key = "{two.private_key.resolve()}"\n'
        )
        self.assertIn("listeners[0].private_key: found", said)
        self.assertIn("expected the key of the certificate in", said)
        self.assertIn("server.key", said)

    def test_no_certificates(self) -> None:
        """So does a file of roots in which there are none."""
        roots = self.directory / "roots.pem"
        roots.write_text("nothing")
        said = self.refusal(f'[registries."quay.io"]\nca_file = "{roots.resolve()}"\n')
        self.assertIn("roots.pem", said)

    def test_wrong_client_key(self) -> None:
        """So does a client's key that does not belong to its certificate."""
        one = Certificates.make(self.directory / "one")
        two = Certificates.make(self.directory / "two")
        said = self.refusal(
            f'[registries."quay.io"]\nclient_certificate = "{one.certificate.resolve()}"\n'
            f'client_key = "{two.private_key.resolve()}"\n'
        )
        self.assertIn('registries."quay.io".client_key: found', said)
        self.assertIn("expected the key of the certificate in", said)

    def test_services(self) -> None:
        """There is a listener for each endpoint, and nothing is touched before the start."""
        options = self.options(
            '[[listeners]]\nendpoint = "tcp:5000"\n[[listeners]]\nendpoint = "tcp:5002"\n'
            '[admin]\nendpoint = ""\n'
        )
        reactor = MemoryReactorClock()
        *_, front = list(IServiceCollection(make_service(options, reactor)))
        self.assertEqual([type(service) for service in front], [Listener, Listener])
        self.assertEqual(reactor.tcpServers, [])
        self.assertFalse((self.directory / "cache").exists())

    def test_state(self) -> None:
        """What the state directory must hold is tried at the start; trouble is one line."""
        minting = '[[listeners]]\nendpoint = "tcp:0"\ntls = true\n'
        pushing = '[registries."quay.io"]\npush = "relay"\n'
        for text, file in ((minting, "ca/ca.key"), (pushing, "tokens.key")):
            make_service(self.options(text), MemoryReactorClock())
            self.assertFalse((self.directory / "state").exists())
            service = make_service(self.options(text), MemoryReactorClock())
            preparation = next(iter(IServiceCollection(service)))
            preparation.startService()
            key = self.directory / "state" / file
            self.assertEqual(key.stat().st_mode & 0o777, 0o600)
            key.chmod(0o644)
            service = make_service(self.options(text), MemoryReactorClock())
            said = str(self.assertRaises(SystemExit, service.startService))
            self.assertTrue(said.startswith("regproxy: cannot start: "), said)
            self.assertIn(str(self.directory.resolve() / "state"), said)
            self.assertNotIn("\n", said)
            shutil.rmtree(self.directory / "state")
        make_service(self.options(""), MemoryReactorClock())
        self.assertFalse((self.directory / "state").exists())

    def test_log_to_stderr(self) -> None:
        """Unless twistd was told otherwise, its log goes where the access log does not."""
        for told in (False, True):
            application = Application("regproxy")
            service = RegproxyService(log_to_stderr=not told)
            service.setServiceParent(application)
            observer = application.getComponent(ILogObserver, None)
            self.assertEqual(observer is None, told)


class _Slow(Service):
    """A service that stops when it is told."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name = name
        self.said = said
        self.stopped: Deferred[None] = Deferred()

    def stopService(self) -> Deferred[None]:
        """See IService."""
        self.said.append(str(self.name))
        return self.stopped


class OrderTests(SynchronousTestCase):
    """Stopping from the listeners inwards."""

    def test_order(self) -> None:
        """The cache stays open until the last request is over."""
        said: list[str] = []
        service = RegproxyService(log_to_stderr=False)
        cache, front = _Slow("cache", said), _Slow("front", said)
        for one in (cache, front):
            one.setServiceParent(service)
        done = service.stopService()
        self.assertEqual(said, ["front"])
        front.stopped.callback(None)
        self.assertEqual(said, ["front", "cache"])
        cache.stopped.callback(None)
        self.successResultOf(done)


class _Upstream(BaseHTTPRequestHandler):
    """A registry with one blob, whose second half waits."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def do_GET(self) -> None:
        """Answers."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[: len(DATA) // 2])
        self.wfile.flush()
        self.go_on.wait(PATIENCE)
        self.wfile.write(DATA[len(DATA) // 2 :])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


class ProcessTests(SynchronousTestCase):
    """Real processes under twistd."""

    def setUp(self) -> None:
        """Writes a configuration, with an upstream on loopback behind it."""
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.port, self.admin = _free_port(), _free_port()
        _Upstream.go_on = threading.Event()
        _Upstream.go_on.set()
        upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
        thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(upstream.server_close)
        self.addCleanup(upstream.shutdown)
        self.addCleanup(_Upstream.go_on.set)
        (self.directory / "regproxy.toml").write_text(
            f"""
            state_directory = "state"
            [[listeners]]
            endpoint = "tcp:{self.port}:interface=127.0.0.1"
            [admin]
            endpoint = "tcp:{self.admin}:interface=127.0.0.1"
            [cache]
            directory = "cache"
            [registries."docker.io"]
            upstream = "http://127.0.0.1:{upstream.server_address[1]}"
            """
        )

    def start(self, stdout: int = subprocess.PIPE, *, ready: bool = True) -> subprocess.Popen[str]:
        """A process, ready to serve unless it is not expected to be."""
        process = subprocess.Popen(
            [*TWISTD, "-n", "--pidfile=", "regproxy", "--config", "regproxy.toml"],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end, process)
        give_up = time.monotonic() + PATIENCE
        while ready and time.monotonic() < give_up:
            try:
                self.get("/v2/").close()
                break
            except ConnectionRefusedError:
                self.assertIsNone(process.poll(), "it has ended")
                time.sleep(0.02)
        return process

    def end(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Kills what still runs; its outputs."""
        process.kill()
        return process.communicate()

    def stop(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """Stops it as an init system does, and asserts that it went in order; its outputs."""
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=PATIENCE)
        self.assert_ended(process, error)
        return out, error

    def assert_ended(self, process: subprocess.Popen[str], error: str) -> None:
        """Asserts an orderly end; twistd then dies of the signal that it was sent."""
        self.assertEqual(process.returncode, -signal.SIGTERM, error)
        self.assertIn("Server Shut Down", error)
        self.assertNotIn("Traceback", error)

    def get(self, target: str, port: int = 0) -> http.client.HTTPResponse:
        """An answer, its body not yet read."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=PATIENCE)
        connection.request("GET", target)
        return connection.getresponse()

    def test_outputs_and_second_start(self) -> None:
        """Requests go to stdout, all else to stderr; the next process serves from the cache."""
        for word in ("MISS", "HIT"):
            process = self.start()
            self.assertTrue(self.get(BLOB).read() == DATA)
            self.assertEqual(json.loads(self.get("/healthz", self.admin).read())["status"], "ok")
            out, error = self.stop(process)
            lines = [parse_logfmt(line) for line in out.splitlines()]
            self.assertEqual([line["cache"] for line in lines], ["-", word])
            self.assertEqual(lines[-1]["reference"], DIGEST)
            self.assertIn("twistd", error)
            self.assertNotIn(DIGEST, error)
            self.assertNotIn("healthz", error)
            _Upstream.go_on.clear()

    def test_drain(self) -> None:
        """A pull that runs at SIGTERM is finished, and logged."""
        process = self.start()
        _Upstream.go_on.clear()
        answer = self.get(BLOB)
        begun = answer.read(1000)
        process.send_signal(signal.SIGTERM)
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                self.get("/v2/").close()
            except OSError:
                break
        _Upstream.go_on.set()
        self.assertTrue(begun + answer.read() == DATA)
        answer.close()
        out, error = process.communicate(timeout=PATIENCE)
        self.assert_ended(process, error)
        self.assertEqual(parse_logfmt(out.splitlines()[-1])["bytes"], str(len(DATA)))

    def test_cut(self) -> None:
        """One that is still running at the drain deadline is cut, and logged all the same."""
        path = self.directory / "regproxy.toml"
        path.write_text(path.read_text() + '[timeouts]\ndrain = "100ms"\n')
        process = self.start()
        _Upstream.go_on.clear()
        answer = self.get(BLOB)
        answer.read(1000)
        out, _ = self.stop(process)
        answer.close()
        line = parse_logfmt(out.splitlines()[-1])
        self.assertEqual((line["reference"], line["note"]), (DIGEST, "client left"))

    def test_stalled_log(self) -> None:
        """A reader of the access log that has stalled neither stops the service nor its stop."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        process = self.start(writer)
        os.close(writer)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        for _ in range(60):
            connection.request("GET", "/v2/")
            self.assertEqual(connection.getresponse().read(), b"{}")
        connection.close()
        time.sleep(0.2)
        began = time.monotonic()
        _, error = self.stop(process)
        self.assertLess(time.monotonic() - began, 30)
        self.assertIn("lines are lost, their reader is stalled", error)

    def assert_refused_start(self, said: str) -> None:
        """Asserts that a process does not start, and says why in one line."""
        process = self.start(ready=False)
        out, error = process.communicate(timeout=PATIENCE)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(out, "")
        self.assertNotIn("Traceback", error)
        self.assertIn(said, error)

    def test_port_in_use(self) -> None:
        """A port in use ends the start, that of the admin endpoint too."""
        for port in (self.port, self.admin):
            with socket.create_server(("127.0.0.1", port)):
                self.assert_refused_start(str(port))

    def test_cache_directory_in_the_way(self) -> None:
        """A cache directory that cannot be one ends the start."""
        (self.directory / "cache").mkdir()
        (self.directory / "cache" / "blobs").write_text("")
        self.assert_refused_start("blobs")

    def test_mistake(self) -> None:
        """A mistake in the configuration ends it before twistd says a word of its own."""
        path = self.directory / "regproxy.toml"
        path.write_text(path.read_text().replace('directory = "cache"', "directory = 5"))
        self.assert_refused_start("cache.directory")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
