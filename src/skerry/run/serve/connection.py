"""A connection: HTTP/1.1 from the bytes of a socket to a request, and from an answer to bytes.

The parsing is that of llhttp (the package httptools); what is here is the limits, the order of answers, and the times
that a client may take. A server framework's layers in between cost more than all the rest of an answer together
(docs/decisions/0020).
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from skerry.run.serve.options import ServeOptions
from skerry.run.serve.refusal import Refusal

Reply = Callable[..., None]
"""``reply(status, content_type, body, headers=b"")``: answers a request, once, in the server's thread."""
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MOST_HEADERS = 100
_MOST_WAITING = 8
"""Requests that a client may send ahead of their answers; then its connection is not read for a while."""
_LARGE = 1 << 20
"""Bytes of a body from which on it counts against the memory that all large bodies share."""
_DEAF_S = 5.0
"""How long the rest of a request that was refused is read and thrown away, so that the answer arrives: a socket that
is closed with unread bytes resets the connection."""


class Request:
    """One request, whole."""

    __slots__ = ("body", "headers", "is_last", "method", "received", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes, is_last: bool) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        """By their names in lower case."""
        self.body = body
        self.is_last = is_last
        """Whether the client wants the connection closed after the answer."""
        self.received = time.monotonic()


class Cancellable(Protocol):
    """A request that is not answered yet."""

    def cancel(self) -> None:
        """Forget it: its client has left."""


class Application(Protocol):
    """What answers requests."""

    def handle(self, request: Request, reply: Reply) -> Cancellable | None:
        """Answer a request now or later; what is returned can be cancelled until then."""

    def refuse(self, target: bytes, refusal: Refusal, reply: Reply) -> None:
        """Answer a request that could not be read."""


class Yard:
    """All connections of a server, and what they share.

    Parameters
    ----------
    application:
        What answers.
    options:
        The limits.
    """

    def __init__(self, application: Application, options: ServeOptions) -> None:
        from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

        self.parser: Any = HttpRequestParser
        self.failures: tuple[type[Exception], type[Exception]] = (HttpParserUpgrade, HttpParserError)
        self.application = application
        self.options = options
        self.connections: set[Connection] = set()
        self.is_closing = False
        self.date = b""
        self.room = 4 * int(options.max_body)
        """Bytes that large bodies may still take: four of the largest at once."""
        self.tick()

    def tick(self) -> None:
        """Set the date of answers, and let go of clients that took too long; called once a second."""
        self.date = b"date: " + email.utils.formatdate(usegmt=True).encode() + b"\r\n"
        now = time.monotonic()
        for connection in [each for each in self.connections if each.due < now]:
            connection.too_late()

    def close_idle(self) -> None:
        """Close the connections without a request, and every other one after its answer."""
        self.is_closing = True
        for connection in list(self.connections):
            connection.close_if_idle()

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self._options = yard.options
        self._transport: Any = None
        self._parser = yard.parser(self)
        self._waiting: deque[Request] = deque()
        self._pending: Cancellable | None = None
        self._is_busy = False
        """Whether a request is being answered."""
        self._is_reading = False
        """Whether a request has begun that is not whole yet."""
        self._is_deaf = False
        self._is_full = False
        self._is_last = False
        self._refusal: Refusal | None = None
        self._taken = 0
        self.due = math.inf
        """When patience ends, on the monotonic clock."""
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._head_size = self._header_bytes = self._body_size = 0
        self._has_head = False

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """Take a client, or answer 503 when there are too many."""
        self._transport = transport
        yard = self._yard
        self.due = time.monotonic() + self._options.patience
        if len(yard.connections) >= self._options.connections:
            yard.connections.add(self)
            self._refuse(Refusal(503, "there are too many connections", retry_after_s=1, close=True))
            return
        yard.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read what came, and begin to answer what is whole."""
        if self._is_deaf:
            return
        if not self._is_reading:
            self._is_reading = True
            if not self._is_busy:
                self.due = time.monotonic() + self._options.patience
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except self._yard.failures[0]:  # another protocol was offered; the request itself is a good one
            if self._waiting:
                self._waiting[-1].is_last = True
        except self._yard.failures[1] as error:
            self._refusal = self._refusal or Refusal(400, f"this is no HTTP/1.1: {error}", close=True)
        if not self._has_head and self._is_reading and self._head_size > self._options.max_head:
            self._refusal = Refusal(431, f"the head has more than {int(self._options.max_head)} bytes", close=True)
        if self._waiting and not self._is_busy:
            self._next()
        if self._refusal is not None and not self._is_deaf:
            if self._is_busy:  # answers go out in order, and this one's turn does not come
                self._is_last, self._is_deaf = True, True
            else:
                self._refuse(self._refusal)

    def eof_received(self) -> bool | None:
        """Close when the client has said all and got all."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client, and what it has asked for."""
        self._yard.connections.discard(self)
        self._give_room_back()
        self._waiting.clear()
        self._is_deaf = True
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def pause_writing(self) -> None:
        """Note that the client does not take its answers; it has some time to."""
        self._is_full = True
        self.due = time.monotonic() + self._options.patience

    def resume_writing(self) -> None:
        """Go on with what waits."""
        self._is_full = False
        self.due = math.inf if self._is_busy else time.monotonic() + self._options.idle
        if self._waiting and not self._is_busy:
            self._next()

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """Note a part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        headers = self._headers
        headers[name.lower()] = value
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._options.max_head:
            self._refusal = Refusal(431, f"the head has more than {int(self._options.max_head)} bytes", close=True)
        elif len(headers) > _MOST_HEADERS:
            self._refusal = Refusal(431, f"there are more than {_MOST_HEADERS} headers", close=True)

    def on_headers_complete(self) -> None:
        """Refuse at once what would be refused anyway, before its body is read."""
        self._has_head = True
        length = self._headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._options.max_body:
            self._refuse_body()
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._is_busy:
            self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self._refusal is not None:
            return
        self._body_size += len(data)
        if self._body_size > self._options.max_body:
            self._refuse_body()
        elif self._body_size > _LARGE and not self._take_room():
            self._refusal = Refusal(503, "too many large requests at once", retry_after_s=1, close=True)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Queue a request that is whole."""
        if self._refusal is not None:
            return
        parts = self._body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parser = self._parser
        request = Request(parser.get_method(), self._target, self._headers, body, not parser.should_keep_alive())
        self._reset()
        self._is_reading = False
        self._waiting.append(request)
        if len(self._waiting) == _MOST_WAITING:
            self._transport.pause_reading()

    # What the yard calls.

    def too_late(self) -> None:
        """End a connection whose client took too long."""
        if self._is_reading and not self._is_busy and not self._is_deaf and not self._is_full:
            self._refuse(Refusal(408, "the request did not come in time", close=True))
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Close a connection that waits for nothing."""
        if not self._is_busy and not self._waiting and not self._is_reading:
            self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        self._transport.abort()

    def _next(self) -> None:
        """Begin to answer the request that has waited the longest."""
        if self._is_full or self._is_busy or not self._waiting:
            return
        request = self._waiting.popleft()
        if len(self._waiting) == _MOST_WAITING - 1:
            self._transport.resume_reading()
        self._is_busy = True
        self._is_last = self._is_last or request.is_last
        self.due = math.inf
        pending = self._yard.application.handle(request, self._reply)
        if self._is_busy:
            self._pending = pending

    def _reply(self, status: int, content_type: bytes, body: bytes, headers: bytes = b"") -> None:
        """Send an answer, and go on with the next request."""
        transport, yard = self._transport, self._yard
        self._pending = None
        self._is_busy = False
        if self._taken:
            self._give_room_back()
        if transport.is_closing():
            return
        is_last = self._is_last or yard.is_closing
        transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b%b\r\n%b"
            % (
                _LINES[status], content_type, len(body), yard.date, headers,
                b"connection: close\r\n" if is_last else b"", body,
            )
        )  # fmt: skip
        if is_last:
            self._close_softly()
            return
        if not self._is_full:
            self.due = time.monotonic() + (self._options.patience if self._is_reading else self._options.idle)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that was not read to its end, and close."""
        self._is_last = True
        self._is_busy = True
        self._yard.application.refuse(self._target, refusal, self._reply)

    def _refuse_body(self) -> None:
        self._body.clear()
        self._refusal = Refusal(
            413, f"the body has more than the {int(self._options.max_body)} bytes that are taken", close=True
        )

    def _close_softly(self) -> None:
        """Send what is left and close, once the client has stopped sending or after a while."""
        self._is_deaf = True
        if not (self._is_reading or self._refusal is not None):
            self._transport.close()
            return
        self._body.clear()
        self.due = time.monotonic() + _DEAF_S
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _take_room(self) -> bool:
        """Take what the body has grown by from the room for large bodies; tell whether there was enough."""
        more = self._body_size - self._taken
        if more > self._yard.room:
            return False
        self._yard.room -= more
        self._taken += more
        return True

    def _give_room_back(self) -> None:
        self._yard.room += self._taken
        self._taken = 0
