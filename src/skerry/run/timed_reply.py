"""A timed reply: one that has to be there, head and body, at a given moment, however slowly its bytes come."""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3


class _TimedBytes(io.RawIOBase):
    """The bytes of a connection until a moment of the monotonic clock; a read beyond it raises ``TimeoutError``."""

    def __init__(self, connection: socket.socket, ends_s: float) -> None:
        self._connection, self._ends_s = connection, ends_s
        self._bytes = connection.makefile("rb", buffering=0)  # holds the connection open until this is closed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply did not end in time")
        self._connection.settimeout(left)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
        super().close()


class _TimedSocket:
    """Gives http.client a file to read from, which is all that it wants of a socket."""

    def __init__(self, connection: socket.socket, ends_s: float) -> None:
        self._connection, self._ends_s = connection, ends_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedBytes(self._connection, self._ends_s))


def _timed(connection: socket.socket, *, ends_s: float, **options: Any) -> http.client.HTTPResponse:
    sock: Any = _TimedSocket(connection, ends_s)
    return http.client.HTTPResponse(sock, **options)


@functools.cache
def timed_pools() -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return, by scheme, pools for ``PoolManager.pool_classes_by_scheme`` whose read limit is for the whole reply.

    By itself a limit of urllib3, as of every socket, is for each piece that comes: a server that sends one byte now and
    then would never reach it.
    """
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Timed(HTTPConnection):
        def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
            if isinstance(self.timeout, int | float):  # urllib3 sets what is left of the whole exchange just before
                own: Any = functools.partial(_timed, ends_s=time.monotonic() + self.timeout)
                self.response_class = own
            return super().getresponse()

    class TimedTls(Timed, HTTPSConnection):
        pass

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Timed

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = TimedTls

    return {"http": Pool, "https": TlsPool}
