"""The mqtt sink against a real broker, which is killed and started again."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from skerry.run.sinks.mqtt import MqttOptions, MqttSink
from skerry.spec.address import parse_address
from skerry.spec.errors import SinkError, SinkUnavailableError, SpecError
from skerry.spec.record import Record
from skerry.spec.units import Duration
from skerry.testing.http_server import free_port
from skerry.testing.sinks import SinkCase, SinkContract, a_context, some_records


def mosquitto() -> str:
    for folder in (None, "/usr/sbin:/usr/local/sbin"):
        found = shutil.which("mosquitto", path=folder)
        if found is not None:
            return found
    pytest.skip("mosquitto is not installed: make system-deps")


class Broker:
    """A broker on a free port, and a listener that keeps what it hands out."""

    def __init__(self, folder: Path, extra: str = "allow_anonymous true\n") -> None:
        self._program = mosquitto()
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(f"listener {self.port} 127.0.0.1\n{extra}")
        self._process: subprocess.Popen[bytes] | None = None
        self.messages: list[tuple[str, bytes, bool]] = []
        self._listening = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *rest: client.subscribe("#", qos=1) and None
        self._client.on_subscribe = lambda *rest: self._listening.set()
        self._client.on_message = lambda client, userdata, message: self.messages.append(
            (message.topic, message.payload, message.retain)
        )

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the broker did not come up")

    def listen(self) -> None:
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert self._listening.wait(10)

    def kill(self) -> None:
        self._listening.clear()
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop the broker from doing anything, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def back(self) -> None:
        self.start()
        assert self._listening.wait(20)

    def wait(self, count: int) -> list[tuple[str, bytes, bool]]:
        """Return what came, once it is ``count`` messages and the broker has nothing more on its way."""
        deadline = time.monotonic() + 10
        while len(self.messages) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return list(self.messages)

    def read(self) -> list[dict[str, Any]]:
        """Return the fields of what came, after a mark that was sent behind it."""
        mark = f"mark/{len(self.messages)}/{time.monotonic_ns()}"
        self._client.publish(mark, b"", qos=1).wait_for_publish(10)
        deadline = time.monotonic() + 10
        while not any(topic == mark for topic, _, _ in self.messages) and time.monotonic() < deadline:
            time.sleep(0.005)
        return [json.loads(payload) for topic, payload, _ in self.messages if not topic.startswith("mark/")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    running.start()
    running.listen()
    yield running
    running.close()


def mqtt_sink(port: int, topic: str = "events", **options: Any) -> MqttSink:
    address, _ = parse_address(f"mqtt://127.0.0.1:{port}/{topic}")
    return MqttSink(address, MqttOptions(**{"connect_timeout": Duration(2.0), "timeout": Duration(3.0), **options}))


class TestContract(SinkContract):
    @pytest.fixture
    def case(self, tmp_path: Path, broker: Broker) -> SinkCase:
        return SinkCase(
            make=lambda: mqtt_sink(broker.port),
            read=broker.read,
            home=tmp_path,
            break_=broker.kill,
            mend=broker.back,
        )


def test_topic_and_payload_take_fields(tmp_path: Path, broker: Broker) -> None:
    sink = mqtt_sink(broker.port, "site/{label}/state", payload="{score:.1f}", qos=2, retain=True)
    sink.open(a_context(tmp_path))
    sink.write([Record({"label": "ok", "score": 0.25}), Record({"label": "a/b+#\x00", "score": 1})])
    sink.flush()
    sink.close()
    assert [message[:2] for message in broker.wait(2)] == [("site/ok/state", b"0.2"), ("site/a_b___/state", b"1.0")]


def test_a_missing_field_sends_nothing(tmp_path: Path, broker: Broker) -> None:
    sink = mqtt_sink(broker.port, "site/{label}")
    sink.open(a_context(tmp_path))
    with pytest.raises(SinkError, match="no field 'label'"):
        sink.write([Record({"label": "ok"}), Record({"other": 1})])
    sink.flush()
    sink.close()
    assert broker.read() == []


def test_a_broker_that_hangs_and_is_killed_before_its_receipts(tmp_path: Path, broker: Broker) -> None:
    """What was not acknowledged is written again by the caller, and by nobody else: each record arrives once."""
    sink = mqtt_sink(broker.port, timeout=Duration(0.3))
    sink.open(a_context(tmp_path))
    sink.write(some_records(100))
    sink.flush()
    assert [row["n"] for row in broker.read()] == list(range(1, 101))
    broker.freeze()
    sink.write(some_records(50, start=101))
    with pytest.raises(SinkUnavailableError, match="owes 50 receipts"):
        sink.flush()
    broker.kill()
    with pytest.raises(SinkUnavailableError):
        sink.write(some_records(50, start=101))
    broker.back()
    sink.write(some_records(50, start=101))
    sink.flush()
    sink.close()
    assert [row["n"] for row in broker.read()] == list(range(1, 151))


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(SinkUnavailableError, match="cannot be reached"):
        mqtt_sink(free_port()).open(a_context(tmp_path))


def test_a_broker_that_refuses_says_why(tmp_path: Path) -> None:
    running = Broker(tmp_path, "allow_anonymous false\n")
    running.start()
    try:
        with pytest.raises(SinkUnavailableError, match=r"(?i)not authori"):
            mqtt_sink(running.port).open(a_context(tmp_path))
    finally:
        running.close()


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = mqtt_sink(silent.getsockname()[1], connect_timeout=Duration(0.2))
        with pytest.raises(SinkUnavailableError):
            sink.open(a_context(tmp_path))


def test_messages_without_receipts(tmp_path: Path, broker: Broker) -> None:
    sink = mqtt_sink(broker.port, qos=0)
    sink.open(a_context(tmp_path))
    sink.write(some_records(3))
    sink.flush()
    assert [json.loads(payload)["n"] for _, payload, _ in broker.wait(3)] == [1, 2, 3]
    sink.close()


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("mqtt://localhost", {}),
        ("mqtt://localhost/a/+/b", {}),
        ("mqtt://u:p@localhost/a", {}),
        ("mqtt://localhost/a", {"max_pending": 0}),
        ("mqtt://localhost/{a", {}),
    ],
)
def test_bad_settings(address: str, options: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        MqttSink(parse_address(address)[0], MqttOptions(**options))


def test_plain_text_stays_on_loopback(tmp_path: Path) -> None:
    sink = MqttSink(parse_address("mqtt://192.0.2.1/a")[0], MqttOptions())
    with pytest.raises(SpecError, match="plain text"):
        sink.open(a_context(tmp_path))


def test_a_password_that_is_not_set(tmp_path: Path) -> None:
    sink = mqtt_sink(1883, username="ann", password_env="SKERRY_TEST_NOT_SET")
    with pytest.raises(SpecError, match="not set"):
        sink.open(a_context(tmp_path))
