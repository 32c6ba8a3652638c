"""MQTT 5 as a carrier: a batch is a message with a response topic, and only the hub's receipt in it settles anything.

The broker's own acknowledgement says that the broker has the message, which it may lose: 439 of 9,000 messages were
lost where a sender forgot them then and the broker was killed.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import TYPE_CHECKING, Any

from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.transport import RECEIPT, Answer
from skerry.spec.errors import DependencyError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

    from skerry.run.uplink.passport import Passport

_PACKET_OVERHEAD = 250  # headers of MQTT, TLS, TCP and IP of a message, its receipt and both acknowledgements


class MqttTransport:
    """One connection to a broker, shared by all lanes.

    A batch goes to ``skerry/DEVICE/batch`` with QoS 1; its answer comes to ``skerry/DEVICE/receipt`` with the same
    correlation data. A refusal has the user property ``status`` (as in HTTP), and ``retry-after`` where there is one.
    """

    overhead = 600
    opening = 6000

    def __init__(self, host: str, port: int, passport: Passport, options: UplinkOptions, *, tls: bool) -> None:
        self.name = f"{'mqtts' if tls else 'mqtt'}://{host}:{port}"
        self._host, self._port, self._tls = host, port, tls
        self._passport, self._options = passport, options
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._ready = threading.Event()
        self._refusal = ""
        self._waiting: dict[bytes, MqttLane] = {}

    def lane(self) -> MqttLane:
        """Return a new lane."""
        return MqttLane(self)

    def send(self, batch: bytes, correlation: bytes, lane: MqttLane) -> None:
        """Publish a batch whose answer goes to a lane; raises ``OSError`` without a connection."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        client = self._connected()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = f"skerry/{self._passport.device}/receipt"
        properties.CorrelationData = correlation
        self._waiting[correlation] = lane
        client.publish(f"skerry/{self._passport.device}/batch", batch, qos=1, properties=properties)

    def forget(self, correlation: bytes) -> None:
        """Expect no answer any more."""
        self._waiting.pop(correlation, None)

    def _connected(self) -> Client:
        with self._lock:
            if self._client is not None and self._client.is_connected():
                return self._client
            self._drop()
            client = self._new_client()
            self._client = client
            self._ready.clear()
            try:
                client.connect(self._host, self._port, keepalive=max(5, round(self._options.silence)))
                client.loop_start()
                if not self._ready.wait(self._options.connect_timeout):
                    raise TimeoutError("the broker said nothing")
                if self._refusal:
                    raise ConnectionRefusedError(f"the broker refuses: {self._refusal}")
            except (OSError, ValueError) as error:
                self._drop()
                raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
            return client

    def _new_client(self) -> Client:
        try:
            from paho.mqtt.client import Client, MQTTv5
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise DependencyError("MQTT needs the package paho-mqtt", hint="pip install 'skerry[mqtt]'") from error
        name = f"skerry-{self._passport.device}-{secrets.token_hex(4)}"
        client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5, reconnect_on_failure=False)
        client.connect_timeout = float(self._options.connect_timeout)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        if self._tls:
            client.tls_set_context(self._passport.context())
        return client

    def _on_connect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        if self._refusal:
            self._ready.set()
        else:
            client.subscribe(f"skerry/{self._passport.device}/receipt", qos=1)

    def _on_subscribe(self, client: Client, userdata: Any, message: int, reasons: Any, properties: Any) -> None:
        failed = [str(reason) for reason in reasons if reason.is_failure]
        self._refusal = failed[0] if failed else ""
        self._ready.set()

    def _on_message(self, client: Client, userdata: Any, message: Any) -> None:
        correlation = getattr(message.properties, "CorrelationData", b"")
        lane = self._waiting.pop(correlation, None)
        if lane is None:
            return  # the answer to a batch that was given up: it is sent again, and is a duplicate there
        told = dict(getattr(message.properties, "UserProperty", []))
        lane.answer_is(answer_of(message.payload, told))

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if client is self._client:
            waiting, self._waiting = self._waiting, {}
            for lane in waiting.values():
                lane.broke_with(ConnectionResetError(f"the broker cut the connection ({reason})"))

    def renewed(self) -> None:
        """Connect anew with the new certificate."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, ValueError):
                client.disconnect()
            client.loop_stop()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._drop()


class MqttLane:
    """One batch at a time over the shared connection."""

    def __init__(self, transport: MqttTransport) -> None:
        self._transport = transport
        self._done = threading.Event()
        self._answer: Answer | None = None
        self._error: OSError | None = None
        self._traffic = 0

    def exchange(self, batch: bytes, timeout_s: float) -> Answer:
        """Publish a batch and wait for the hub's answer; raises ``OSError``."""
        correlation = secrets.token_bytes(8)
        self._done.clear()
        self._answer, self._error = None, None
        try:
            self._transport.send(batch, correlation, self)
            self._traffic += len(batch) + _PACKET_OVERHEAD
            if not self._done.wait(timeout_s):
                raise TimeoutError("the hub said nothing in time")
        finally:
            self._transport.forget(correlation)
        answer, error = self._outcome()
        if answer is None:
            raise error or ConnectionAbortedError("given up")
        self._traffic += len(answer.body)
        return answer

    def _outcome(self) -> tuple[Answer | None, OSError | None]:
        return self._answer, self._error

    def answer_is(self, answer: Answer) -> None:
        """Take the answer, from the connection's thread."""
        self._answer = answer
        self._done.set()

    def broke_with(self, error: OSError) -> None:
        """Take note that there will be none."""
        self._error = error
        self._done.set()

    def traffic(self) -> int:
        """Return the bytes on the wire, about, since this was last asked."""
        size, self._traffic = self._traffic, 0
        return size

    def cancel(self) -> None:
        """End the exchange that is under way."""
        self._done.set()

    def close(self) -> None:
        """Do nothing: the connection is everybody's."""


def answer_of(payload: bytes, told: dict[str, str]) -> Answer:
    """Return an answer that came by a broker: a receipt, or a refusal with the status that HTTP has for it."""
    lower = {name.lower(): value for name, value in told.items()}
    status = lower.get("status", "200")
    wait = lower.get("retry-after", "")
    return Answer(
        status=int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 500,
        body=payload,
        is_hub=True,
        kind=RECEIPT if status == "200" else "",
        retry_after_s=float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 10 else None,
    )
