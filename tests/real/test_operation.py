"""Starting, stopping, and what an operator sees."""

from __future__ import annotations

import http.client
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.real.case import RealCase
from tests.real.certificates import Certificates
from tests.real.images import ACCEPT
from tests.real.library import library
from tests.real.processes import free_port, is_listening, wait_until
from tests.real.proxy import Settings, launch
from tests.real.rawhttp import fetch

_MIB = 1 << 20


class BadConfigurationTests(RealCase):
    """A configuration with a mistake in it ends the start."""

    def assert_refused(self, text: str, *expected: str) -> None:
        """One line says what is wrong, the status is not 0, and nothing listens."""
        port, admin = free_port(), free_port()
        directory = self.directory / "regproxy"
        directory.mkdir(exist_ok=True)
        (directory / "bad.toml").write_text(
            text.replace("PORT", str(port)).replace("ADMIN", str(admin))
        )
        process = launch(directory, "bad.toml")
        self.addCleanup(process.stop)
        heard = False

        def ended() -> bool:
            nonlocal heard
            heard = heard or is_listening(port) or is_listening(admin)
            return process.ended()

        wait_until(ended, 20.0, "regproxy to refuse its configuration", process.tail)
        self.assertNotEqual(process.wait(5.0), 0)
        self.assertFalse(heard, "it listened")
        said = process.stdout.read_text() + process.stderr.read_text()
        process.stdout.write_text("")
        process.stderr.write_text("")
        self.assertEqual(len(said.splitlines()), 1, said)
        for part in ("bad.toml", *expected):
            self.assertIn(part, said)

    def test_unknown_key(self) -> None:
        """An unknown key is named with its path, and with the nearest that exists."""
        text = _LISTENS + '[cache]\ntag_tll = "5m"\n'
        self.assert_refused(text, "cache.tag_tll", '"tag_ttl"')

    def test_bad_values(self) -> None:
        """A wrong value is named with its path, what was found and what was expected."""
        cases = {
            '[cache]\ntag_ttl = "5 parsecs"\n': ("cache.tag_ttl", "5 parsecs", "expected"),
            '[registries."quay.io"]\nupstream = "ftp://x"\n': ('"quay.io".upstream', "ftp://x"),
            "[limits]\nconnections = 0\n": ("limits.connections", "0"),
            '[[listeners]]\nendpoint = "tpc:1"\n': ("listeners[1].endpoint", "tpc:1"),
        }
        for text, expected in cases.items():
            self.assert_refused(_LISTENS + text, *expected)

    def test_no_toml(self) -> None:
        """A file that does not parse is refused with the line."""
        self.assert_refused(_LISTENS + "[cache\n", "line 6")

    def test_missing_certificate(self) -> None:
        """A TLS listener without a readable certificate is refused."""
        text = _LISTENS + '[[listeners]]\nendpoint = "tcp:0"\ntls = true\ncertificate = "no.pem"\n'
        self.assert_refused(text, "listeners[1]", "no.pem")

    def test_bad_certificates(self) -> None:
        """Files that are there and hold no certificate, or one of another key, are refused."""
        made = [Certificates.make(self.directory / name) for name in ("one", "other")]
        nothing = self.directory / "nothing.pem"
        nothing.write_text("nothing\n")
        tls = _LISTENS + 'tls = true\ncertificate = "{}"\nprivate_key = "{}"\n'
        certificate, key = made[0].certificate, made[0].private_key
        self.assert_refused(tls.format(nothing, key), "listeners[0]", str(nothing))
        self.assert_refused(tls.format(certificate, nothing), "listeners[0]", str(nothing))
        self.assert_refused(tls.format(certificate, made[1].private_key), "listeners[0]", "key")
        text = f'[registries."a.test"]\nca_file = "{nothing}"\n'
        self.assert_refused(_LISTENS + text, '"a.test".ca_file', str(nothing))


class UnusableDirectoryTests(RealCase):
    """The cache directory cannot be made."""

    def test_start(self) -> None:
        """The start ends, and says which directory it was, without a traceback."""
        # Nobody makes a directory there, not even root.
        cache = Path("/proc/regproxy")
        config = self.directory / "regproxy.toml"
        ports = {"PORT": str(free_port()), "ADMIN": str(free_port())}
        text = _LISTENS + f'[cache]\ndirectory = "{cache}"\n'
        for name, port in ports.items():
            text = text.replace(name, port)
        config.write_text(text)
        process = launch(self.directory)
        self.addCleanup(process.stop)
        self.assertNotEqual(process.wait(20.0), 0)
        said = process.stdout.read_text() + process.stderr.read_text()
        self.assertIn(str(cache), said)
        self.assertNotIn("Traceback", said)


_LISTENS = """\
[admin]
endpoint = "tcp:ADMIN:interface=127.0.0.1"

[[listeners]]
endpoint = "tcp:PORT:interface=127.0.0.1"
"""


class TakenPortTests(RealCase):
    """Somebody listens already."""

    def test_second_start(self) -> None:
        """A second process on the same ports ends at once, and the first serves on."""
        proxy = self.start_proxy(Settings({"docker.io": "http://127.0.0.1:1"}))
        (self.directory / "second").mkdir()
        config = (proxy.directory / "regproxy.toml").read_text()
        (self.directory / "second/regproxy.toml").write_text(config)
        second = launch(self.directory / "second")
        self.addCleanup(second.stop)
        self.assertNotEqual(second.wait(20.0), 0)
        self.assertIn(str(proxy.port), second.stderr.read_text())
        self.assertEqual(fetch(f"{proxy.url}/v2/").status, 200)


class StoppingTests(RealCase):
    """SIGTERM."""

    def assert_ended_cleanly(self, status: int) -> None:
        """By itself: twistd passes the signal on to itself when all is done."""
        self.assertIn(status, {0, -signal.SIGTERM})

    def test_idle(self) -> None:
        """An idle process ends at once, and its ports are free."""
        proxy = self.start_proxy_for(self.start_registry())
        started = time.monotonic()
        self.assert_ended_cleanly(proxy.stop())
        self.assertLess(time.monotonic() - started, 4.0)
        for port in (proxy.port, proxy.tls_port, proxy.admin_port):
            self.assertFalse(is_listening(port))

    def test_idle_connection(self) -> None:
        """A client's open connection without a request does not hold it up."""
        proxy = self.start_proxy_for(self.start_registry())
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        self.addCleanup(connection.close)
        connection.request("GET", "/v2/")
        self.assertEqual(connection.getresponse().read(), b"{}")
        started = time.monotonic()
        self.assert_ended_cleanly(proxy.stop())
        self.assertLess(time.monotonic() - started, 4.0)

    def test_running_pull(self) -> None:
        """What runs is finished, while nobody new is let in."""
        host = self.start_storage_host(rate=4 * _MIB)
        proxy = self.start_proxy_for(self.start_registry(redirect=host.url))
        blob = library().images["medium"].layers[1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(fetch, url)
            wait_until(lambda: bool(proxy.parts()), 10.0, "the fill to start")
            proxy.process.signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(proxy.port), 3.0, "the listener to close")
            self.assertFalse(client.done())
            self.assertEqual(client.result().digest, blob.digest)
        self.assert_ended_cleanly(proxy.process.wait(10.0))

    def test_past_the_deadline(self) -> None:
        """What is not finished by then is cut, and leaves no unverified blob."""
        host = self.start_storage_host(rate=_MIB // 2)
        registry = self.start_registry(redirect=host.url)
        proxy = self.start_proxy_for(registry, timeouts={"drain": "1s"})
        blob = library().images["medium"].layers[1].blob
        url = f"{proxy.url}/v2/registry-a.test/team/app/blobs/{blob.digest}"
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(fetch, url)
            wait_until(lambda: bool(proxy.parts()), 10.0, "the fill to start")
            started = time.monotonic()
            proxy.process.signal(signal.SIGTERM)
            self.assert_ended_cleanly(proxy.process.wait(10.0))
            self.assertTrue(0.8 < time.monotonic() - started < 5.0)
            self.assertIsNotNone(client.exception(timeout=10.0))
        self.assertEqual(proxy.stored(), [])


class LogTests(RealCase):
    """Health, and the access log."""

    def test_health(self) -> None:
        """``/healthz`` is on the admin endpoint; ``/v2/`` is not."""
        proxy = self.start_proxy_for(self.start_registry())
        self.assertEqual(fetch(f"{proxy.admin_url}/healthz").status, 200)
        self.assertEqual(fetch(f"{proxy.admin_url}/v2/").status, 404)

    def test_columns(self) -> None:
        """``docker pull`` twice reads as a column of MISS, then a column of HIT."""
        proxy = self.start_proxy_for(self.start_registry())
        docker = self.start_docker(proxy.url)
        image = library().images["small"]
        columns = []
        for _ in range(2):
            before = len(proxy.access_log())
            self.assert_pulled(docker.pull("app:small"), image)
            proxy.wait_for_fills()
            log = proxy.access_log()[before:]
            columns.append([line for line in log if line["cache"] != "-"])
        first, second = ({line["cache"] for line in column} for column in columns)
        self.assertEqual((first, second), ({"MISS"}, {"HIT"}))
        asked = {line["reference"] for line in columns[0]}
        wanted = {image.digest, "small", *(blob.digest for blob in image.blobs)}
        self.assertEqual(asked, wanted)
        for line in columns[0]:
            self.assertEqual((line["registry"], line["repository"]), ("docker.io", "library/app"))
            self.assertEqual((line["status"], line["way"]), ("200", "mirror"))
            self.assertTrue(line["client"].startswith("127.0.0.1"), line)
            self.assertGreaterEqual(float(line["seconds"]), 0.0)
        sent = {line["reference"]: int(line["bytes"]) for line in columns[0]}
        for blob in image.blobs:
            self.assertEqual(sent[blob.digest], blob.size)

    def test_json(self) -> None:
        """The same as JSON, one object a line, and the start said on standard error."""
        proxy = self.start_proxy_for(self.start_registry(), access_log="json")
        fetch(f"{proxy.url}/v2/registry-a.test/team/app/manifests/small", headers=ACCEPT)
        proxy.access_log()
        lines = [json.loads(line) for line in proxy.process.stdout.read_text().splitlines()]
        (line,) = (line for line in lines if line.get("reference") == "small")
        self.assertEqual((line["cache"], line["status"]), ("MISS", 200))
        self.assertEqual((line["registry"], line["method"]), ("registry-a.test", "GET"))
        self.assertIn(str(proxy.port), proxy.application_log())
