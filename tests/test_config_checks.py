"""Tests for :mod:`regproxy.config_checks`."""

from __future__ import annotations

from regproxy.config_well_known import WELL_KNOWN
from tests.test_config_file import FILE, FileTestCase

HTTP = 'found "http://r.corp", expected an https URL'
BOTH = (
    "found true beside ca_file, expected one of the two, since with it nobody has to vouch for "
    "upstream"
)


class TogetherTests(FileTestCase):
    """Keys that are right alone may be wrong together."""

    def test_shared_names(self) -> None:
        """A name means one registry; the one to blame stands in the file."""
        for text, path, name, owner in (
            (
                '[registries."registry-1.docker.io"]',
                'registries."registry-1.docker.io"',
                "registry-1.docker.io",
                "docker.io",
            ),
            (
                '[registries.hub]\naliases = ["h", "Index.docker.io"]',
                "registries.hub.aliases[1]",
                "index.docker.io",
                "docker.io",
            ),
            (
                '[registries.hub]\naliases = ["docker.io"]\n[registries."docker.io"]',
                "registries.hub.aliases[0]",
                "docker.io",
                "docker.io",
            ),
            (
                '[registries.a]\naliases = ["c"]\n[registries.b]\naliases = ["c"]',
                "registries.b.aliases[0]",
                "c",
                "a",
            ),
            ('[registries.a]\naliases = ["b"]\n[registries.b]', "registries.b", "b", "a"),
        ):
            self.assertEqual(
                self.refusal(text),
                f'{path}: found "{name}", which is a name of {owner}, expected a name that no '
                "other registry has",
            )
        self.load('[registries.a]\naliases = ["a", "b", "b"]')

    def test_default_registry(self) -> None:
        """The default registry is configured."""
        known = ", ".join(sorted(WELL_KNOWN))
        self.assertEqual(
            self.refusal('default_registry = "quai.io"'),
            f'default_registry: found "quai.io", expected a configured registry: {known} '
            '(did you mean "quay.io"?)',
        )
        self.assertEqual(
            self.refusal("well_known = false"),
            'default_registry: found "docker.io", expected a configured registry: there is none',
        )

    def test_endpoints(self) -> None:
        """Nothing is listened on twice, the admin endpoint's default included."""
        for text, path in (
            ('listeners = [{endpoint = "tcp:80"}, {endpoint = "tcp:80"}]', "listeners[1]"),
            ('listeners = [{endpoint = "tcp:5001:interface=127.0.0.1"}]', "admin"),
        ):
            message = self.refusal(text)
            self.assertTrue(message.startswith(f"{path}.endpoint: found "), message)
            self.assertTrue(
                message.endswith(
                    ", as listeners[0].endpoint has it, expected an endpoint of its own"
                )
            )

    def test_tls(self) -> None:
        """Certificate and key need each other, and TLS."""
        (self.directory / "a.pem").touch()
        listener = '[[listeners]]\nendpoint = "tcp:443"\n'
        for text, message in (
            (
                'tls = true\ncertificate = "a.pem"',
                f"private_key: found nothing, {FILE}, since certificate is given",
            ),
            (
                'tls = true\nprivate_key = "a.pem"',
                f"certificate: found nothing, {FILE}, since private_key is given",
            ),
            (
                'private_key = "a.pem"',
                "tls: found no TLS, expected tls = true, since private_key is given",
            ),
        ):
            self.assertEqual(self.refusal(listener + text), f"listeners[0].{message}")

    def test_ca_file(self) -> None:
        """Certificate authorities for an upstream without TLS are a mistake."""
        (self.directory / "ca.pem").touch()
        self.assertEqual(
            self.refusal('[registries."r.corp"]\nca_file = "ca.pem"\nupstream = "http://r.corp"'),
            'registries."r.corp".upstream: found "http://r.corp", expected an https URL, since '
            "ca_file is given",
        )

    def test_client_certificate(self) -> None:
        """A client's certificate and its key need each other, and TLS."""
        (self.directory / "c.pem").touch()
        path = 'registries."r.corp"'
        for text, message in (
            (
                'client_certificate = "c.pem"',
                f"client_key: found nothing, {FILE}, since client_certificate is given",
            ),
            (
                'client_key = "c.pem"',
                f"client_certificate: found nothing, {FILE}, since client_key is given",
            ),
            (
                'client_certificate = "c.pem"\nclient_key = "c.pem"\nupstream = "http://r.corp"',
                f"upstream: {HTTP}, since client_certificate is given",
            ),
        ):
            self.assertEqual(self.refusal(f"[{path}]\n{text}"), f"{path}.{message}")

    def test_insecure(self) -> None:
        """Not to verify what is not encrypted, or with given authorities, is a mistake."""
        (self.directory / "ca.pem").touch()
        path = 'registries."r.corp"'
        for text, message in (
            (
                'upstream = "http://r.corp"',
                f"upstream: {HTTP}, since insecure is given",
            ),
            (
                'ca_file = "ca.pem"',
                f"insecure: {BOTH}",
            ),
        ):
            refusal = self.refusal(f"[{path}]\ninsecure = true\n{text}")
            self.assertEqual(refusal, f"{path}.{message}")
        self.assertTrue(self.load(f"[{path}]\ninsecure = true").registries["r.corp"].insecure)

    def test_minted(self) -> None:
        """TLS without certificate and key is right: certificates are minted."""
        config = self.load('[[listeners]]\nendpoint = "tcp:443"\ntls = true')
        (listener,) = config.listeners
        self.assertTrue(listener.tls)
        self.assertIsNone(listener.certificate)
        self.assertIsNone(listener.private_key)


class OwnNamesTests(FileTestCase):
    """The proxy's own names are no registry's."""

    def test_shared(self) -> None:
        """A name that cannot mean both is a mistake, whichever port clients leave out."""
        registry = '[registries."r.corp:80"]\naliases = ["a.corp:5000", "b.corp"]\n'
        for names, n, found, owner in (
            ('["p.corp", "Quay.IO"]', 1, "quay.io", "quay.io"),
            ('["quay.io:443"]', 0, "quay.io:443", "quay.io"),
            ('["index.docker.io"]', 0, "index.docker.io", "docker.io"),
            ('["r.corp:80"]', 0, "r.corp:80", "r.corp:80"),
            ('["r.corp"]', 0, "r.corp", "r.corp:80"),
            ('["r.corp:443"]', 0, "r.corp:443", "r.corp:80"),
            ('["a.corp:5000"]', 0, "a.corp:5000", "r.corp:80"),
            ('["b.corp."]', 0, "b.corp", "r.corp:80"),
        ):
            self.assertEqual(
                self.refusal(f"names = {names}\n{registry}"),
                f'names[{n}]: found "{found}", which is a name of {owner}, expected a name that '
                "no registry has",
            )

    def test_another_port(self) -> None:
        """Proxy and registry may share a machine, on ports of their own."""
        config = self.load(
            'names = ["m.corp", "n.corp:5000", "m.corp"]\n'
            '[registries."m.corp:5001"]\n[registries."n.corp"]'
        )
        self.assertEqual(config.names, ("m.corp", "n.corp:5000", "m.corp"))

    def test_docker_proxy(self) -> None:
        """The fixed name of older set-ups can be named, and cannot be a registry's."""
        self.assertEqual(self.load('names = ["docker.proxy"]').names, ("docker.proxy",))
        for text, path, found in (
            ('[registries."Docker.Proxy"]', 'registries."docker.proxy"', "docker.proxy"),
            (
                '[registries.r]\naliases = ["a", "docker.proxy:8080"]',
                "registries.r.aliases[1]",
                "docker.proxy:8080",
            ),
        ):
            self.assertEqual(
                self.refusal(text),
                f'{path}: found "{found}", expected another name, for this one is the proxy\'s own',
            )


class AuthorityTests(FileTestCase):
    """An authority of one's own, or one that is bound to domains."""

    def setUp(self) -> None:
        """Make a file that may be a certificate."""
        super().setUp()
        (self.directory / "a.pem").touch()

    def test_own(self) -> None:
        """Certificate and key are found beside the file."""
        path = self.directory / "a.pem"
        config = self.load('[ca]\ncertificate = "a.pem"\nprivate_key = "a.pem"')
        self.assertEqual((config.ca.certificate, config.ca.private_key), (path, path))
        self.assertEqual(config.ca.permitted_domains, ())

    def test_pair(self) -> None:
        """One of the two without the other is a mistake."""
        for given, missing in (("certificate", "private_key"), ("private_key", "certificate")):
            self.assertEqual(
                self.refusal(f'[ca]\n{given} = "a.pem"'),
                f"ca.{missing}: found nothing, {FILE}, since {given} is given",
            )

    def test_own_with_domains(self) -> None:
        """Domains beside a certificate that exists already are a mistake."""
        self.assertEqual(
            self.refusal(
                '[ca]\ncertificate = "a.pem"\nprivate_key = "a.pem"\npermitted_domains = ["corp"]'
            ),
            "ca.permitted_domains: found domains beside a certificate, expected one of the two, "
            "since only a certificate that regproxy makes can be bound to them",
        )

    def test_within(self) -> None:
        """Registries in the file lie within; well-known ones that it does not name need not."""
        config = self.load(
            '[ca]\npermitted_domains = ["Corp.Example.", "quay.io", "hub", '
            '"10.0.0.0/8", "FD00::5"]\n'
            '[registries."quay.io"]\naliases = ["hub"]\n'
            '[registries."corp.example"]\n[registries."a.b.corp.example:5000"]\n'
            '[registries."10.1.2.3:5000"]\n[registries."[fd00::5]:5000"]\n'
        )
        self.assertEqual(
            config.ca.permitted_domains,
            ("corp.example", "quay.io", "hub", "10.0.0.0/8", "fd00::5"),
        )

    def test_outside(self) -> None:
        """A registry or alias in the file that lies outside is a mistake."""
        for text, path, found in (
            ('[registries."ghcr.io"]', 'registries."ghcr.io"', "ghcr.io"),
            (
                '[registries."quay.io"]\naliases = ["a.quay.io", "q"]',
                'registries."quay.io".aliases[1]',
                "q",
            ),
            ('[registries."xquay.io:5000"]', 'registries."xquay.io:5000"', "xquay.io:5000"),
            ('[registries."192.168.0.1"]', 'registries."192.168.0.1"', "192.168.0.1"),
            ('[registries."[fd00::5]"]', 'registries."[fd00::5]"', "[fd00::5]"),
        ):
            self.assertEqual(
                self.refusal(f'[ca]\npermitted_domains = ["quay.io", "10.0.0.0/8"]\n{text}'),
                f'{path}: found "{found}", which is outside ca.permitted_domains, expected a name '
                "within quay.io, 10.0.0.0/8",
            )

    def test_own_names(self) -> None:
        """The proxy's names lie within where certificates are minted for them."""
        names = 'names = ["p.corp:443"]\n'
        domains = '[ca]\npermitted_domains = ["quay.io"]\n'
        listener = '[[listeners]]\nendpoint = "tcp:443"\ntls = true\n'
        self.load(names + domains)
        self.load(f'{names}{domains}{listener}certificate = "a.pem"\nprivate_key = "a.pem"')
        self.assertEqual(
            self.refusal(names + domains + listener),
            'names[0]: found "p.corp:443", which is outside ca.permitted_domains, expected a name '
            "within quay.io",
        )
