"""The socket's edge: a connection that notices when its other end is gone, read and written by a deadline."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import time

from skerry.run.uplink.wire_bytes import Meter

_PIECE = 1 << 16
_PROBES = 3  # unanswered keep-alive probes that end a connection


def connect(host: str, port: int, timeout_s: float, silence_s: float) -> socket.socket:
    """Return a TCP connection that is given up after ``silence_s`` without a sign of life; raises ``OSError``."""
    connection = socket.create_connection((host, port), timeout=timeout_s)
    try:
        _watch_for_silence(connection, silence_s)
    except OSError:
        connection.close()
        raise
    return connection


def _watch_for_silence(connection: socket.socket, silence_s: float) -> None:
    """Have the kernel end a connection whose other end vanished: probed when idle, timed out when sending."""
    seconds = max(1, round(silence_s / 2))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    settings = {
        "TCP_KEEPIDLE": seconds,
        "TCP_KEEPINTVL": max(1, seconds // _PROBES),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": max(1, round(silence_s * 1000)),
        "TCP_KEEPALIVE": seconds,  # macOS's name of the first
    }
    for name, value in settings.items():
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Deadline:
    """The moment at which an exchange has to be over."""

    def __init__(self, seconds: float) -> None:
        self._begun = time.monotonic()
        self._at = self._begun + seconds

    def spent(self) -> float:
        """Return for how many seconds the exchange has lasted."""
        return time.monotonic() - self._begun

    def left(self) -> float:
        """Return the seconds that are left; raises ``TimeoutError`` when there are none."""
        seconds = self._at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("no whole answer came in time")
        return seconds


class Stream:
    """A socket, with TLS or without, whose every read and write ends at a deadline."""

    def __init__(self, connection: socket.socket, meter: Meter) -> None:
        self.socket = connection
        self.deadline = Deadline(60.0)
        self._meter = meter

    def write(self, data: bytes) -> None:
        """Write everything; raises ``OSError``."""
        view = memoryview(data)
        while view:
            self.socket.settimeout(self.deadline.left())
            written = self.socket.send(view[:_PIECE])
            self._meter.note(written)
            view = view[written:]

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """Return what ``http.client`` reads an answer from."""
        return io.BufferedReader(_Reader(self, self._meter), _PIECE)

    def cancel(self) -> None:
        """End whatever is under way, from another thread; TLS is not asked, which belongs to the other thread."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close without a goodbye: on a link that is gone, waiting for one would take as long as everything else."""
        with contextlib.suppress(OSError):
            self.socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, stream: Stream, meter: Meter) -> None:
        self._stream, self._meter = stream, meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        stream = self._stream
        stream.socket.settimeout(stream.deadline.left())
        try:
            count = stream.socket.recv_into(buffer)
        except ssl.SSLEOFError:  # the other end went away without TLS's goodbye
            return 0
        self._meter.note(count)
        return count
