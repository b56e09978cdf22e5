"""A server in a thread that says what it was asked, over HTTP or HTTPS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from attrs import define, field, frozen

from tests.real.certificates import Certificates


@frozen
class Asked:
    """A request.

    Args:
        line: method and target.
        headers: by lower-case name.
    """

    line: str
    headers: Mapping[str, str]


@define
class ScriptedHost:
    """Answers each GET and HEAD with its own method and target, and the server's name.

    Args:
        name: put in front of each answer.
        certificates: what it shows; None for plain HTTP.
        says: what it answers instead.
        asked: every request so far.
    """

    name: str
    certificates: Certificates | None = None
    says: str = ""
    asked: list[Asked] = field(factory=list)
    _server: ThreadingHTTPServer = field(init=False)

    @_server.default
    def _listening(self) -> ThreadingHTTPServer:
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                line = f"{self.command} {self.path}"
                headers = {name.lower(): value for name, value in self.headers.items()}
                host.asked.append(Asked(line, headers))
                body = (host.says or f"{host.name}: {line}").encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name)
                """Says nothing on the tests' standard error."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if self.certificates is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificates.certificate, self.certificates.private_key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http{'s' if self.certificates else ''}://127.0.0.1:{self.port}"

    @property
    def trusted(self) -> Path:
        """The authority that vouches for it."""
        assert self.certificates is not None
        return self.certificates.authority

    def stop(self) -> None:
        """Serves no more."""
        self._server.shutdown()
        self._server.server_close()
