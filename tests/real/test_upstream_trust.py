"""Whom upstreams are taken for, how they are reached, and where they may lead."""

from __future__ import annotations

import json
from pathlib import Path

from attrs import frozen
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.real import peers
from tests.real.case import RealCase
from tests.real.certificates import Certificates
from tests.real.images import ACCEPT
from tests.real.library import library
from tests.real.outgoing import AUTHORIZATION, CREDENTIALS, Outgoing
from tests.real.processes import Process, free_port, wait_for_port
from tests.real.proxy import Proxy, Settings
from tests.real.rawhttp import Answer, fetch

NAME = "registry-a.test"
CLIENT_SECRET = "proxy-secret"

_NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        {more}
        location / {{ proxy_pass {upstream}; proxy_set_header Host $http_host; }}
    }}
}}
"""


@frozen
class TLSFront:
    """An nginx that speaks TLS in front of a registry.

    Args:
        port: where it listens.
        process: the process.
    """

    port: int
    process: Process

    @classmethod
    def start(
        cls, directory: Path, certificates: Certificates, upstream: str, more: str = ""
    ) -> TLSFront:
        """Listens on loopback; ``more`` are further directives."""
        program = peers.find("nginx")
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        path = directory / "nginx.conf"
        path.write_text(
            _NGINX.format(
                directory=directory,
                port=port,
                certificate=certificates.certificate,
                key=certificates.private_key,
                upstream=upstream,
                more=more,
            )
        )
        process = Process.start(
            [program, "-c", str(path), "-e", "stderr"], directory, name=f"tls-front-{port}"
        )
        wait_for_port(port, process)
        return cls(port, process)


class TrustCase(RealCase):
    """A registry behind TLS, and proxies with settings for it."""

    def setUp(self) -> None:
        """Makes the server's certificates."""
        super().setUp()
        self.certificates = Certificates.make(self.directory / "upstream-certificates")
        self.image = library().images["small"]

    def start_front(self, upstream: str, more: str = "") -> TLSFront:
        """TLS in front of a registry."""
        front = TLSFront.start(self.directory / "front", self.certificates, upstream, more)
        self.addCleanup(front.process.stop)
        return front

    def proxy_for(self, upstream: str, **keys: object) -> Proxy:
        """A regproxy whose one registry has these keys."""
        settings = Settings({NAME: upstream}, default_registry=NAME, registry_keys={NAME: keys})
        return self.start_proxy(settings)

    def manifest(self, proxy: Proxy) -> Answer:
        """What there is instead of, or as, the manifest."""
        return fetch(f"{proxy.url}/v2/{NAME}/team/app/manifests/small", headers=ACCEPT)

    def blob(self, proxy: Proxy) -> Answer:
        """What there is instead of, or as, a blob."""
        digest = self.image.layers[0].blob.digest
        return fetch(f"{proxy.url}/v2/{NAME}/team/app/blobs/{digest}")

    def assert_bad_gateway(self, answer: Answer, *words: str) -> None:
        """It is 502, and the message has these words."""
        self.assertEqual((answer.status, answer.error_code()), (502, "UNKNOWN"))
        message = json.loads(answer.body)["errors"][0]["message"]
        for word in words:
            self.assertIn(word, message)

    def assert_pull(self, proxy: Proxy) -> None:
        """The image comes through, whole."""
        name = f"{proxy.host}/{NAME}/team/app:small"
        self.assert_pulled(self.skopeo().pull(name), self.image)


class ClientCertificateTests(TrustCase):
    """An upstream that admits known clients alone."""

    def test_client_certificate(self) -> None:
        """With the certificate there is an image, without it a bad gateway."""
        known = Certificates.make(self.directory / "client", ExtendedKeyUsageOID.CLIENT_AUTH)
        front = self.start_front(
            self.start_registry().url,
            f"ssl_client_certificate {known.authority}; ssl_verify_client on;",
        )
        upstream = f"https://127.0.0.1:{front.port}"
        ca_file = str(self.certificates.authority)
        known.private_key.chmod(0o644)
        proxy = self.proxy_for(
            upstream,
            ca_file=ca_file,
            client_certificate=str(known.certificate),
            client_key=str(known.private_key),
        )
        self.assert_pull(proxy)
        self.assertIn(
            f"{NAME}: the private key in {known.private_key} can be read by others",
            proxy.application_log(),
        )
        # nginx answers 400 in HTTP to a client that shows no certificate.
        stranger = self.proxy_for(upstream, ca_file=ca_file)
        self.assertEqual(self.manifest(stranger).status, 400)
        self.assertEqual(stranger.stored(), [])


class InsecureTests(TrustCase):
    """An upstream that proves nothing."""

    def test_insecure(self) -> None:
        """It is a bad gateway, unless the operator says so, which is said at each start."""
        front = self.start_front(self.start_registry().url)
        upstream = f"https://127.0.0.1:{front.port}"
        self.assert_bad_gateway(
            self.manifest(self.proxy_for(upstream)), "certificate verify failed"
        )
        proxy = self.proxy_for(upstream, insecure=True)
        self.assert_pull(proxy)
        warning = f"{NAME}: insecure = true: the certificate of {upstream} is NOT verified"
        self.assertEqual(proxy.application_log().count(warning), 1)
        self.assertEqual(json.loads(fetch(f"{proxy.admin_url}/healthz").body)["insecure"], [NAME])
        proxy.stop()
        proxy.restart()
        self.assertEqual(proxy.application_log().count(warning), 2)


class OutgoingTests(TrustCase):
    """A proxy between regproxy and its upstreams."""

    def assert_no_secrets(self, proxy: Proxy, *answers: Answer) -> None:
        """No credential for the outgoing proxy is told to anybody."""
        proxy.access_log()
        texts = [log.read_text() for log in (proxy.process.stdout, proxy.process.stderr)]
        texts += [answer.body.decode("latin-1") for answer in answers]
        for secret in (CLIENT_SECRET, AUTHORIZATION.split()[1]):
            for text in texts:
                self.assertNotIn(secret, text)

    def test_https(self) -> None:
        """What is https goes through CONNECT, the certificate verified as ever."""
        front = self.start_front(self.start_registry().url)
        outgoing = Outgoing({f"localhost:{front.port}": front.port})
        self.addCleanup(outgoing.stop)
        upstream = f"https://localhost:{front.port}"
        trust = {"ca_file": str(self.certificates.authority)}
        proxy = self.proxy_for(upstream, proxy=outgoing.url(), **trust)
        self.assert_pull(proxy)
        self.assertEqual(set(outgoing.asked), {("CONNECT", f"localhost:{front.port}", True)})
        self.assert_no_secrets(proxy)
        used = f"upstreams are reached through the outgoing proxy 127.0.0.1:{outgoing.port}"
        self.assertIn(used, proxy.application_log())
        other = self.proxy_for(upstream, proxy=outgoing.url())
        self.assert_bad_gateway(self.manifest(other), "certificate verify failed")

    def test_http(self) -> None:
        """What is http is asked for with its whole URL, credential and all."""
        registry = self.start_registry()
        outgoing = Outgoing({"upstream.test:80": registry.port})
        self.addCleanup(outgoing.stop)
        proxy = self.proxy_for("http://upstream.test", proxy=outgoing.url())
        self.assert_pull(proxy)
        self.assertEqual({each[1:] for each in outgoing.asked}, {("upstream.test:80", True)})
        self.assertNotIn("CONNECT", {each[0] for each in outgoing.asked})
        self.assert_no_secrets(proxy)

    def test_refused(self) -> None:
        """What the outgoing proxy refuses is a bad gateway that says who refused what."""
        outgoing = Outgoing({})
        self.addCleanup(outgoing.stop)
        place = f"the outgoing proxy 127.0.0.1:{outgoing.port}"
        wrong = "proxy-user:other-proxy-secret"
        for upstream, credentials, words in (
            ("https://upstream.test", CREDENTIALS, f"{place} refused: 403 Not that one"),
            ("https://upstream.test", wrong, f"{place} does not accept its user name and password"),
            ("http://upstream.test", wrong, f"{place} does not accept its user name and password"),
        ):
            proxy = self.proxy_for(upstream, proxy=outgoing.url(credentials))
            answer = self.manifest(proxy)
            self.assert_bad_gateway(answer, "upstream.test:", words)
            self.assert_no_secrets(proxy, answer)

    def test_gone(self) -> None:
        """So is one that does not run."""
        proxy = self.proxy_for("https://upstream.test", proxy=f"http://127.0.0.1:{free_port()}")
        self.assert_bad_gateway(self.manifest(proxy), "outgoing proxy: connecting to 127.0.0.1:")

    def test_environment(self) -> None:
        """The environment's is used where none is configured, and never for this machine."""
        registry, near = self.start_registry(), self.start_registry("near")
        outgoing = Outgoing({"upstream.test:80": registry.port})
        self.addCleanup(outgoing.stop)
        environment = {"HTTP_PROXY": outgoing.url(), "NO_PROXY": "spared.test"}
        for lower in ("http_proxy", "https_proxy", "no_proxy"):
            environment[lower] = ""
        registries = {NAME: "http://upstream.test", "near.test": near.url}
        registries["spared.test"] = "http://spared.test"
        settings = Settings(
            registries,
            default_registry=NAME,
            environment=environment,
            registry_keys={"spared.test": {"resolve": ["127.0.0.1"]}},
        )
        proxy = self.start_proxy(settings)
        self.assertEqual(self.manifest(proxy).status, 200)
        asked = len(outgoing.asked)
        self.assertGreater(asked, 0)
        url = f"{proxy.url}/v2/near.test/team/app/manifests/small"
        self.assertEqual(fetch(url, headers=ACCEPT).status, 200)
        fetch(f"{proxy.url}/v2/spared.test/team/app/manifests/small", headers=ACCEPT)
        self.assertEqual(len(outgoing.asked), asked)
        self.assert_no_secrets(proxy)

    def test_configured_none(self) -> None:
        """A configuration that says none is heard before the environment."""
        proxy = self.start_proxy(
            Settings(
                {NAME: self.start_registry().url, "far.test": "http://far.test"},
                default_registry=NAME,
                keys={"proxy": "none"},
                environment={"HTTP_PROXY": "socks5://nobody", "http_proxy": "socks5://nobody"},
                registry_keys={"far.test": {"resolve": ["127.0.0.1"]}},
            )
        )
        self.assertEqual(self.manifest(proxy).status, 200)


class DestinationTests(TrustCase):
    """Upstreams that lead inwards."""

    def test_metadata(self) -> None:
        """Even an upstream on this machine does not lead to a cloud's metadata."""
        proxy = self.proxy_for(self.start_registry(redirect="http://169.254.169.254").url)
        self.assertEqual(self.manifest(proxy).status, 200)
        self.assert_bad_gateway(
            self.blob(proxy),
            f"{NAME} leads to 169.254.169.254, a link-local address",
            f'allowed_addresses of registries."{NAME}"',
        )

    def test_public(self) -> None:
        """One that is not known to be on this machine does not lead to it, unless allowed."""
        storage = self.start_storage_host()
        registry = self.start_registry(redirect=storage.url)
        outgoing = Outgoing(
            {"upstream.test:80": registry.port, f"127.0.0.1:{storage.port}": storage.port}
        )
        self.addCleanup(outgoing.stop)
        proxy = self.proxy_for("http://upstream.test", proxy=outgoing.url())
        self.assertEqual(self.manifest(proxy).status, 200)
        self.assert_bad_gateway(self.blob(proxy), "leads to 127.0.0.1, a loopback address")
        self.assertEqual(storage.requests(), [])
        allowed = self.proxy_for(
            "http://upstream.test", proxy=outgoing.url(), allowed_addresses=["127.0.0.0/8"]
        )
        self.assert_pull(allowed)
        self.assertNotEqual(storage.requests(), [])
