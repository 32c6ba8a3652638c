"""Batches over brokers: the hub's receipt comes back by the same way, and what is not signed gets nowhere."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.server import Hub
from skerry.spec.errors import UsageError
from skerry.testing.broker import Broker
from skerry.wire.receipt import decode_receipt
from tests.fleet.hub.brokers import NatsServer, until
from tests.fleet.hub.devices import Device, records, request


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.fleet.hub.transports.carrier.pause_s", lambda *_: 0.05)


class MqttDevice:
    """A device at a broker: publishes batches and waits for their answers."""

    def __init__(self, port: int, name: str = "pump-1") -> None:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        self.name, self._answers = name, queue.Queue[Any]()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        ready = queue.Queue[int]()
        self._client.on_message = lambda _client, _data, message: self._answers.put(message)
        self._client.on_connect = lambda client, *_: client.subscribe(f"skerry/{name}/#", qos=1, options=None)
        self._client.on_subscribe = lambda *_: ready.put(1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        ready.get(timeout=20)

    def ask(self, batch: bytes, correlation: bytes, *, topic: str = "", patience_s: float = 20.0) -> Any:
        """Publish a batch until an answer with the correlation data comes: the hub may not have subscribed yet."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties: Any = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic = topic or f"skerry/{self.name}/receipt"
        properties.CorrelationData = correlation
        found: list[Any] = []

        def answered() -> bool:
            self._client.publish(f"skerry/{self.name}/batch", batch, qos=1, properties=properties)
            try:
                while True:
                    message = self._answers.get(timeout=0.5)
                    if message.topic.endswith("receipt") and message.properties.CorrelationData == correlation:
                        found.append(message)
                        return True
            except queue.Empty:
                return False

        until(answered, patience_s)
        return found[0]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def told(message: Any) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", []))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker.start(tmp_path / "broker") as made:
        yield made


def test_mqtt_brings_batches_and_takes_receipts_back(broker: Broker, start_hub: Callable[..., Hub]) -> None:
    hub, device = start_hub(transports=(f"mqtt://127.0.0.1:{broker.port}",)), Device()
    at_broker = MqttDevice(broker.port)
    answer = at_broker.ask(device.pack(records(1, 30)), b"one")
    assert decode_receipt(answer.payload).committed == [(1, 30)] and told(answer) == {}
    assert len(request(hub.port, "GET", "/v1/records").json()["records"]) == 30

    assert told(at_broker.ask(device.pack(records(31, 32), signed=False), b"two"))["status"] == "403"
    assert told(at_broker.ask(b"junk", b"three"))["status"] == "400"
    assert told(at_broker.ask(Device("pump-2").pack(records(1, 2)), b"four"))["status"] == "403"
    # An answer goes below the device's own name only.
    assert at_broker.ask(device.pack(records(31, 32)), b"five", topic="skerry/other/receipt").topic == (
        "skerry/pump-1/receipt"
    )
    broker.kill()
    broker.restart()
    again = MqttDevice(broker.port)
    assert decode_receipt(again.ask(device.pack(records(30, 40)), b"six").payload).count == 40
    again.close()
    at_broker.close()
    hub.close()


def test_nats_brings_batches_and_takes_receipts_back(tmp_path: Path, start_hub: Callable[..., Hub]) -> None:
    import nats

    server = NatsServer(tmp_path / "nats")
    hub, device = start_hub(transports=(server.url,)), Device()

    async def ask(connection: Any, batch: bytes) -> Any:
        while True:
            try:
                return await connection.request("skerry.pump-1.batch", batch, timeout=10)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.05)

    async def talk(first: int, last: int) -> Any:
        connection = await nats.connect(server.url)
        receipt = decode_receipt((await ask(connection, device.pack(records(first, last)))).data)
        unsigned = await ask(connection, device.pack(records(first, last), signed=False))
        await connection.close()
        return receipt, dict(unsigned.headers)

    try:
        receipt, refused = asyncio.run(talk(1, 30))
        assert receipt.committed == [(1, 30)] and refused == {"status": "403"}
        server.kill()
        server.start()
        assert asyncio.run(talk(25, 40))[0].count == 40
        hub.close()
    finally:
        server.kill()


def test_a_hub_without_its_broker_takes_batches_all_the_same(start_hub: Callable[..., Hub]) -> None:
    hub = start_hub(transports=("mqtt://127.0.0.1:9", "nats://127.0.0.1:9"))
    assert request(hub.port, "POST", "/v1/batches", Device().pack(records(1, 2))).status == 200


@pytest.mark.parametrize("uri", ["amqp://127.0.0.1", "mqtts://broker.example.org", "mqtt://broker.example.org"])
def test_a_transport_that_cannot_be_is_told(uri: str, start_hub: Callable[..., Hub]) -> None:
    with pytest.raises(UsageError):
        start_hub(transports=(uri,))
