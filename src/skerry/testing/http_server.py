"""An HTTP server on loopback that keeps what it got: the other side of tests that send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """A request as it came: header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """What the server got and what it says.

    Parameters
    ----------
    status, reply, reply_type:
        The answer to every request; a request that is answered with 2xx is kept in ``taken``, any in ``seen``.
    pause_s:
        Seconds before each answer.
    """

    port: int = 0
    status: int = 200
    reply: bytes = b"{}"
    reply_type: str = "application/json"
    pause_s: float = 0.0
    seen: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)

    def url(self, path: str = "/") -> str:
        """Return the URL of a path on it."""
        return f"http://127.0.0.1:{self.port}{path}"


def _handler(state: HttpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            state.seen.append(request)
            if state.pause_s:
                time.sleep(state.pause_s)
            if 200 <= state.status < 300:
                state.taken.append(request)
            self.send_response(state.status)
            self.send_header("Content-Type", state.reply_type)
            self.send_header("Content-Length", str(len(state.reply)))
            if 300 <= state.status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(state.reply)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 -- the names that http.server calls

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 -- the name that http.server gives it
            pass

    return Handler


@contextlib.contextmanager
def http_server(*, certificate: Path | None = None, key: Path | None = None) -> Iterator[HttpServer]:
    """Run a server on a free port of loopback until the block ends; with TLS when a certificate is given."""
    state = HttpServer()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away is what the tests are about

    server = Server(("127.0.0.1", 0), _handler(state))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    with serving(server):
        yield state


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    """Serve in a thread, and yield the port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
