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
        import nats
        from nats.errors import Error
    except ImportError as error:
        raise DependencyError("NATS needs the package nats-py", hint="pip install 'skerry[nats]'") from error

    async def ignore(_error: Exception) -> None:
        """Say nothing: what fails is raised where it was asked for."""

    settings: dict[str, Any] = {}
    if place.username:
        settings = {"user": place.username, "password": place.password}
    if tls:
        settings["tls"] = ssl.create_default_context(cafile=ca or None)
    host = f"[{place.host}]" if ":" in place.host else place.host
    try:
        return await nats.connect(
            f"nats://{host}:{place.port}", allow_reconnect=False, connect_timeout=CONNECT_S, error_cb=ignore, **settings
        )
    except (OSError, Error) as error:
        raise HubUnreachableError(f"{place.name}: {error or type(error).__name__}") from error
