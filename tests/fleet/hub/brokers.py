"""Receivers for tests of what goes out of the hub: a webhook, and a NATS server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from skerry.testing.broker import free_port


class Receiver:
    """A webhook on loopback that keeps the events it took, and can be told to refuse, also ``most`` at once."""

    def __init__(self, answers: list[int] | None = None, *, most: int = 10_000) -> None:
        self.events: list[dict[str, Any]] = []
        self.kinds: set[str] = set()
        answers = answers or []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = answers.pop(0) if answers else 200 if len(body) <= most else 413
                if status < 300 or status == 599:  # 599: taken, but the answer is lost
                    receiver.kinds.add(self.headers["Content-Type"])
                    receiver.events += body if isinstance(body, list) else [body]
                if status == 599:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/events"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class NatsServer:
    """A nats-server with JetStream on a free loopback port."""

    def __init__(self, folder: Path, *more: str) -> None:
        executable = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
        if executable is None:
            pytest.skip("nats-server is not installed: make system-deps")
        self.port = free_port()
        self._command = [executable, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder), *more]
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def until(condition: Callable[[], object], patience_s: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
