"""A token server in a thread: gives anybody the pull token that docker-registry asks for."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from attrs import define, field, frozen
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tests.real.certificates import Certificates

ISSUER = "trial issuer"
SERVICE = "trial registry"
_LIFE = 300


@frozen
class Asked:
    """A request for a token.

    Args:
        service: the query's ``service``.
        scopes: the query's ``scope``, each.
        authorization: the Authorization header, empty for none.
    """

    service: str
    scopes: tuple[str, ...]
    authorization: str


@define
class TokenServer:
    """Signs tokens with a certificate that the registry is told to trust.

    Args:
        certificates: whose server certificate and key sign.
        asked: every request so far.
    """

    certificates: Certificates
    asked: list[Asked] = field(factory=list)
    _server: ThreadingHTTPServer = field(init=False)

    @_server.default
    def _listening(self) -> ThreadingHTTPServer:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                (service,) = query.get("service", [""])
                asked = Asked(
                    service, tuple(query.get("scope", ())), self.headers.get("Authorization", "")
                )
                tokens.asked.append(asked)
                body = json.dumps({"token": tokens.sign(asked), "expires_in": _LIFE}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                """Says nothing on the tests' standard error."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    @property
    def realm(self) -> str:
        """The URL that a challenge names."""
        return f"http://127.0.0.1:{self._server.server_port}/token"

    @property
    def bundle(self) -> Path:
        """The certificates with which tokens are verified."""
        return self.certificates.certificate

    def stop(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._server.server_close()

    def sign(self, asked: Asked) -> str:
        """A JSON web token that grants ``pull`` on what was asked for."""
        certificate = load_pem_x509_certificate(self.certificates.certificate.read_bytes())
        key = load_pem_private_key(self.certificates.private_key.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the test's own keys are of elliptic curves")
        now = int(time.time())
        header = {
            "typ": "JWT",
            "alg": "ES256",
            "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
        }
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": asked.service,
            "exp": now + _LIFE,
            "nbf": now - 10,
            "iat": now,
            "jti": str(len(self.asked)),
            "access": [_grant(scope) for scope in asked.scopes],
        }
        signed = b".".join(_segment(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return b".".join((signed, _segment(signature))).decode()


def _grant(scope: str) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    name, _, _ = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": ["pull"]}


def _segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
