"""MQTT 5 as a transport: batches on ``skerry/DEVICE/batch``, receipts to the response topic that they name."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.mqtt_client import connected_client
from skerry.fleet.hub.transports.carrier import CarrierOptions, Desk, Reply
from skerry.spec.errors import HubUnreachableError

AT_ONCE = 64
"""Batches that the broker may send before the hub has answered; it keeps the others."""
_OVERHEAD = 1024  # bytes of a packet beside the batch: topic and properties


class MqttCarrier:
    """One session at a broker. A batch is acknowledged to the broker only after its reply was handed over."""

    def __init__(self, place: Place, options: CarrierOptions, desk: Desk) -> None:
        self.name = place.name
        self._place, self._options, self._desk = place, options, desk
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self) -> None:
        """Take batches until the connection ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def set_up(client: Any) -> None:
            client.on_message = lambda _client, _data, message: loop.call_soon_threadsafe(
                self._arrived, client, message
            )
            client.on_disconnect = lambda *_: loop.call_soon_threadsafe(ended.set)

        client = await asyncio.to_thread(
            connected_client, self._place, self._options.ca, set_up=set_up, at_once=AT_ONCE,
            largest=int(self._desk.options.max_body) + _OVERHEAD,
        )  # fmt: skip
        try:
            result, _ = client.subscribe(f"{self._options.prefix}/+/batch", qos=1)
            if result:
                raise HubUnreachableError(f"{self.name}: no subscription")
            await ended.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            # The loop of the client is ended in a thread: it may be about to call into ours.
            await asyncio.to_thread(_end, client)

    def _arrived(self, client: Any, message: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(client, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, client: Any, message: Any) -> None:
        device = message.topic.split("/")[-2]
        reply = await self._desk.answer(bytes(message.payload), device)
        own = f"{self._options.prefix}/{device}/"
        wanted = getattr(message.properties, "ResponseTopic", f"{own}receipt")
        # A device gets answers below its own name only, or one could publish for another by the hub's hand.
        topic = wanted if wanted.startswith(own) and not set(wanted) & set("+#") else f"{own}receipt"
        client.publish(topic, reply.body, qos=1, properties=_properties(reply, message))
        client.ack(message.mid, message.qos)


def _properties(reply: Reply, message: Any) -> Any:
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    correlation = getattr(message.properties, "CorrelationData", None)
    if correlation is not None:
        properties.CorrelationData = correlation
    if reply.headers:
        properties.UserProperty = list(reply.headers.items())
    return properties


def _end(client: Any) -> None:
    with contextlib.suppress(OSError):
        client.disconnect()
    client.loop_stop()
