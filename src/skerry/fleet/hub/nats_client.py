"""A connection to a NATS server, or an error; whoever uses it decides what to do when it breaks."""

from __future__ import annotations

import ssl
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.spec.errors import DependencyError, HubUnreachableError

CONNECT_S = 20


async def connect(place: Place, *, tls: bool, ca: str) -> Any:
    """Return a connection that does not reconnect by itself.

    Raises ``DependencyError`` without nats-py, ``HubUnreachableError`` when nobody lets us in.
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
            if tls and initial_connection and not info.get("tls_required"):
                raise HubUnreachableError(f"{place.name}: the server offers no TLS", expected="tls=1 on both sides")
            await super()._process_info(info, initial_connection)

    client, settings = EncryptedClient(), dict[str, Any]()
    if place.username:
        settings = {"user": place.username, "password": place.password}
    if tls:
        settings["tls"] = ssl.create_default_context(cafile=ca or None)
    host = f"[{place.host}]" if ":" in place.host else place.host
    try:
        await client.connect(
            f"nats://{host}:{place.port}", allow_reconnect=False, connect_timeout=CONNECT_S, error_cb=ignore, **settings
        )
    except (OSError, Error, HubUnreachableError) as error:
        _hang_up(client)
        if isinstance(error, HubUnreachableError):
            raise
        raise HubUnreachableError(f"{place.name}: {error or type(error).__name__}") from error
    return client


def _hang_up(client: Any) -> None:
    """Close the socket of a client that did not get in: the client itself leaves it open, at every attempt."""
    transport = client._transport
    if transport is not None:
        transport.close()
