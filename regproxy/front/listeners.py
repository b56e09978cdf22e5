"""Listeners: endpoint strings become services that accept clients, in plain and in TLS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.application.service import Service
from twisted.application.strports import service as listening_service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IReactorCore,
    IReactorTime,
)
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from regproxy.endpoint_strings import with_backlog
from regproxy.front.site import LimitedSite

_log = Logger()

_DRAIN_STEP = 0.05

_BACKLOG = 1024
"""Clients that may wait to be accepted. With Twisted's 50, a farm that starts all at once waits for
a second or more: what comes beyond is not answered, and TCP tries again after a second."""


def load_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file.

    Raises:
        ValueError: It has none.
        OSError: It cannot be read.
    """
    return x509.load_pem_x509_certificates(path.read_bytes())


def load_private_key(path: Path) -> PrivateKeyTypes:
    """The key in a PEM file.

    Raises:
        ValueError: It has none, or one that is encrypted.
        OSError: It cannot be read.
    """
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:
        raise ValueError("the private key is encrypted") from error


def tls_options(chain: Sequence[x509.Certificate], key: PrivateKeyTypes) -> CertificateOptions:
    """TLS 1.2 and newer with a certificate chain and its key, HTTP/1.1 only.

    Args:
        chain: The leaf first.
        key: The leaf's key.

    Raises:
        ValueError: They do not belong together.
    """
    certificates = [crypto.X509.from_cryptography(certificate) for certificate in chain]
    options = CertificateOptions(
        privateKey=crypto.PKey.from_cryptography_key(key),  # type: ignore[arg-type]  # any kind OpenSSL knows
        certificate=certificates[0],
        extraCertChain=certificates[1:],
        # twisted.web would speak HTTP/2, slowly, if h2 happened to be importable.
        acceptableProtocols=[b"http/1.1"],
    )
    try:
        options.getContext().check_privatekey()
    except SSL.Error as error:
        raise ValueError("the private key does not belong to the certificate") from error
    return options


class Listener(Service):
    """One endpoint and the site behind it; stopping it drains."""

    def __init__(
        self,
        reactor: IReactorCore,
        clock: IReactorTime,
        endpoint: str,
        site: LimitedSite,
        tls: IOpenSSLServerConnectionCreator | None,
        drain: float,
    ) -> None:
        """Args:
        reactor: Listens.
        clock: Runs the drain deadline.
        endpoint: A Twisted server endpoint description.
        site: Answers.
        tls: Gives the connections of a TLS listener their certificate, None for a plain one.
        drain: Seconds that running requests get at a stop.

        Raises:
            ValueError: The description is none.
        """
        factory: Any = site
        if tls is not None:
            factory = TLSMemoryBIOFactory(tls, False, site)
        self._connections = site.connections
        self._endpoint = endpoint
        self._clock = clock
        self._drain = drain
        description = with_backlog(endpoint, _BACKLOG)
        self._listening = listening_service(description, factory, reactor=reactor)
        self.setName(f"listener {endpoint}")

    def privilegedStartService(self) -> None:
        """Binds, while ports below 1024 may still be bound; an address in use ends the start."""
        try:
            self._listening.privilegedStartService()
        except CannotListenError as error:
            # A traceback would bury the one line that matters.
            raise SystemExit(
                f"regproxy: cannot listen on {self._endpoint}: {error.socketError}"
            ) from error

    def startService(self) -> None:
        """Accepts clients."""
        super().startService()
        self._listening.startService()

    def stopService(self) -> Deferred[None]:
        """Stops listening, lets running requests end until the drain deadline, then cuts."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        stopping: Deferred[object] | None = self._listening.stopService()
        if stopping is not None:
            await stopping
        until = self._clock.seconds() + self._drain
        self._connections.close_idle()
        # One whose request is over may still be sending the end of its answer.
        while len(self._connections) and self._clock.seconds() < until:
            await deferLater(self._clock, _DRAIN_STEP, lambda: None)
            self._connections.close_idle()
        if self._connections.active:
            _log.warn("{count} requests cut at the drain deadline", count=self._connections.active)
        if len(self._connections):
            self._connections.abort_all()
            # Their requests end in a turn of their own, and are logged then.
            await deferLater(self._clock, _DRAIN_STEP, lambda: None)
