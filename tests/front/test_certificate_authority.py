"""The certificate authority: made once, kept private, and refused when it cannot be right."""

from __future__ import annotations

import ipaddress
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from regproxy.front.certificate_authority import (
    AuthorityProblem,
    CertificateAuthority,
    load_authority,
    open_authority,
)
from regproxy.model.hosts import HostPort
from tests.front.authorities import DAY, Issuer, WallClock, key_usage, make_issuer, rsa_key

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

CA = x509.BasicConstraints(ca=True, path_length=None)


def extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension:
    """A certificate's extension of one kind."""
    return certificate.extensions.get_extension_for_class(kind).value


class AuthorityCase(SynchronousTestCase):
    """A directory, a clock, and what is logged."""

    def setUp(self) -> None:
        """Makes them."""
        self.root = Path(self.mktemp()).absolute()
        self.directory = self.root / "state/ca"
        self.now = WallClock()
        self.warnings: list[str] = []
        self.logged: list[str] = []
        observer = cast(Any, self._log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _log(self, event: dict[str, object]) -> None:
        self.logged.append(repr(event))
        if event["log_level"] is LogLevel.warn:
            self.warnings.append(str(event["log_format"]))

    def open(self, *permitted: str) -> CertificateAuthority:
        """The one in the directory."""
        return open_authority(self.directory, permitted, self.now)

    def refusal(self, *permitted: str) -> str:
        """Why it cannot be had, on one line that says where it is."""
        line = str(self.assertRaises(AuthorityProblem, self.open, *permitted))
        self.assertNotIn("\n", line)
        return line

    def assert_made_anew(self, line: str) -> None:
        """The line says how to begin again."""
        self.assertIn(f"delete {self.directory}, start again, and have clients trust", line)


class MakingTests(AuthorityCase):
    """The first use."""

    def test_certificate(self) -> None:
        """It signs servers' certificates and nothing deeper, for ten years, from an hour ago on."""
        made = self.open().certificate
        made.verify_directly_issued_by(made)
        key = made.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertIsInstance(key.curve, ec.SECP256R1)
        constraints = extension(made, x509.BasicConstraints)
        self.assertEqual((constraints.ca, constraints.path_length), (True, 0))
        usage = extension(made, x509.KeyUsage)
        self.assertEqual((usage.key_cert_sign, usage.digital_signature), (True, False))
        identifier = extension(made, x509.SubjectKeyIdentifier).digest
        self.assertEqual(extension(made, x509.AuthorityKeyIdentifier).key_identifier, identifier)
        self.assertEqual(made.not_valid_before_utc, self.now() - timedelta(hours=1))
        self.assertEqual(made.not_valid_after_utc, self.now() + 3650 * DAY)
        self.assertRaises(
            x509.ExtensionNotFound,
            made.extensions.get_extension_for_class,
            x509.NameConstraints,
        )

    def test_private(self) -> None:
        """Nobody else can read its key, whatever the umask; neither log nor repr shows it."""
        self.addCleanup(os.umask, os.umask(0))
        authority = self.open()
        modes = [
            stat.S_IMODE((self.directory / name).stat().st_mode)
            for name in ("", "ca.key", "ca.crt")
        ]
        self.assertEqual(modes, [0o700, 0o600, 0o644])
        self.assertEqual(stat.S_IMODE(self.directory.parent.stat().st_mode), 0o700)
        for text in (repr(authority), *self.logged):
            self.assertNotIn("PRIVATE", text)
            self.assertNotIn("_key", text)
        self.assertTrue(any("have to trust" in text for text in self.logged))
        self.assertNotIn(b"PRIVATE", authority.pem)

    def test_kept(self) -> None:
        """It is made once."""
        made = self.open()
        self.assertEqual(self.open().certificate, made.certificate)
        self.assertEqual(self.open().pem, (self.directory / "ca.crt").read_bytes())

    def test_no_two_alike(self) -> None:
        """A new one has another name: clients that trust both tell them apart."""
        names = {
            open_authority(self.root / str(number), (), self.now).certificate.subject
            for number in range(3)
        }
        self.assertEqual(len(names), 3)

    def test_two_at_once(self) -> None:
        """Of two processes that make one, the first wins, and both use the same."""
        others: list[CertificateAuthority] = []

        def meanwhile() -> datetime:
            if not others:
                others.append(self.open())
            return self.now()

        mine = open_authority(self.directory, (), meanwhile)
        self.assertEqual(mine.certificate, others[0].certificate)
        self.assertEqual(os.listdir(self.directory.parent), ["ca"])
        mine.issue("a.test", ec.generate_private_key(ec.SECP256R1()).public_key())

    def test_empty_directory(self) -> None:
        """A directory that somebody made for it is used, and is private then."""
        self.directory.mkdir(parents=True, mode=0o755)
        self.open()
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)

    def test_no_directory(self) -> None:
        """Where no directory can be, one line says so, and nothing is left."""
        self.root.mkdir()
        (self.root / "state").write_text("a file")
        self.assertIn("state", self.refusal())
        self.assertEqual(os.listdir(self.root), ["state"])

    def test_in_the_way(self) -> None:
        """A file in its place is not replaced."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_text("a file")
        self.assertIn("Not a directory", self.refusal())
        self.assertEqual(os.listdir(self.directory.parent), ["ca"])


class KeptTests(AuthorityCase):
    """What is in the directory already."""

    def setUp(self) -> None:
        """Makes one."""
        super().setUp()
        self.made = self.open()

    def test_readable_key(self) -> None:
        """A key that others can read or write is refused, with both ways out."""
        for mode in (0o640, 0o604, 0o620, 0o602):
            (self.directory / "ca.key").chmod(mode)
            line = self.refusal()
            self.assertIn(f"chmod 600 {self.directory / 'ca.key'}", line)
            self.assert_made_anew(line)
        (self.directory / "ca.key").chmod(0o400)
        self.open()

    def test_incomplete(self) -> None:
        """Half of it is not made whole with something else."""
        for name in ("ca.key", "ca.crt"):
            path = self.directory / name
            content = path.read_bytes()
            path.unlink()
            line = self.refusal()
            self.assertIn(f"{path}: No such file", line)
            self.assert_made_anew(line)
            path.write_bytes(content)
            path.chmod(0o600)
        self.open()

    def test_damaged(self) -> None:
        """What cannot be read as what it should be is refused, never replaced."""
        for name in ("ca.key", "ca.crt"):
            path = self.directory / name
            content = path.read_bytes()
            path.write_bytes(content[:-60])
            self.assert_made_anew(self.refusal())
            path.write_bytes(b"")
            self.assert_made_anew(self.refusal())
            path.write_bytes(content)
        self.open()

    def test_expired(self) -> None:
        """It is refused when it has expired, and while the clock is before its time."""
        self.now.advance(-1)
        self.assertIn("by the clock of this machine", self.refusal())
        self.now.advance(3651)
        line = self.refusal()
        self.assertIn(f"expired on {self.made.certificate.not_valid_after_utc:%Y-%m-%d}", line)
        self.assert_made_anew(line)

    def test_expires_soon(self) -> None:
        """A warning a day, from ninety days before."""
        self.now.advance(3650 - 91)
        authority = self.open()
        self.assertEqual(self.warnings, [])
        self.now.advance(2)
        authority.check()
        authority.check()
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("expires on", self.warnings[0])
        self.now.advance(1)
        authority.check()
        self.assertEqual(len(self.warnings), 2)

    def test_changed_list(self) -> None:
        """One that permits another list is refused, with both lists."""
        line = self.refusal("example.com", "10.0.0.0/8")
        self.assertIn("made for every name", line)
        self.assertIn("asks for 10.0.0.0/8, example.com", line)
        self.assert_made_anew(line)

    def test_nonsense_in_list(self) -> None:
        """The list itself may be wrong: that is not the authority's fault."""
        line = self.refusal("exa mple")
        self.assertIn("permitted_domains", line)
        self.assertNotIn("delete", line)


class PermittedTests(AuthorityCase):
    """Name constraints."""

    def test_constraints(self) -> None:
        """They are in its certificate, and critical; the same list is found to be the same."""
        made = self.open("example.com", "10.0.0.0/8")
        found = made.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        self.assertTrue(found.critical)
        self.assertEqual(
            found.value.permitted_subtrees,
            [
                x509.DNSName("example.com"),
                x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
            ],
        )
        for name, verdict in (
            ("a.example.com", True),
            ("10.1.1.1", True),
            ("::1", False),
            ("b.test", False),
        ):
            self.assertIs(made.permits(HostPort(name)), verdict)
        again = self.open("10.0.0.0/8", "EXAMPLE.com")
        self.assertEqual(again.certificate, made.certificate)

    def test_lifted(self) -> None:
        """Leaving out the list does not leave out the constraints."""
        self.open("example.com")
        line = self.refusal()
        self.assertIn("made for example.com", line)
        self.assertIn("asks for every name", line)

    def test_none(self) -> None:
        """Without a list everything is permitted."""
        made = self.open()
        for name in ("a.test", "10.0.0.1", "::1"):
            self.assertTrue(made.permits(HostPort(name)))


class SuppliedTests(AuthorityCase):
    """One that was made elsewhere."""

    def load(self, issuer: Issuer, *above: Issuer, mode: int = 0o600) -> CertificateAuthority:
        """What its files give."""
        return load_authority(*issuer.write(self.root, *above, mode=mode), self.now)

    def assert_refused(self, because: str, issuer: Issuer, *above: Issuer) -> None:
        """It is, with one line that names both files and the reason."""
        line = str(self.assertRaises(AuthorityProblem, self.load, issuer, *above))
        for part in (because, str(self.root / "own.pem"), str(self.root / "own.key")):
            self.assertIn(part, line)
        self.assertNotIn("\n", line)

    def test_keys(self) -> None:
        """EC and RSA keys sign."""
        keys = ec.generate_private_key(ec.SECP384R1()), rsa_key()
        for key in keys:
            authority = self.load(make_issuer(key=key))
            leaf = authority.issue("a.test", keys[0].public_key())
            leaf.verify_directly_issued_by(authority.certificate)

    def test_other_keys(self) -> None:
        """Keys that clients do not verify are refused."""
        because = "neither EC on P-256, P-384 or P-521, nor RSA of 2048 bits"
        for key in (
            ed25519.Ed25519PrivateKey.generate(),
            rsa_key(1024),
            ec.generate_private_key(ec.SECP256K1()),
        ):
            self.assert_refused(because, make_issuer(key=key))
        other = Issuer(make_issuer().certificate, dsa.generate_private_key(1024))
        self.assert_refused(because, other)

    def test_readable_key(self) -> None:
        """A key that others can read is warned about, once, and used."""
        self.load(make_issuer())
        self.assertEqual(self.warnings, [])
        self.load(make_issuer(), mode=0o640)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("others can read", self.warnings[0])

    def test_chain(self) -> None:
        """Servers send what is below the root; clients are given everything."""
        root = make_issuer("root")
        upper = make_issuer("upper", signed_by=root)
        lower = make_issuer("lower", CA, key_usage(signs=True), signed_by=upper)
        authority = self.load(lower, upper, root)
        self.assertEqual(authority.sent, (lower.certificate, upper.certificate))
        self.assertEqual(authority.pem, lower.pem + upper.pem + root.pem)
        self.assertEqual(self.load(lower).sent, (lower.certificate,))
        self.assertEqual(self.load(root).sent, ())

    def test_key_in_certificate_file(self) -> None:
        """A key beside the certificate is not given to clients."""
        issuer = make_issuer()
        path, _ = issuer.write(self.root)
        path.write_bytes(issuer.key_pem() + issuer.pem)
        path.chmod(0o600)
        self.assertEqual(load_authority(path, path, self.now).pem, issuer.pem)

    def test_wrong_chain(self) -> None:
        """What follows must have signed what is before it."""
        root, other = make_issuer("root"), make_issuer("root")
        lower = make_issuer("lower", signed_by=root)
        self.assert_refused("CN=lower was not signed by", lower, other)
        self.assert_refused("CN=lower was not signed by", lower, make_issuer("another"))
        self.assert_refused("does not belong to the first", Issuer(root.certificate, lower.key))

    def test_no_authority(self) -> None:
        """A server's certificate is none."""
        self.assert_refused("is no CA", make_issuer("leaf", x509.BasicConstraints(False, None)))
        self.assert_refused("is no CA", make_issuer("leaf", key_usage(signs=True)))
        self.assert_refused("by its key usage", make_issuer("a", CA, key_usage(signs=False)))
        for_clients = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        self.assert_refused("by its extended key usage", make_issuer("a", CA, for_clients))
        for usage in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE):
            self.load(make_issuer("a", CA, x509.ExtendedKeyUsage([usage]), key_usage(signs=True)))

    def test_expired(self) -> None:
        """Nothing in the chain may have expired, or begin in the future."""
        old = make_issuer("old", starts=self.now() - 9 * DAY, ends=self.now() - DAY)
        self.assert_refused("expired on", old)
        self.assert_refused("expired on", make_issuer("new", signed_by=old), old)
        early = make_issuer("early", starts=self.now() + DAY, ends=self.now() + 9 * DAY)
        self.assert_refused("not valid before", early)

    def test_unreadable(self) -> None:
        """Files that are missing or something else are refused."""
        issuer = make_issuer()
        certificate, key = issuer.write(self.root)
        for content in (issuer.key_pem(b"password"), b"", b"\x00" * 100):
            key.write_bytes(content)
            self.assertRaises(AuthorityProblem, load_authority, certificate, key)
        missing = self.root / "missing"
        for paths in ((missing, key), (certificate, missing)):
            line = str(self.assertRaises(AuthorityProblem, load_authority, *paths))
            self.assertIn(f"{missing}: No such file", line)

    def test_constraints(self) -> None:
        """The constraints of everyone in the chain count."""
        root = make_issuer("root", CA, x509.NameConstraints([x509.DNSName("corp.test")], None))
        excluding = x509.NameConstraints(None, [x509.DNSName("bad.corp.test")])
        authority = self.load(make_issuer("lower", CA, excluding, signed_by=root), root)
        verdicts = [
            authority.permits(HostPort(name)) for name in ("a.corp.test", "a.test", "bad.corp.test")
        ]
        self.assertEqual(verdicts, [True, False, False])


class IssuingTests(AuthorityCase):
    """Certificates for servers."""

    def setUp(self) -> None:
        """Makes an authority and a server's key."""
        super().setUp()
        self.authority = self.open()
        self.key = ec.generate_private_key(ec.SECP256R1()).public_key()

    def names(self, certificate: x509.Certificate) -> tuple[list[str], list[str], bool]:
        """The common names, the alternative ones, and whether the latter are critical."""
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        alternative = [f"{type(name).__name__} {name.value}" for name in found.value]
        return [str(each.value) for each in common], alternative, found.critical

    def test_profile(self) -> None:
        """It is a server's and nothing else's, for a month, from an hour ago on."""
        leaf = self.authority.issue("a.test", self.key)
        leaf.verify_directly_issued_by(self.authority.certificate)
        self.assertEqual(leaf.public_key(), self.key)
        self.assertFalse(extension(leaf, x509.BasicConstraints).ca)
        usage = extension(leaf, x509.KeyUsage)
        self.assertEqual((usage.digital_signature, usage.key_cert_sign), (True, False))
        self.assertEqual(
            list(extension(leaf, x509.ExtendedKeyUsage)), [ExtendedKeyUsageOID.SERVER_AUTH]
        )
        self.assertEqual(
            extension(leaf, x509.AuthorityKeyIdentifier).key_identifier,
            extension(self.authority.certificate, x509.SubjectKeyIdentifier).digest,
        )
        self.assertTrue(extension(leaf, x509.SubjectKeyIdentifier).digest)
        self.assertEqual(leaf.not_valid_before_utc, self.now() - timedelta(hours=1))
        self.assertEqual(leaf.not_valid_after_utc, self.now() + 30 * DAY)
        again = self.authority.issue("a.test", self.key)
        self.assertNotEqual(leaf.serial_number, again.serial_number)

    def test_names(self) -> None:
        """DNS names and addresses stand where clients look for them."""
        long = ".".join(["a" * 31] * 2)
        longer = f"a{long}a"
        self.assertEqual((len(long), len(longer)), (63, 65))
        for name, expected in {
            "a.test": (["a.test"], ["DNSName a.test"], False),
            f"{long}a": ([f"{long}a"], [f"DNSName {long}a"], False),
            longer: ([], [f"DNSName {longer}"], True),
            "10.0.0.1": ([], ["IPAddress 10.0.0.1"], True),
            "fd00::1": ([], ["IPAddress fd00::1"], True),
        }.items():
            self.assertEqual(self.names(self.authority.issue(name, self.key)), expected)

    def test_ends_with_authority(self) -> None:
        """It is not valid for longer than what vouches for it, and not after."""
        ends = self.authority.certificate.not_valid_after_utc
        self.now.time = ends - DAY
        self.assertEqual(self.authority.issue("a.test", self.key).not_valid_after_utc, ends)
        self.now.time = ends
        problem = self.assertRaises(AuthorityProblem, self.authority.issue, "a.test", self.key)
        self.assertIn("expired", str(problem))

    def test_clock_set_back(self) -> None:
        """An authority from the future signs nothing."""
        self.now.advance(-1)
        problem = self.assertRaises(AuthorityProblem, self.authority.issue, "a.test", self.key)
        self.assertIn("by the clock of this machine", str(problem))

    def test_identifiers(self) -> None:
        """An authority without a key identifier is named by its key, one with its own by that."""
        plain = make_issuer()
        own = make_issuer("own", CA, x509.SubjectKeyIdentifier(b"own"))
        for issuer, expected in (
            (plain, x509.SubjectKeyIdentifier.from_public_key(plain.key.public_key()).digest),
            (own, b"own"),
        ):
            authority = load_authority(*issuer.write(self.root), self.now)
            leaf = authority.issue("a.test", self.key)
            found = extension(leaf, x509.AuthorityKeyIdentifier)
            self.assertEqual(found.key_identifier, expected)
