"""Certificates and keys in files that the configuration names: read, or one line of refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from OpenSSL import crypto
from twisted.internet.ssl import Certificate, CertificateOptions

from regproxy.config_file import ConfigError
from regproxy.config_tables import Listener, Registry
from regproxy.front.listeners import load_certificates, load_private_key, tls_options


def given_certificate(listener: Listener, key: str, file: str) -> CertificateOptions | None:
    """The certificate that a listener is given, None when it is given none.

    Args:
        listener: Its configuration.
        key: Where that stands.
        file: In which file.

    Raises:
        SystemExit: Its files cannot be used.
    """
    certificate, private_key = listener.certificate, listener.private_key
    if certificate is None or private_key is None:
        return None
    with _refused(file, f"{key}.certificate", certificate, "a file with PEM certificates"):
        chain = load_certificates(certificate)
    with _refused(file, f"{key}.private_key", private_key, "a file with a PEM key, not encrypted"):
        loaded = load_private_key(private_key)
    expected = f'the key of the certificate in "{certificate}"'
    with _refused(file, f"{key}.private_key", private_key, expected):
        return tls_options(chain, loaded)


def trusted_certificates(registry: Registry, file: str) -> list[Certificate]:
    """The certificates that may vouch for a registry, none for the platform's.

    Args:
        registry: Its configuration.
        file: Where that stands.

    Raises:
        SystemExit: Their file cannot be used.
    """
    path = registry.ca_file
    if path is None:
        return []
    key = f'registries."{registry.name}".ca_file'
    with _refused(file, key, path, "a file with PEM certificates"):
        return [Certificate(crypto.X509.from_cryptography(c)) for c in load_certificates(path)]


@contextlib.contextmanager
def _refused(file: str, key: str, path: Path, expected: str) -> Iterator[None]:
    """Ends the process with the one line that every mistake in the configuration gets."""
    try:
        yield
    except (OSError, ValueError) as error:
        refusal = ConfigError(file, key, f'"{path}"', expected)
        raise SystemExit(f"regproxy: {refusal}") from error
