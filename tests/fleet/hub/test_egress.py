"""What goes out of the hub skips nothing: webhook, MQTT, NATS JetStream and Kafka, each the real thing."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry.fleet.hub.egress.event import event_of, rfc3339
from skerry.fleet.hub.egress.making import make_outlets
from skerry.fleet.hub.egress.outlet import pause_s
from skerry.fleet.hub.server import Hub
from skerry.fleet.hub.sqlite_store import SqliteStore
from skerry.fleet.hub.writer import Writer
from skerry.spec.errors import UsageError
from skerry.testing.broker import Broker
from tests.fleet.hub.brokers import NatsServer, Receiver, until
from tests.fleet.hub.devices import EPOCH, Device, record, records, request


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skerry.fleet.hub.egress.outlet.pause_s", lambda *_: 0.05)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def send(hub: Hub, device: Device, first: int, last: int) -> None:
    assert request(hub.port, "POST", "/v1/batches", device.pack(records(first, last))).status == 200


def metrics(hub: Hub) -> str:
    return request(hub.port, "GET", "/metrics").body.decode()


def ids(first: int, last: int) -> list[str]:
    return [f"pump-1/{EPOCH}/{seq}" for seq in range(first, last + 1)]


def test_an_event_says_what_a_record_says(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    with store.begin() as transaction:
        from skerry.fleet.hub.ingest import Ingest

        sent = record(7, {"a": [1, None]}, release="sha256:1")
        Ingest().take(Device().batch([sent]), transaction, 1_800_000_000_123)
    event = json.loads(event_of(store.records()[0], "x.y").body)
    store.close()
    assert event == {
        "specversion": "1.0", "id": ids(7, 7)[0], "source": "/devices/pump-1", "type": "x.y", "subject": "events",
        "datacontenttype": "application/json", "sequence": "7", "priority": 1, "recordedby": "hub",
        "data": {"a": [1, None]}, "time": "2027-01-15T07:43:27.123Z", "release": "sha256:1",
    }  # fmt: skip
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_a_webhook_gets_everything_once_in_order(receiver: Receiver, start_hub: Callable[..., Hub]) -> None:
    hub, device = start_hub(egress=(f"{receiver.url}?batch=7",)), Device()
    send(hub, device, 1, 20)
    send(hub, device, 15, 30)
    until(lambda: len(receiver.events) >= 30)
    assert [event["id"] for event in receiver.events] == ids(1, 30)
    assert receiver.kinds == {"application/cloudevents-batch+json"}


def test_a_webhook_that_fails_gets_it_again_with_the_same_id(start_hub: Callable[..., Hub]) -> None:
    receiver = Receiver([503, 200, 599, 400, 200])
    hub, device = start_hub(egress=(f"{receiver.url}?batch=5&name=ops",)), Device()
    send(hub, device, 1, 30)
    until(lambda: ids(30, 30)[0] in {event["id"] for event in receiver.events})
    seen = [event["id"] for event in receiver.events]
    assert list(dict.fromkeys(seen)) == ids(1, 30)  # nothing skipped, nothing out of order
    assert len(seen) == 34  # a refusal makes batches smaller: the four whose answer was lost came twice
    until(lambda: 'skerry_egress_behind{egress="ops"} 0' in metrics(hub))
    assert 'skerry_egress_failures_total{egress="ops"} 3' in metrics(hub)
    receiver.close()


def test_an_egress_continues_where_it_was(receiver: Receiver, start_hub: Callable[..., Hub], tmp_path: Path) -> None:
    device, egress = Device(), (receiver.url,)
    first = start_hub(egress=egress)
    send(first, device, 1, 5)
    until(lambda: len(receiver.events) == 5)
    first.close()
    without = start_hub()
    send(without, device, 6, 9)
    without.close()
    again = start_hub(egress=egress)
    until(lambda: len(receiver.events) >= 9)
    again.close()
    assert [event["id"] for event in receiver.events] == ids(1, 9)


def test_an_egress_can_be_of_some_records_and_from_now(receiver: Receiver, start_hub: Callable[..., Hub]) -> None:
    device = Device()
    first = start_hub()
    send(first, device, 1, 5)
    first.close()
    hub = start_hub(egress=(f"{receiver.url}?begin=now&mode=each&stream=other",))
    other = [record(seq, stream="other" if seq % 2 else "events") for seq in range(6, 12)]
    assert request(hub.port, "POST", "/v1/batches", device.pack(other)).status == 200
    until(lambda: len(receiver.events) >= 3)
    assert [event["sequence"] for event in receiver.events] == ["7", "9", "11"]
    assert receiver.kinds == {"application/cloudevents+json"}


def test_mqtt_confirms_every_event_and_a_broker_that_dies_gets_the_rest(
    tmp_path: Path, start_hub: Callable[..., Hub]
) -> None:
    from paho.mqtt.client import Client, MQTTv5
    from paho.mqtt.enums import CallbackAPIVersion

    seen: list[tuple[str, str, str]] = []
    lock = threading.Lock()

    def note(_client: Any, _data: Any, message: Any) -> None:
        with lock:
            seen.append((message.topic, json.loads(message.payload)["id"], message.properties.ContentType))

    with Broker.start(tmp_path / "broker") as broker:
        subscriber = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        subscribed = threading.Event()
        subscriber.on_connect = lambda client, *_: client.subscribe("records/#", qos=1)
        subscriber.on_subscribe = lambda *_: subscribed.set()
        subscriber.on_message = note
        subscriber.reconnect_delay_set(1, 1)
        subscriber.connect("127.0.0.1", broker.port)
        subscriber.loop_start()
        assert subscribed.wait(20)
        hub, device = start_hub(egress=(f"mqtt://127.0.0.1:{broker.port}/records/{{device}}/{{stream}}",)), Device()
        send(hub, device, 1, 40)
        until(lambda: len(seen) >= 40)
        subscribed.clear()
        broker.kill()
        send(hub, device, 41, 60)
        broker.restart()
        assert subscribed.wait(20)
        # What the broker took before our subscriber was back is its own affair; what comes now arrives.
        send(hub, device, 61, 70)
        until(lambda: ids(70, 70)[0] in {each[1] for each in seen})
        subscriber.disconnect()
        subscriber.loop_stop()
    assert [each[1] for each in seen[:40]] == ids(1, 40)
    assert seen[0][0] == "records/pump-1/events" and seen[0][2] == "application/cloudevents+json"
    hub.close()


def test_a_receiver_that_takes_small_batches_only_gets_all_of_it(start_hub: Callable[..., Hub]) -> None:
    """413 for more than three at once: asking again with the same would never get on."""
    receiver = Receiver(most=3)
    hub, device = start_hub(egress=(receiver.url,)), Device()
    send(hub, device, 1, 40)
    until(lambda: len(receiver.events) >= 40)
    assert [event["id"] for event in receiver.events] == ids(1, 40)
    receiver.close()


def test_a_receiver_that_never_answers_holds_up_neither_the_others_nor_the_end(
    receiver: Receiver, start_hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.fleet.hub.egress.outlet.END_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, and nobody reads
        stuck = f"127.0.0.1:{silent.getsockname()[1]}"
        uris = (
            f"http://{stuck}/x?name=hook&timeout_s=0.5",
            f"mqtt://{stuck}/x?name=mqtt",
            f"nats://{stuck}/x?name=nats",
        )
        hub, device = start_hub(egress=(*uris, f"{receiver.url}?name=well")), Device()
        send(hub, device, 1, 20)
        until(lambda: len(receiver.events) == 20)
        until(lambda: re.search(r'skerry_egress_failures_total\{egress="hook"\} [1-9]', metrics(hub)))
        told = {each["name"]: each for each in request(hub.port, "GET", "/v1/egress").json()["egress"]}
        assert told["hook"]["behind"] == 20 and "timed out" in told["hook"]["trouble"] and told["well"]["behind"] == 0
        hub.close()
    hub = start_hub(egress=(f"{receiver.url}?name=hook",))
    until(lambda: len(receiver.events) == 40)
    hub.close()


def test_jetstream_keeps_every_event_once(tmp_path: Path, start_hub: Callable[..., Hub]) -> None:
    import nats

    server = NatsServer(tmp_path / "nats")
    try:
        hub, device = start_hub(egress=(f"{server.url}/skerry.records?jetstream=RECORDS",)), Device()
        send(hub, device, 1, 50)

        async def stored(wanted: int) -> list[tuple[str, str]]:
            connection = await nats.connect(server.url)
            stream = connection.jetstream()
            for _ in range(1000):
                try:
                    if (await stream.stream_info("RECORDS")).state.messages >= wanted:
                        break
                except nats.js.errors.NotFoundError:
                    pass
                await asyncio.sleep(0.02)
            messages = [await stream.get_msg("RECORDS", number) for number in range(1, wanted + 1)]
            await connection.close()
            return [(json.loads(m.data)["id"], m.headers["Nats-Msg-Id"]) for m in messages]

        assert [each[0] for each in asyncio.run(stored(50))] == ids(1, 50)
        server.kill()
        send(hub, device, 51, 60)
        server.start()
        found = asyncio.run(stored(60))
        assert [each[0] for each in found] == [each[1] for each in found] == ids(1, 60)
        hub.close()
    finally:
        server.kill()


def test_kafka_confirms_every_event(start_hub: Callable[..., Hub]) -> None:
    kafka = pytest.importorskip("confluent_kafka")
    # librdkafka brings a mock of a cluster of its own, which speaks the protocol over TCP.
    cluster = kafka.Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = cluster.list_topics(timeout=20).brokers.values()
    hub, device = start_hub(egress=(f"kafka://{broker.host}:{broker.port}/records",)), Device()
    send(hub, device, 1, 50)
    until(lambda: re.search(r"skerry_egress_delivered_total\{[^}]*\} 50$", metrics(hub), re.MULTILINE))
    consumer = kafka.Consumer({"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "g"})
    partitions = consumer.list_topics("records", timeout=20).topics["records"].partitions
    # Assigned, not subscribed: a group takes three seconds to form.
    consumer.assign([kafka.TopicPartition("records", number, 0) for number in partitions])
    found: list[Any] = []

    def all_there() -> bool:
        found.extend(each for each in consumer.consume(50, timeout=0.2) if each.error() is None)
        return len(found) >= 50

    until(all_there)
    assert [json.loads(each.value())["id"] for each in found] == ids(1, 50)
    assert {each.key() for each in found} == {b"pump-1"}
    assert found[0].headers() == [("content-type", b"application/cloudevents+json")]
    consumer.close()
    hub.close()
    cluster.flush(1)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("ftp://127.0.0.1/x", "cannot go"),
        ("http://example.org/x", "plain text"),
        ("nats://example.org/x", "plain text"),
        ("mqtt://127.0.0.1/x?bach=3", "bach"),
        ("kafka://", "no host"),
        ("http://127.0.0.1/x?batch=0", "batch"),
        ("http://127.0.0.1/x?batch=many", "cannot be used"),
        ("mqtts://ann:$NOT_SET_ANYWHERE@example.org/x", "NOT_SET_ANYWHERE"),
    ],
)
def test_an_egress_that_cannot_be_is_told_before_anything_starts(uri: str, told: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    writer = Writer(store, group=1)
    with pytest.raises(UsageError, match=told):
        make_outlets([uri], store, writer)
    writer.close()
    store.close()


def test_two_egresses_need_two_names(start_hub: Callable[..., Hub]) -> None:
    with pytest.raises(UsageError, match="two egresses"):
        start_hub(egress=("http://127.0.0.1:9/x?batch=1", "http://127.0.0.1:9/x?batch=2"))


def test_pauses_grow_to_a_minute() -> None:
    assert pause_s(1, 1.0) == 2.0 and pause_s(99, 1.0) == 60.0 and pause_s(5, 0.0) == 0.1
