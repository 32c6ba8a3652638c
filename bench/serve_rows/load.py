"""The load: requests over kept connections of raw sockets, the same client for every server."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

TIMEOUT_S = 60.0


class Load(NamedTuple):
    """What one round of requests took: each one's seconds, and those of the whole round."""

    latencies_s: list[float]
    whole_s: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return len(self.latencies_s) / self.whole_s


class Wire:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket = self._connected()
        self.began = 0.0
        self._said = b""
        self._missing = -1

    def _connected(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def renew(self) -> None:
        """Connect again where the server has closed: some do after five seconds without a request."""
        self.socket.setblocking(False)
        try:
            is_closed = not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:  # nothing has come: it is open
            is_closed = False
        except OSError:
            is_closed = True
        self.socket.settimeout(TIMEOUT_S)
        if is_closed:
            self.socket.close()
            self.socket = self._connected()

    def send(self, request: bytes) -> None:
        """Send one request."""
        self._said, self._missing = b"", -1
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> bool:
        """Read what has come; tell whether the answer is whole. Raises ``OSError`` when it is no success."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise OSError(f"the server closed the connection after {self._said[:80]!r}")
        if self._missing < 0:
            self._said += data
            head, found, body = self._said.partition(b"\r\n\r\n")
            if not found:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise OSError(f"the server answered {self._said[:200]!r}")
            lower = head.lower()
            place = lower.index(b"content-length:") + 15
            self._missing = int(lower[place:].split(b"\r", 1)[0]) - len(body)
        else:
            self._missing -= len(data)
        return self._missing <= 0

    def ask(self, request: bytes) -> float:
        """Send one request, wait for its answer and return the seconds that it took."""
        self.send(request)
        while not self.take():
            pass
        return time.perf_counter() - self.began

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def one_at_a_time(wire: Wire, requests: Sequence[bytes]) -> Load:
    """Send each request when the one before was answered."""
    wire.renew()
    begin = time.perf_counter()
    latencies = [wire.ask(request) for request in requests]
    return Load(latencies, time.perf_counter() - begin)


def together(wires: Sequence[Wire], requests: Sequence[bytes]) -> Load:
    """Keep as many requests on their way as there are connections."""
    left = iter(requests)
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        for wire in wires:
            wire.renew()
            selector.register(wire.socket, selectors.EVENT_READ, wire)
        begin = time.perf_counter()
        for wire in wires:
            wire.send(next(left))
        while len(latencies) < len(requests):
            for key, _ in selector.select(TIMEOUT_S):
                wire = key.data
                if wire.take():
                    latencies.append(time.perf_counter() - wire.began)
                    following = next(left, None)
                    if following is not None:
                        wire.send(following)
        return Load(latencies, time.perf_counter() - begin)


def post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Return a request, ready to be sent."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
