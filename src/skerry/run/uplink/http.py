"""HTTP/1.1: batches posted over a connection that is kept open, with as few bytes of headers as it takes.

The requests are written by hand and the answers read by ``http.client``: a batch of 1.2 kB travels with 118 bytes of
headers, where urllib3 sends 179 and knows no deadline of the whole exchange.
"""

from __future__ import annotations

import errno
import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from skerry.run.uplink.socket_edge import Deadline, Stream, connect
from skerry.run.uplink.transport import BATCH, Answer
from skerry.run.uplink.wire_bytes import Meter

HUB_HEADER = "Skerry-Hub"
"""Every answer of a hub has it; a captive portal's has not."""

_LARGEST_ANSWER = 1 << 21
_READ_AT_ONCE = 1 << 16
_IDLE_S = 45.0  # a connection that was idle for longer is made anew: the server, or a NAT between, has forgotten it
_SILENT = 0.9  # of the time that the kernel waits for a sign of life: what ends later than that died of silence
_STALE = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, http.client.RemoteDisconnected)


class Place(msgspec.Struct, frozen=True):
    """Where a hub is: ``https`` (mutual TLS) or ``http``, a host, a port and what its paths begin with."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def url(self) -> str:
        """The same as text."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        return self.url.removeprefix(f"{self.scheme}://").removesuffix(self.prefix)


class HttpLane:
    """One connection to a hub, made when it is needed and kept while it lives.

    Parameters
    ----------
    place:
        The hub.
    context:
        Returns what TLS is to be done with; the same object until the certificate is renewed.
    connect_timeout_s, silence_s:
        How long a connection may take to make, and how long it may be silent.
    """

    def __init__(
        self, place: Place, context: Callable[[], ssl.SSLContext | None], connect_timeout_s: float, silence_s: float
    ) -> None:
        self._place, self._context = place, context
        self._connect_timeout_s, self._silence_s = connect_timeout_s, silence_s
        self._stream: Stream | None = None
        self._used_context: ssl.SSLContext | None = None
        self._used_at = 0.0
        self._meter = Meter()
        self.connections = 0
        """How many connections were made."""

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Post a batch; raises ``OSError`` when there is no whole answer in time."""
        return self.request("POST", "/v1/batches", batch, {"Content-Type": BATCH}, timeout_s)

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
        *,
        take: Callable[[bytes], Any] | None = None,
        again: bool = True,
    ) -> Answer:
        """Send one request and read its answer; no redirect is followed.

        ``take`` gets the body of a successful answer of a hub in pieces instead. Where the request may be sent
        ``again``, a connection that died unnoticed while it was idle is made anew, once. Raises ``OSError``.
        """
        deadline = Deadline(timeout_s)
        message = self._head(method, path, len(body), headers or {}) + body
        is_old = self._stream is not None and again
        try:
            return self._once(method, message, deadline, take)
        except _STALE as error:
            self._drop()
            if deadline.spent() >= _SILENT * self._silence_s:  # TLS tells the kernel's ETIMEDOUT as an end
                raise TimeoutError(errno.ETIMEDOUT, "the connection went silent") from error
            if not is_old:
                raise
        except BaseException:
            self._drop()
            raise
        try:
            return self._once(method, message, deadline, take)
        except BaseException:
            self._drop()
            raise

    def _once(self, method: str, message: bytes, deadline: Deadline, take: Callable[[bytes], Any] | None) -> Answer:
        stream = self._connected(deadline)
        stream.deadline = deadline
        broken: OSError | None = None
        try:
            stream.write(message)
        except TimeoutError:
            raise
        except OSError as error:  # a hub that refuses a large batch answers and closes before it has read all of it
            broken = error
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        try:
            response.begin()
            answer = _read(response, take)
        except OSError as error:
            if broken is not None:
                raise broken from error
            raise
        except (http.client.HTTPException, ValueError) as error:
            raise _as_os_error(error) from error
        self._used_at = time.monotonic()
        if response.will_close or broken is not None:
            self._drop()
        return answer

    def _connected(self, deadline: Deadline) -> Stream:
        """Return the connection, made anew where it is too old or for another certificate."""
        context = self._context()
        if self._stream is not None and (
            context is not self._used_context or time.monotonic() - self._used_at > _IDLE_S
        ):
            self._drop()
        if self._stream is not None:
            return self._stream
        limit_s = min(self._connect_timeout_s, deadline.left())
        connection = connect(self._place.host, self._place.port, limit_s, self._silence_s)
        self._meter.watch(connection)
        self.connections += 1
        if context is not None:
            try:
                connection = context.wrap_socket(connection, server_hostname=self._place.host)
            except BaseException:
                self._meter.leave()
                connection.close()
                raise
            self._meter.watch(connection)
        self._stream, self._used_context = Stream(connection, self._meter), context
        return self._stream

    def _head(self, method: str, path: str, length: int, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self._place.prefix}{path} HTTP/1.1", f"Host: {self._place.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length or method in {"POST", "PATCH", "PUT"}:
            lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def traffic(self) -> int:
        """Return the bytes on the wire since this was last asked."""
        return self._meter.taken()

    def cancel(self) -> None:
        """End the exchange that is under way."""
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self._meter.leave()
            stream.close()

    def close(self) -> None:
        """Close the connection."""
        self._drop()


class HttpTransport:
    """Makes lanes to one hub that share what TLS is done with."""

    overhead = 600  # headers and receipt both ways, TLS records, TCP and IP of six segments
    opening = 6000  # a handshake of TLS 1.3 in which both show chains of two certificates

    def __init__(
        self,
        place: Place,
        context: Callable[[], ssl.SSLContext] | None = None,
        *,
        connect_timeout_s: float = 15.0,
        silence_s: float = 20.0,
    ) -> None:
        self.place = place
        self.name = place.url
        self._make = context
        self._kept: ssl.SSLContext | None = None
        self._connect_timeout_s, self._silence_s = connect_timeout_s, silence_s

    def lane(self) -> HttpLane:
        """Return a new lane."""
        return HttpLane(self.place, self._tls, self._connect_timeout_s, self._silence_s)

    def _tls(self) -> ssl.SSLContext | None:
        if self._kept is None and self._make is not None:
            self._kept = self._make()
        return self._kept

    def renewed(self) -> None:
        """Make TLS of the identity's new files from now on."""
        self._kept = None

    def close(self) -> None:
        """Do nothing: the lanes have what there is to close."""


def _read(response: http.client.HTTPResponse, take: Callable[[bytes], Any] | None) -> Answer:
    """Read an answer to its end, or up to the limit."""
    headers = {name.lower(): value for name, value in response.getheaders()}
    is_hub = headers.get(HUB_HEADER.lower(), "").strip() == "1"
    content = bytearray()
    streams = take is not None and is_hub and response.status in {200, 206}
    while piece := response.read1(_READ_AT_ONCE):
        if streams and take is not None:
            take(piece)
        else:
            content += piece
        if len(content) > _LARGEST_ANSWER:
            raise ConnectionError(f"an answer of more than {_LARGEST_ANSWER} bytes")
    if response.length:  # http.client does not tell of a body that is shorter than announced when read in pieces
        raise ConnectionResetError("the connection ended within an answer")
    return Answer(
        status=response.status,
        body=bytes(content),
        is_hub=is_hub,
        kind=headers.get("content-type", "").partition(";")[0].strip().lower(),
        retry_after_s=retry_after(headers),
        headers=headers,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110, section 10.2.3), or ``None``.

    A date is counted from the server's own ``Date``: our clock may be a year off.

    >>> retry_after({"retry-after": "120"})
    120.0
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, IndexError):
        return None


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, http.client.IncompleteRead):
        return ConnectionResetError("the connection ended within an answer")
    return ConnectionError(f"what came back is no HTTP: {type(error).__name__}: {error}"[:200])
