"""MQTT 5: every event published with QoS 1, confirmed by the broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.egress.event import EVENT_TYPE, Event
from skerry.fleet.hub.egress.outlet import OutletOptions
from skerry.fleet.hub.mqtt_client import connected_client
from skerry.spec.errors import HubUnreachableError

CONFIRM_S = 30.0
"""How long a broker may take to confirm; a slow disk syncs in less."""


class MqttEgressOptions(OutletOptions, frozen=True, kw_only=True):
    """``ca``: a file of certificates to believe instead of the system's, for ``mqtts``."""

    ca: str = ""


class MqttEgress:
    """Publishes to the topic that the path names; ``{device}`` and ``{stream}`` in it are filled in.

    Without a path the topic is ``skerry/records/{device}``.
    """

    def __init__(self, place: Place, options: MqttEgressOptions) -> None:
        self._place, self._options = place, options
        self._topic = place.path.strip("/") or "skerry/records/{device}"
        self._client: Any = None

    def open(self) -> None:
        """Connect; raises ``HubUnreachableError``."""
        self._client = connected_client(
            self._place, self._options.ca, set_up=lambda client: client.max_inflight_messages_set(self._options.batch)
        )

    def deliver(self, events: Sequence[Event]) -> None:
        """Publish, and wait for every confirmation."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = EVENT_TYPE
        sent = [self._client.publish(self._filled(event), event.body, qos=1, properties=properties) for event in events]
        for message in sent:
            try:
                message.wait_for_publish(CONFIRM_S)
            except (RuntimeError, ValueError) as error:  # the queue is full, or the connection is gone
                raise HubUnreachableError(f"the broker did not take it: {error}") from error
            if not message.is_published():
                raise HubUnreachableError("the broker did not confirm in time")

    def _filled(self, event: Event) -> str:
        """Return the topic; what would be a level or a wildcard of its own in a name is not one."""
        stream = "".join("_" if sign in "/+#\0" else sign for sign in event.record.stream)
        return self._topic.replace("{device}", event.record.device).replace("{stream}", stream)

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()
