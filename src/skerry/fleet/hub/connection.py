"""The connection of a request: whether it is TLS, and the certificate that its other end proved to hold.

It is read from the TLS connection itself and put into the ASGI scope by the server's protocol class. No header of a
request can say who somebody is: a header is only what the sender wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from skerry.spec.address import is_loopback
from skerry.spec.errors import DependencyError

KEY = "skerry.connection"
"""Where the connection stands in the ASGI scope; names of headers never get there."""
SILENCE_S = 30.0
"""How long a connection may take for the head of a request; slow links need some seconds."""
VISIT_S = 180.0
"""How long a connection without a certificate may stay: for enrolment or renewal, over a slow link."""


class Connection(msgspec.Struct, frozen=True):
    """What is known of the other end: ``certificate`` is DER, and was checked by the handshake (chain and dates)."""

    tls: bool
    certificate: bytes | None
    address: str

    @property
    def local(self) -> bool:
        """Whether the other end is on this machine."""
        return is_loopback(self.address)


STALL_S = 60.0
"""How long somebody may read nothing of what is sent to him: a stream, an export or a blob would be held for ever."""
NOWHERE = Connection(tls=False, certificate=None, address="")


def connection_of(scope: Mapping[str, Any]) -> Connection:
    """Return the connection of a request; one of which nothing is known has nothing to say."""
    found = scope.get(KEY, NOWHERE)
    return found if isinstance(found, Connection) else NOWHERE


def protocol_class(most_unproven: int) -> type[Any]:
    """Return uvicorn's protocol for HTTP/1.1 with the connection in the scope of every request.

    Over TLS, ``most_unproven`` connections at once may be without a certificate, and each for :data:`VISIT_S`.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError as error:
        raise DependencyError(
            "a hub needs the packages uvicorn and httptools", hint="pip install 'skerry[hub]'"
        ) from error

    unproven: set[object] = set()

    class ProvenProtocol(HttpToolsProtocol):
        """Knows who is at the other end; hangs up on those who never end a request, or read no answer."""

        _known: Connection = NOWHERE
        _silence: Any = None
        _visit: Any = None
        _stall: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            tls = transport.get_extra_info("ssl_object")
            certificate = tls.getpeercert(binary_form=True) if tls is not None else None
            self._known = Connection(tls is not None, certificate, self.client[0] if self.client else "")
            self._silence = self.loop.call_later(SILENCE_S, transport.close)
            if tls is not None and certificate is None:
                if len(unproven) >= most_unproven:
                    transport.close()
                unproven.add(self)
                self._visit = self.loop.call_later(VISIT_S, transport.close)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._silence is None:  # a later request may not trickle in for ever either
                self._silence = self.loop.call_later(SILENCE_S, self.transport.close)
            self.scope[KEY] = self._known  # type: ignore[literal-required]

        def on_headers_complete(self) -> None:
            if self._silence is not None:
                self._silence.cancel()
                self._silence = None
            super().on_headers_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            # What is written waits for a reader that may be gone: closing would wait for it too.
            self._stall = self.loop.call_later(STALL_S, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stall is not None:
                self._stall.cancel()
                self._stall = None
            super().resume_writing()

        def shutdown(self) -> None:
            super().shutdown()
            if self._stall is not None:  # who reads nothing does not hold up the end; streams and blobs are resumable
                self.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            unproven.discard(self)
            for timer in (self._silence, self._visit, self._stall):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

    return ProvenProtocol
