"""A hub for these tests: real TLS 1.3 sockets, the authority's endpoints, and one page that tells who asks."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from skerry.spec.errors import CertificateRefusedError
from skerry.trust.authority import Authority
from skerry.trust.endpoints import PATHS, answer
from skerry.trust.tls import server_context

TIMEOUT_S = 20.0


class SmallHub:
    """Serves an authority on loopback until it is closed; ``clock`` is what the hub takes for the time."""

    def __init__(self, authority: Authority, clock: Callable[[], float] = time.time) -> None:
        self.authority, self.clock = authority, clock
        self.context = server_context(authority, now=clock())
        self.lost_answers = 0
        """How many answers are still to be lost after the work was done."""
        self.is_portal = False
        """Whether it answers as the log-in page of a network does: always 200, in HTML, and without a hub's header."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = TIMEOUT_S

            def setup(self) -> None:
                self.request = hub.context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
                super().setup()

            def handle(self) -> None:
                try:
                    self.request.do_handshake()
                    super().handle()
                except (ssl.SSLError, OSError):
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                finally:
                    self.request.close()

            def do_GET(self) -> None:
                self._respond(b"")

            def do_POST(self) -> None:
                self._respond(self.rfile.read(int(self.headers["Content-Length"])))

            def _respond(self, body: bytes) -> None:
                if self.path in PATHS:
                    status, content = answer(hub.authority, self.command, self.path, body, hub.clock())
                else:
                    status, content = hub.who_asks(self.request.getpeercert(binary_form=True), self.path)
                if hub.lost_answers and self.path not in {"/v1/ca", "/v1/nonce"}:
                    hub.lost_answers -= 1
                    self.close_connection = True
                    return
                if hub.is_portal:
                    status, content = 200, b"<html>please log in</html>"
                self.send_response(status)
                if not hub.is_portal:
                    self.send_header("Skerry-Hub", "1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def who_asks(self, der: bytes | None, path: str) -> tuple[int, bytes]:
        """Answer ``/as/NAME`` as a hub takes a batch of NAME: by the certificate of the connection alone."""
        try:
            peer = self.authority.verify_peer(der, self.clock(), device=path.removeprefix("/as/"))
        except CertificateRefusedError as error:
            return 403, str(error).encode()
        return 200, peer.device.encode()


class Visit:
    """One TLS connection to a hub: what it answered, or how TLS refused."""

    def __init__(self, hub: SmallHub, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        raw = socket.create_connection(("127.0.0.1", hub.port), timeout=TIMEOUT_S)
        try:
            self._socket = context.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise

    def ask(self, path: str, headers: str = "") -> tuple[int, str]:
        """Ask for a path and return status and body; raises ``ssl.SSLError`` when the hub refuses the certificate."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: hub\r\n{headers}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("closed without an answer")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        while len(body) < length:
            body += self._socket.recv(65536)
        return int(head.split()[1]), body.decode()

    @property
    def version(self) -> str | None:
        return self._socket.version()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def visit(hub: SmallHub, context: ssl.SSLContext, path: str, headers: str = "") -> tuple[int, str]:
    """Ask once over a connection of its own."""
    with Visit(hub, context) as connection:
        return connection.ask(path, headers)
