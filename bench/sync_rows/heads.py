"""Heads: those of a batch over HTTP/1.1 as the uplink's client and the hub really send them, caught on loopback."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

from skerry.fleet.hub.server import Hub, HubSetup
from skerry.run.uplink.http import HttpLane, Place

HOST = b"hub.example.org:8443"
"""What stands for the address of a hub; that of loopback would be shorter."""
_PATIENCE_S = 10.0


class Heads(NamedTuple):
    """The two heads around a batch and its receipt."""

    request: bytes
    reply: bytes

    def request_of(self, size: int) -> bytes:
        """Return the head of a request whose body has this size."""
        return _sized(self.request, size)

    def reply_of(self, size: int) -> bytes:
        """Return the head of a reply whose body has this size."""
        return _sized(self.reply, size)


def heads_around(batch: bytes) -> Heads:
    """Send an unsigned batch from a real client to a real hub, and return what stood around it both ways."""
    request = _request_of_client(batch)
    with tempfile.TemporaryDirectory() as folder:
        hub = Hub(HubSetup(data=Path(folder) / "hub", port=0))
        hub.start()
        try:
            with socket.create_connection(("127.0.0.1", hub.port), _PATIENCE_S) as connection:
                connection.sendall(request + batch)
                with connection.makefile("rb") as answer:
                    reply = _head(answer)
        finally:
            hub.close()
    if not reply.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the hub did not take the batch: {reply!r}")
    return Heads(re.sub(rb"(?m)^Host: .*\r$", b"Host: " + HOST + b"\r", request), reply)


def _request_of_client(batch: bytes) -> bytes:
    """Return the head that the client sends: to somebody who listens, and leaves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lane = HttpLane(Place("http", "127.0.0.1", listener.getsockname()[1]), lambda: None, _PATIENCE_S, _PATIENCE_S)

        def send() -> None:
            with contextlib.suppress(OSError):
                lane.exchange(batch, _PATIENCE_S)

        sender = threading.Thread(target=send)
        sender.start()
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as sent:
            head = _head(sent)
        sender.join()
        lane.close()
    return head


def _head(stream: BinaryIO) -> bytes:
    """Read lines up to the empty one."""
    lines = iter(stream.readline, b"\r\n")
    return b"".join(lines) + b"\r\n"


def _sized(head: bytes, size: int) -> bytes:
    return re.sub(rb"(?mi)^(content-length: )\d+", rb"\g<1>%d" % size, head)
