"""An outgoing proxy in a thread: CONNECT and whole URLs, for those who know its password."""

from __future__ import annotations

import http.client
import select
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from attrs import define, field

AUTHORIZATION = "Basic cHJveHktdXNlcjpwcm94eS1zZWNyZXQ="
CREDENTIALS = "proxy-user:proxy-secret"


@define
class Outgoing:
    """Leads to the ports of this machine that it is told.

    Args:
        hosts: host and port to the loopback port that stands for it.
        asked: every request so far: method, target, and whether it brought the password.
    """

    hosts: Mapping[str, int]
    asked: list[tuple[str, str, bool]] = field(factory=list)
    _server: ThreadingHTTPServer = field(init=False)

    @_server.default
    def _listening(self) -> ThreadingHTTPServer:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def port(self, target: str) -> int | None:
                """Where a target is, if it may be asked for."""
                knows = self.headers.get("Proxy-Authorization") == AUTHORIZATION
                proxy.asked.append((self.command, target, knows))
                if not knows:
                    self.send_response(407, "Who are you")
                elif target not in proxy.hosts:
                    self.send_response(403, "Not that one")
                else:
                    return proxy.hosts[target]
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None

            def do_CONNECT(self) -> None:
                port = self.port(self.path)
                if port is not None:
                    with socket.create_connection(("127.0.0.1", port)) as far:
                        self.send_response(200, "Connection established")
                        self.end_headers()
                        _pipe(self.connection, far)
                self.close_connection = True

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                port = self.port(f"{url.hostname}:{url.port or 80}")
                if port is None:
                    return
                far = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {k: v for k, v in self.headers.items() if not k.startswith("Proxy")}
                far.request(self.command, self.path.partition(url.netloc)[2], headers=headers)
                answer = far.getresponse()
                self.send_response(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in {"date", "server", "connection"}:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.read())
                far.close()

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def url(self, credentials: str = CREDENTIALS) -> str:
        """Its URL, as it is configured."""
        return f"http://{credentials}@127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()


def _pipe(one: socket.socket, other: socket.socket) -> None:
    while True:
        for readable in select.select([one, other], [], [])[0]:
            data = readable.recv(1 << 16)
            if not data:
                return
            (other if readable is one else one).sendall(data)
