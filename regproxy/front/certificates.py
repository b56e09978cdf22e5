"""Certificates for the names that TLS clients ask for: minted, kept, and renewed in time."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from regproxy.front.certificate_authority import (
    AuthorityProblem,
    CertificateAuthority,
    Now,
    wall_time,
)
from regproxy.model.errors import shown
from regproxy.model.hosts import HostPort, parse_host

_log = Logger()

_MOST_LEAVES = 1024
"""Each takes about 22 KiB."""
_REPORT_SECONDS = 60.0

# TLS 1.3 has no others; of TLS 1.2, those with forward secrecy for the EC key there is.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET

# RFC 8446 section 6.
_INTERNAL_ERROR = 80
_UNRECOGNIZED_NAME = 112
_NO_APPLICATION_PROTOCOL = 120


class NameRefused(ValueError):
    """There is no certificate for this name."""


@frozen(eq=False)
class _Leaf:
    """A certificate in use.

    Attributes:
        context: Shows it.
        valid_from: From when it may be shown.
        renewed_at: When another takes its place, well before it expires.
    """

    context: SSL.Context
    valid_from: datetime
    renewed_at: datetime


class _Reports:
    """At most one line a minute about what hostile clients can bring about."""

    def __init__(self, clock: IReactorTime) -> None:
        """Args:
        clock: Counts the minute.
        """
        self._clock = clock
        self._next: float | None = None
        self._left_out = 0

    def due(self) -> int | None:
        """How many were left out since the last report, None when this one is as well."""
        now = self._clock.seconds()
        if self._next is not None and now < self._next:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        self._next = now + _REPORT_SECONDS
        return left_out


class LeafCertificates:
    """The certificates that the authority has signed for this process's one key."""

    def __init__(
        self,
        authority: Callable[[], CertificateAuthority],
        serves: Callable[[HostPort], bool],
        clock: IReactorTime,
        now: Now = wall_time,
    ) -> None:
        """Args:
        authority: Signs. Called when a certificate is needed, for each anew: it should remember.
        serves: Whether a name (without a port) is one to show a certificate for.
        clock: Keeps the log from growing with every refused client.
        now: Wall time, by which certificates expire.
        """
        self._authority = authority
        self._serves = serves
        self._now = now
        self._leaves: OrderedDict[str, _Leaf] = OrderedDict()
        self._refusals, self._failures = _Reports(clock), _Reports(clock)
        # By connection, and weak: a context costs too much to make one for each CONNECT.
        self._defaults: WeakKeyDictionary[SSL.Connection, str] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._leaves)

    def context_for(self, name: str) -> SSL.Context:
        """What shows a valid certificate for a name that is served.

        Args:
            name: A DNS name in any case, with or without a trailing dot, or an IP address.

        Raises:
            NameRefused: It is malformed, not served, or outside the authority's constraints.
            AuthorityProblem: There is no authority to sign it.
        """
        host = _host(name)
        if not self._serves(host):
            raise NameRefused("it is neither a configured registry nor a name of the proxy's own")
        return self._context(host)

    def creator(self, default_name: str | None = None) -> IOpenSSLServerConnectionCreator:
        """What gives each TLS connection its certificate, by the name that its client asks for.

        Args:
            default_name: What a client means that asks for none, and a name that is served
                whatever *serves* says; without it, the address that the client connected to.

        Raises:
            NameRefused: The default is malformed.
        """
        return _Creator(self, default_name if default_name is None else _host(default_name).name)

    def connection(self, default_name: str | None) -> SSL.Connection:
        """A server's end whose certificate is chosen when its client has said which name it wants.

        Args:
            default_name: See `creator`; in its canonical form.
        """
        connection = SSL.Connection(self._choosing)
        if default_name is not None:
            self._defaults[connection] = default_name
        return connection

    @cached_property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(ec.SECP256R1())

    @cached_property
    def _choosing(self) -> SSL.Context:
        """What every connection starts with: without a certificate, it can only be refused."""
        context = _context()
        context.set_tlsext_servername_callback(self._choose)
        return context

    def _choose(self, connection: SSL.Connection) -> None:
        """Called by OpenSSL for every ClientHello, whether it has a name or not.

        An exception here would be printed with its traceback by pyOpenSSL, once for each client.
        """
        # Set by Twisted for every connection that a creator makes.
        protocol: TLSMemoryBIOProtocol = connection.get_app_data()
        asked = connection.get_servername()
        try:
            context = self._chosen(asked, self._defaults.get(connection), protocol.transport)
        except NameRefused as refusal:
            _alert(protocol, _UNRECOGNIZED_NAME)
            if (left_out := self._refusals.due()) is not None:
                _log.info(
                    "a TLS client was refused that asked for {name}: {reason} ({count} more since "
                    "the last such line)",
                    name="no name" if asked is None else shown(asked.decode("latin-1")),
                    reason=str(refusal),
                    count=left_out,
                )
        except Exception as error:  # noqa: BLE001  # see above
            _alert(protocol, _INTERNAL_ERROR)
            if (left_out := self._failures.due()) is not None:
                message = "a TLS client was refused: {reason} ({count} more since the last line)"
                if isinstance(error, (AuthorityProblem, OSError)):
                    _log.error(message, reason=str(error), count=left_out)
                else:
                    _log.failure(message, reason="this is a mistake in regproxy", count=left_out)
        else:
            connection.set_context(context)

    def _chosen(self, asked: bytes | None, default: str | None, transport: Any) -> SSL.Context:
        """The context for a client.

        Args:
            asked: The name that it sent (RFC 6066 section 3), None for none.
            default: What no name means; its address when None.
            transport: Its connection.

        Raises:
            NameRefused: It gets none.
            AuthorityProblem: Nobody does.
        """
        if asked is None and default is None:
            # Outside constraints too: clients that verify nothing are the ones that come like this.
            return self._context(_local_address(transport), constrained=False)
        if asked is None:
            return self._context(HostPort(str(default)))
        name = asked.decode("latin-1")
        if default is not None and _host(name).name == default:
            return self._context(HostPort(default))
        return self.context_for(name)

    def _context(self, host: HostPort, *, constrained: bool = True) -> SSL.Context:
        """A context from the cache, or a new one in it."""
        now = self._now()
        leaf = self._leaves.get(host.name)
        # A clock that was set back may have left certificates from the future.
        if leaf is None or not leaf.valid_from <= now < leaf.renewed_at:
            authority = self._authority()
            if constrained and not authority.permits(host):
                raise NameRefused("permitted_domains keeps the certificate authority from it")
            leaf = self._leaves[host.name] = self._minted(authority, host.name, now)
        self._leaves.move_to_end(host.name)
        if len(self._leaves) > _MOST_LEAVES:
            self._leaves.popitem(last=False)
        return leaf.context

    def _minted(self, authority: CertificateAuthority, name: str, now: datetime) -> _Leaf:
        certificate = authority.issue(name, self._key.public_key())
        context = _context()
        context.use_privatekey(self._key)
        context.use_certificate(certificate)
        for each in authority.sent:
            context.add_extra_chain_cert(each)
        renewed_at = now + (certificate.not_valid_after_utc - now) * 2 / 3
        return _Leaf(context, certificate.not_valid_before_utc, renewed_at)


@implementer(IOpenSSLServerConnectionCreator)
@frozen(eq=False)
class _Creator:
    """Makes connections whose certificate is yet to be chosen."""

    leaves: LeafCertificates
    default_name: str | None

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        return self.leaves.connection(self.default_name)


def _context() -> SSL.Context:
    """TLS 1.2 and newer for a server that speaks HTTP/1.1 only."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_alpn_select_callback(_choose_protocol)
    context.set_cipher_list(_CIPHERS)
    return context


def _choose_protocol(connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    """HTTP/1.1, or an end to the handshake (RFC 7301 section 3.2)."""
    if b"http/1.1" in offered:
        return b"http/1.1"
    # OpenSSL would call it an internal error.
    _alert(connection.get_app_data(), _NO_APPLICATION_PROTOCOL)
    return b""


def _host(name: str) -> HostPort:
    try:
        # An IPv6 address comes without brackets here.
        host = parse_host(f"[{name}]" if name.count(":") > 1 else name)
    except ValueError as error:
        raise NameRefused(str(error)) from None
    if host.port is not None:
        raise NameRefused("it has a port")
    return host


def _local_address(transport: Any) -> HostPort:
    """The IP address that the client connected to.

    Raises:
        NameRefused: It is none, as on a Unix socket.
    """
    text = getattr(transport.getHost(), "host", None)
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        raise NameRefused("it must, since it did not come to an IP address") from None
    # Dual-stack sockets show IPv4 clients like this.
    mapped = getattr(address, "ipv4_mapped", None)
    return HostPort(str(mapped or address))


def _alert(protocol: TLSMemoryBIOProtocol, description: int) -> None:
    """Says why the handshake fails, before OpenSSL says something less clear.

    Nothing is encrypted yet: this answers the client's first message (RFC 8446 section 6).
    """
    alert, fatal = 21, 2
    transport: Any = protocol.transport
    transport.write(bytes((alert, 3, 3, 0, 2, fatal, description)))
