"""Certificate authorities as an operator would bring them, good and bad, and a wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)

# RFC 5280 section 4.2.1 says of each extension whether it is critical.
_CRITICAL = (x509.BasicConstraints, x509.KeyUsage, x509.NameConstraints)


@define
class WallClock:
    """Wall time that stands still, at first at what it really is."""

    time: datetime = field(factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        """The time."""
        return self.time

    def advance(self, days: float) -> None:
        """Lets it go on, or back."""
        self.time += days * DAY


@frozen
class Issuer:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        """The key."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        return bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
            )
        )

    def write(self, directory: Path, *above: Issuer, mode: int = 0o600) -> tuple[Path, Path]:
        """Files with the certificate, followed by those of *above*, and with the key."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, private_key = directory / "own.pem", directory / "own.key"
        certificate.write_bytes(b"".join(each.pem for each in (self, *above)))
        private_key.write_bytes(self.key_pem())
        private_key.chmod(mode)
        return certificate, private_key


def rsa_key(size: int = 2048) -> rsa.RSAPrivateKey:
    """A key that takes a moment to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=size)


def make_issuer(
    name: str = "root",
    *extensions: x509.ExtensionType,
    signed_by: Issuer | None = None,
    key: Any = None,
    starts: datetime | None = None,
    ends: datetime | None = None,
) -> Issuer:
    """A CA certificate with these extensions, by default with basic constraints and no other.

    Args:
        name: Its subject's common name.
        extensions: Instead of the default.
        signed_by: Its issuer, itself when None.
        key: EC P-256 when None.
        starts: The begin of its validity, yesterday when None.
        ends: The end of its validity, in a year when None.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by.certificate.subject if signed_by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts or now - DAY)
        .not_valid_after(ends or now + 365 * DAY)
    )
    for extension in extensions or (x509.BasicConstraints(ca=True, path_length=None),):
        builder = builder.add_extension(extension, critical=isinstance(extension, _CRITICAL))
    signing = signed_by.key if signed_by else key
    digest = (
        hashes.SHA256()
        if isinstance(signing, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        else None
    )
    return Issuer(builder.sign(signing, digest), key)


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """A key's usage."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
