"""The certificate authority behind what regproxy shows TLS clients: made here, or given."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.logger import Logger

from regproxy.front.certificate_profile import (
    PublicKey,
    SigningKey,
    authority_certificate,
    server_certificate,
)
from regproxy.front.listeners import load_certificates, load_private_key
from regproxy.front.name_constraints import (
    describe,
    name_constraints,
    permits,
    same_constraints,
)
from regproxy.model.hosts import HostPort

_log = Logger()

CERTIFICATE_FILE = "ca.crt"
KEY_FILE = "ca.key"

_SOON = timedelta(days=90)
_DAY = timedelta(days=1)

_SHORTEST_RSA_KEY = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

Now = Callable[[], datetime]


def wall_time() -> datetime:
    """The time in UTC, by which certificates are valid or not."""
    return datetime.now(UTC)


class AuthorityProblem(ValueError):
    """Why there is no certificate authority: one line for the operator, and what helps."""


@define(eq=False)
class CertificateAuthority:
    """Signs certificates for servers. Its key never leaves it.

    Attributes:
        certificate: Its own.
        chain: What vouches for that, the nearest first, as far as it is known.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    _key: SigningKey = field(repr=False)
    _now: Now = field(default=wall_time, repr=False)
    _warned: datetime | None = field(default=None, init=False, repr=False)

    @property
    def pem(self) -> bytes:
        """What clients have to trust, in PEM: its certificate and the chain."""
        encoding = serialization.Encoding.PEM
        return b"".join(each.public_bytes(encoding) for each in (self.certificate, *self.chain))

    @property
    def sent(self) -> tuple[x509.Certificate, ...]:
        """What a server sends behind its own certificate: all but the root, which clients have."""
        return tuple(
            each for each in (self.certificate, *self.chain) if each.issuer != each.subject
        )

    def permits(self, host: HostPort) -> bool:
        """Whether clients accept what it signs for *host*, by the name constraints."""
        found = (_constraints(each) for each in (self.certificate, *self.chain))
        return all(permits(constraints, host) for constraints in found if constraints is not None)

    def issue(self, name: str, key: PublicKey) -> x509.Certificate:
        """A server's certificate, good for 30 days or as long as the authority itself.

        Args:
            name: A DNS name, or an IP address without brackets.
            key: The server's.

        Raises:
            AuthorityProblem: See `check`.
        """
        self.check()
        return server_certificate(HostPort(name), key, self.certificate, self._key, self._now())

    def check(self) -> None:
        """Warns, once a day, when it is about to expire.

        Raises:
            AuthorityProblem: It has expired, or is not valid yet.
        """
        now = self._now()
        starts = max(each.not_valid_before_utc for each in (self.certificate, *self.chain))
        ends = min(each.not_valid_after_utc for each in (self.certificate, *self.chain))
        if now < starts:
            raise AuthorityProblem(
                f"by the clock of this machine ({now:%F %T} UTC) the certificate authority is not "
                f"valid before {starts:%F %T} UTC"
            )
        if now >= ends:
            raise AuthorityProblem(
                f"the certificate authority expired on {ends:%F}: clients have to trust a new one"
            )
        if ends - now < _SOON and (self._warned is None or now - self._warned >= _DAY):
            self._warned = now
            _log.warn(
                "the certificate authority expires on {ends}: make a new one before, and have "
                "clients trust it",
                ends=f"{ends:%F}",
            )


def open_authority(
    directory: Path, permitted: Sequence[str] = (), now: Now = wall_time
) -> CertificateAuthority:
    """The authority in *directory*, which is made on first use.

    Processes that come at the same time make one, whoever is first.

    Args:
        directory: ``ca.crt`` and ``ca.key`` are in it.
        permitted: Domains, addresses and networks outside of which it must not be good for
            anything; empty for no such limit.
        now: Wall time.

    Raises:
        AuthorityProblem: It cannot be made, or what is there cannot be used.
    """
    anew = f"to make it anew, delete {directory}, start again, and have clients trust the new one"
    try:
        wanted = name_constraints(permitted)
    except ValueError as error:
        raise AuthorityProblem(f"permitted_domains: {error}") from error
    try:
        certificate_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
        if not certificate_file.exists() and not key_file.exists():
            _make(directory, wanted, now())
        _require_private(key_file)
        authority = _load(certificate_file, key_file, now)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise AuthorityProblem(
            f"the certificate authority in {directory} cannot be used: {_reason(error)}; {anew}"
        ) from error
    found = _constraints(authority.certificate)
    if not same_constraints(found, wanted):
        raise AuthorityProblem(
            f"the certificate authority in {directory} was made for {describe(found)}, and "
            f"permitted_domains now asks for {describe(wanted)}; {anew}"
        )
    return authority


def load_authority(
    certificate: Path, private_key: Path, now: Now = wall_time
) -> CertificateAuthority:
    """An authority that was made elsewhere.

    Args:
        certificate: Its certificate in PEM, then those that vouch for it, in order, if any.
        private_key: Its key in PEM, EC or RSA, not encrypted.
        now: Wall time.

    Raises:
        AuthorityProblem: It cannot be used.
    """
    try:
        if private_key.stat().st_mode & 0o077:
            _log.warn(
                "others can read {path}, the certificate authority's key: chmod 600 would end that",
                path=str(private_key),
            )
        authority = _load(certificate, private_key, now)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise AuthorityProblem(
            f"the certificate authority in {certificate} with the key in {private_key} cannot be "
            f"used: {_reason(error)}"
        ) from error
    return authority


def _load(certificate: Path, private_key: Path, now: Now) -> CertificateAuthority:
    """Reads and judges.

    Raises:
        ValueError: It is no authority, with why.
        OSError: A file cannot be read.
    """
    chain = load_certificates(certificate)
    key = _usable(load_private_key(private_key))
    if chain[0].public_key() != key.public_key():
        raise ValueError("the key does not belong to the first certificate")
    for each in chain:
        _judge(each)
    for each, issuer in pairwise(chain):
        try:
            each.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            raise ValueError(
                f"{each.subject.rfc4514_string()} was not signed by the certificate that follows it"
            ) from None
    authority = CertificateAuthority(chain[0], tuple(chain[1:]), key, now)
    authority.check()
    return authority


def _require_private(key_file: Path) -> None:
    """Raises ValueError if others can read it."""
    if key_file.stat().st_mode & 0o077:
        raise ValueError(f"others can read its key, which chmod 600 {key_file} ends")


def _usable(key: PrivateKeyTypes) -> SigningKey:
    """The key, of a kind that the clients of registries verify.

    Raises:
        ValueError: It is another.
    """
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SHORTEST_RSA_KEY:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    raise ValueError(
        f"its key is neither EC on P-256, P-384 or P-521, nor RSA of {_SHORTEST_RSA_KEY} bits or "
        "more"
    )


def _judge(certificate: x509.Certificate) -> None:
    """Raises ValueError if it may not sign servers' certificates."""
    name = certificate.subject.rfc4514_string()
    extensions = certificate.extensions
    try:
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError(f"{name} is no CA certificate")
    except x509.ExtensionNotFound:
        raise ValueError(f"{name} is no CA certificate: it has no basic constraints") from None
    for extension in extensions:
        usage = extension.value
        if isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign:
            raise ValueError(f"{name} may not sign certificates, by its key usage")
        if isinstance(usage, x509.ExtendedKeyUsage) and not {
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        } & set(usage):
            raise ValueError(f"{name} may not vouch for servers, by its extended key usage")


def _make(directory: Path, constraints: x509.NameConstraints | None, now: datetime) -> None:
    """Makes both files, or none of them, unless somebody else just did."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority_certificate(key, constraints, now)
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # 0700, as the directory is to be.
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        _write(fresh / KEY_FILE, _key_pem(key), 0o600)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        _write(fresh / CERTIFICATE_FILE, pem, 0o644)
        _fsync_directory(fresh)
        # A directory is replaced only if it is empty: of several, the first one stays.
        os.rename(fresh, directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _fsync_directory(directory.parent)
    _log.info(
        "made a certificate authority: clients of TLS have to trust {path}",
        path=str(directory / CERTIFICATE_FILE),
    )


def _constraints(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """On one line, without what is no news to the operator."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error).partition("\n")[0]
