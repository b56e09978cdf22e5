"""Certificates and keys in files that the configuration names: read, or one line of refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from OpenSSL import crypto
from twisted.internet.ssl import Certificate, CertificateOptions
from twisted.logger import Logger

from regproxy.config import Config
from regproxy.config_file import ConfigError
from regproxy.config_tables import Listener, Registry
from regproxy.front.listeners import load_certificates, load_private_key, tls_options
from regproxy.upstream.tls import Identity

_log = Logger()


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


def client_identity(registry: Registry, file: str) -> Identity | None:
    """The certificate that a registry's upstream is shown, None when there is none.

    Args:
        registry: Its configuration.
        file: Where that stands.

    Raises:
        SystemExit: Its files cannot be used.
    """
    certificate, private_key = registry.client_certificate, registry.client_key
    if certificate is None or private_key is None:
        return None
    key = f'registries."{registry.name}".client'
    with _refused(file, f"{key}_certificate", certificate, "a file with PEM certificates"):
        chain = load_certificates(certificate)
    with _refused(file, f"{key}_key", private_key, "a file with a PEM key, not encrypted"):
        loaded = load_private_key(private_key)
    with _refused(
        file, f"{key}_key", private_key, f'the key of the certificate in "{certificate}"'
    ):
        tls_options(chain, loaded)
    return Identity(
        [crypto.X509.from_cryptography(each) for each in chain],
        crypto.PKey.from_cryptography_key(loaded),  # type: ignore[arg-type]  # any kind OpenSSL knows
    )


def announce_upstreams(config: Config) -> None:
    """Says aloud what weakens the trust in upstreams, and which proxies lead to them.

    Raises:
        OSError: A private key is gone.
    """
    for name, registry in config.registries.items():
        if registry.insecure:
            _log.warn(
                "{name}: insecure = true: the certificate of {upstream} is NOT verified, anybody "
                "on the way can read and change what is said",
                name=name,
                upstream=registry.upstream,
            )
        key = registry.client_key
        if key is not None and key.stat().st_mode & 0o077:
            _log.warn(
                "{name}: the private key in {key} can be read by others than its owner",
                name=name,
                key=key,
            )
    rules = [registry.proxy for registry in config.registries.values()]
    used = {str(proxy) for each in rules for proxy in (each.http, each.https) if proxy}
    for proxy in sorted(used):
        _log.info("upstreams are reached through the outgoing proxy {proxy}", proxy=proxy)


@contextlib.contextmanager
def _refused(file: str, key: str, path: Path, expected: str) -> Iterator[None]:
    """Ends the process with the one line that every mistake in the configuration gets."""
    try:
        yield
    except (OSError, ValueError) as error:
        refusal = ConfigError(file, key, f'"{path}"', expected)
        raise SystemExit(f"regproxy: {refusal}") from error
