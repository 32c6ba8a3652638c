"""A connection of the hub to a NATS server, or an error; whoever uses it decides what to do when it breaks."""

from __future__ import annotations

import ssl
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.run import nats_client
from skerry.spec.errors import HubUnreachableError

CONNECT_S = 20


async def connect(place: Place, *, tls: bool, ca: str) -> Any:
    """Return a connection that does not reconnect by itself.

    Raises ``DependencyError`` without nats-py, ``HubUnreachableError`` when nobody lets us in.
    """
    login = {"user": place.username, "password": place.password} if place.username else {}
    context = ssl.create_default_context(cafile=ca or None) if tls else None
    try:
        return await nats_client.connect(place.host, place.port, tls=context, connect_timeout_s=CONNECT_S, **login)
    except OSError as error:
        raise HubUnreachableError(f"{place.name}: {error}") from error
