"""Wire bytes: what a connection really cost, headers of TCP and IP and repeated segments included.

Source: ``struct tcp_info`` of ``linux/tcp.h``; ``bytes_sent`` is there since Linux 4.19.
"""

from __future__ import annotations

import socket
import struct
import sys

_BYTES_RECEIVED, _SEGMENTS, _BYTES_SENT = 128, 136, 200  # offsets in struct tcp_info
_LENGTH = 216
_SEGMENT_OVERHEAD = 52  # bytes of an IPv4 header, a TCP header and its timestamps


def tcp_bytes(connection: socket.socket) -> int | None:
    """Return the bytes that a TCP connection has cost so far, both ways; ``None`` where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    except OSError:
        return None
    if len(info) < _LENGTH:
        return None
    received: int = struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0]
    sent: int = struct.unpack_from("=Q", info, _BYTES_SENT)[0]
    out, into = (int(number) for number in struct.unpack_from("=II", info, _SEGMENTS))
    return sent + received + (out + into) * _SEGMENT_OVERHEAD


class Meter:
    """Adds up what connections cost, one after the other; falls back on what was written and read."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._seen = 0
        self._kept = 0
        self._plain = 0

    def watch(self, connection: socket.socket) -> None:
        """Begin with a new connection."""
        self._socket, self._seen, self._plain = connection, 0, 0

    def note(self, size: int) -> None:
        """Add bytes that were written or read, for systems that do not count."""
        self._plain += size

    def leave(self) -> None:
        """Take the last reading of a connection that is about to be closed."""
        self._kept += self._reading()
        self._socket = None

    def taken(self) -> int:
        """Return the bytes since this was last asked."""
        size = self._kept + self._reading()
        self._kept = 0
        return size

    def _reading(self) -> int:
        if self._socket is None:
            return 0
        counted = tcp_bytes(self._socket)
        if counted is None:
            size, self._plain = self._plain, 0
            return size
        size, self._seen = counted - self._seen, counted
        return max(0, size)
