"""What stands in the certificates that regproxy signs: the profile of RFC 5280, and no more."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from regproxy.model.hosts import HostPort

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_AUTHORITY_LIFETIME = timedelta(days=3650)
_SERVER_LIFETIME = timedelta(days=30)
"""Far below the 398 days that some clients accept at most."""
_BACKDATED = timedelta(hours=1)
"""For clients whose clock is behind."""
_LONGEST_COMMON_NAME = 64
"""Characters (RFC 5280 appendix A.1, ub-common-name)."""


def authority_certificate(
    key: ec.EllipticCurvePrivateKey, constraints: x509.NameConstraints | None, now: datetime
) -> x509.Certificate:
    """What an authority says of itself, good for ten years.

    Args:
        key: Its own.
        constraints: What it may vouch for, None for everything.
        now: Wall time.
    """
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    # No two have the same name: clients that trust an old one and a new one tell them apart.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "regproxy"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"regproxy CA {identifier.digest[:4].hex()}"),
        ]
    )
    builder = (
        _builder(name, name, public)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, hashes.SHA256())


def server_certificate(
    host: HostPort,
    key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: SigningKey,
    now: datetime,
) -> x509.Certificate:
    """What a server shows, good for 30 days or as long as its issuer.

    Args:
        host: The server; its port is no part of a certificate.
        key: The server's.
        issuer: Who vouches for it.
        issuer_key: The issuer's.
        now: Wall time.
    """
    subject = []
    # Clients may hold a common name to the constraints on DNS names: an address is none.
    if not host.is_address and len(host.name) <= _LONGEST_COMMON_NAME:
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, host.name))
    name: x509.GeneralName = x509.DNSName(host.name)
    if host.is_address:
        name = x509.IPAddress(ipaddress.ip_address(host.name))
    return (
        _builder(x509.Name(subject), issuer.subject, key)
        .not_valid_before(max(now - _BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(min(now + _SERVER_LIFETIME, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # RFC 5280 section 4.2.1.6: critical when there is no subject.
        .add_extension(x509.SubjectAlternativeName([name]), critical=not subject)
        .add_extension(_issuer_identifier(issuer), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey) -> x509.CertificateBuilder:
    """What every certificate has: names, key, a random serial number, a key identifier."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    make = x509.AuthorityKeyIdentifier
    try:
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return make.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]  # any kind that signs
    return make.from_issuer_subject_key_identifier(found.value)
