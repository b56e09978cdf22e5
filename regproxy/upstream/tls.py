"""TLS towards upstreams: who vouches for them, and who the proxy is to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import field, frozen
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_KEPT = 16
"""Hosts of one registry whose TLS settings are kept: each holds the trusted roots once more."""


@frozen
class Identity:
    """A client certificate.

    Attributes:
        chain: The certificate, then its intermediates.
        key: Its private key.
    """

    chain: Sequence[crypto.X509]
    key: crypto.PKey = field(repr=False)


@frozen
class Trust:
    """Whom a registry's requests believe, and what they show.

    Attributes:
        roots: Trusted instead of the platform's roots; empty for those.
        identity: Shown to upstream's own host when it asks.
        is_verified: Whether upstream's own host has to prove its name.
    """

    roots: Sequence[Certificate] = ()
    identity: Identity | None = None
    is_verified: bool = True


@implementer(IPolicyForHTTPS)
class UpstreamTLS:
    """TLS 1.2 or newer for one registry's requests.

    A client certificate is for upstream's own host, and so is leave not to verify: the hosts that
    it leads to are others'.
    """

    def __init__(self, trust: Trust, host: str) -> None:
        """Args:
        trust: What is configured.
        host: Upstream's own.
        """
        self._trust = trust
        self._host = host
        self._creators: OrderedDict[str, IOpenSSLClientConnectionCreator] = OrderedDict()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """See IPolicyForHTTPS: to read the platform's roots takes longer than a handshake."""
        host = hostname.decode("ascii").lower()
        creator = self._creators.get(host)
        if creator is None:
            creator = self._creators[host] = self._make(host)
            if len(self._creators) > _KEPT:
                self._creators.popitem(last=False)
        else:
            self._creators.move_to_end(host)
        return creator

    def _make(self, host: str) -> IOpenSSLClientConnectionCreator:
        options: dict[str, Any] = {"raiseMinimumTo": TLSVersion.TLSv1_2}
        identity = self._trust.identity
        if identity is not None and host == self._host:
            options["privateKey"] = identity.key
            options["certificate"], *options["extraCertChain"] = identity.chain
        if not self._trust.is_verified and host == self._host:
            return _Unverified(CertificateOptions(**options), host)
        roots = self._trust.roots
        return optionsForClientTLS(
            host,
            trustRoot=trustRootFromCertificates(roots) if roots else None,
            extraCertificateOptions=options,
        )


@frozen
@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """TLS with whoever answers; it is told which name is meant."""

    options: CertificateOptions
    host: str

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See IOpenSSLClientConnectionCreator."""
        connection = self.options.clientConnectionForTLS(tlsProtocol)
        try:
            ip_address(self.host)
        except ValueError:
            # RFC 6066 section 3: the name of a host, and never an address.
            connection.set_tlsext_host_name(self.host.encode("ascii"))
        return connection
