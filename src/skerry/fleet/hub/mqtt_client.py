"""A client of an MQTT 5 broker that is connected, or an error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.spec.errors import DependencyError, HubUnreachableError

CONNECT_S = 20.0
"""How long a connection with TLS may take on a slow machine."""


def connected_client(
    place: Place, ca: str, *, set_up: Callable[[Any], None] = lambda client: None, at_once: int = 0, largest: int = 0
) -> Any:
    """Return a client whose loop runs in a thread of its own; ``set_up`` sees it before it connects.

    The broker is told to send at most ``at_once`` messages before they are acknowledged, and none beyond ``largest``
    bytes; 0 sets no bound.

    Raises ``DependencyError`` without paho-mqtt, ``HubUnreachableError`` when the broker does not let us in.
    """
    try:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise DependencyError("MQTT needs the package paho-mqtt", hint="pip install 'skerry[mqtt]'") from error
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5, manual_ack=True)
    if place.username:
        client.username_pw_set(place.username, place.password)
    if place.scheme == "mqtts":
        client.tls_set(ca_certs=ca or None)
    answered, refusal = threading.Event(), [""]

    def on_connect(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        refusal[0] = str(reason) if reason.is_failure else ""
        answered.set()

    client.on_connect = on_connect
    set_up(client)
    try:
        client.connect(place.host, place.port, keepalive=30, properties=_bounds(at_once, largest))
        client.loop_start()
        if not answered.wait(CONNECT_S) or refusal[0]:
            raise OSError(refusal[0] or "no answer")
    except OSError as error:
        client.loop_stop()
        raise HubUnreachableError(f"{place.name}: {error}") from error
    return client


def _bounds(at_once: int, largest: int) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if at_once:
        properties.ReceiveMaximum = at_once
    if largest:
        properties.MaximumPacketSize = largest
    return properties
