"""A connection to a NATS server, which never goes on in plain text where TLS was asked for."""

from __future__ import annotations

import ssl
from typing import Any

from skerry.spec.errors import DependencyError


async def connect(
    host: str, port: int, *, tls: ssl.SSLContext | None, connect_timeout_s: float, **settings: Any
) -> Any:
    """Return a connection that does not reconnect by itself; ``settings`` are those of ``nats.connect``.

    Raises ``DependencyError`` without nats-py, ``ConnectionError`` when nobody lets us in or offers no TLS.
    """
    try:
        from nats.aio.client import Client
        from nats.errors import Error
    except ImportError as error:
        raise DependencyError("NATS needs the package nats-py", hint="pip install 'skerry[nats]'") from error

    async def ignore(_error: Exception) -> None:
        """Say nothing: what fails is raised where it was asked for."""

    class EncryptedClient(Client):
        """Tells nobody a password or a record in plain text because a server, or who poses as it, offers no TLS."""

        async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
            if tls is not None and initial_connection and not info.get("tls_required"):
                raise ConnectionRefusedError("the server offers no TLS, and without it nothing is sent")
            await super()._process_info(info, initial_connection)

    client = EncryptedClient()
    if tls is not None:
        settings["tls"] = tls
    try:
        await client.connect(
            f"nats://{f'[{host}]' if ':' in host else host}:{port}",
            allow_reconnect=False,
            connect_timeout=max(1, round(connect_timeout_s)),
            error_cb=ignore,
            **settings,
        )
    except (OSError, Error) as error:
        _hang_up(client)
        raise ConnectionError(str(error) or type(error).__name__) from error
    return client


def _hang_up(client: Any) -> None:
    """Close the socket of a client that did not get in: the client itself leaves it open, at every attempt."""
    transport = client._transport
    if transport is not None:
        transport.close()
