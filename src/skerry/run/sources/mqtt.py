"""The mqtt source: subscribes at a broker, and acknowledges a message only when its item is settled."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
import threading
import uuid
from collections import deque
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.sources.delivery import Complaints, deliver, is_of_session
from skerry.spec.address import refuse_plain_text
from skerry.spec.errors import DependencyError, SourceUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Emit, Fields, Options, Stop
from skerry.spec.units import Duration

SLOWEST_RECONNECT_S = 30
"""The longest pause between two attempts to get back to the broker, in seconds; the first is one second."""


class MqttOptions(Options, frozen=True, kw_only=True):
    """Who subscribes to what, and how.

    Parameters
    ----------
    qos:
        0 may lose messages, 1 may double them after a lost connection. 2 is not offered: its client has to take
        charge of a message before it is settled, so that a crash would lose it; what is published with 2 comes as 1.
    payload:
        ``json`` makes fields of an object and ``value`` of anything else, ``text`` makes ``text``, ``bytes`` makes
        ``payload``.
    client_id:
        The name under which the broker keeps messages while nobody is connected; one is made and kept if left out.
    clean_session:
        Ask the broker to keep nothing between two connections.
    version:
        Of MQTT: 5, or 3 (which is 3.1.1) for an older broker.
    in_flight:
        How many messages the broker may send before the first of them is settled. Brokers stop at 20 where nobody says
        more, and settling takes up to the pipeline's ``sync``. Of MQTT 5.
    session:
        How long the broker keeps messages while nobody is connected; a week outlasts most outages. Of MQTT 5, with 3
        the broker decides.
    keepalive:
        How long the line may be silent before both ends take it for lost.
    connect_timeout:
        How long the broker may take to answer at the start.
    buffer:
        How many messages of QoS 0 wait here when the pipeline is full; further ones are dropped and counted. Those of
        QoS 1 are bounded by the broker, which sends no more before they are acknowledged.
    username, password, password_env:
        Who we are; the environment variable keeps the password out of the pipeline file.
    ca, cert, key:
        Files in PEM, for ``mqtts``: who signed the broker's certificate (the system's list if left out), and ours.
    """

    qos: Literal[0, 1] = 1
    payload: Literal["json", "text", "bytes"] = "json"
    client_id: str | None = None
    clean_session: bool = False
    version: Literal[3, 5] = 5
    in_flight: int = 1000
    session: Duration = Duration(7 * 86400.0)
    keepalive: Duration = Duration(30.0)
    connect_timeout: Duration = Duration(5.0)
    buffer: int = 1000
    username: str | None = None
    password: str | None = None
    password_env: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class MqttSource:
    """``mqtt://host:1883/topic/filter?qos=1``: the topic is the path without its first slash.

    A shared subscription is ``mqtt://host/$share/group/topic``. Every item
    has the field ``topic``, and ``retained: true`` when the broker had kept it. A position names the session
    with the broker and counts its messages; the broker, not the position, knows where to resume.
    """

    Options: ClassVar[type[Options]] = MqttOptions
    live: ClassVar[bool] = True

    def __init__(self, address: Address, options: MqttOptions) -> None:
        self._address = address
        self._options = options
        self._topic = _topic(address)
        if not 1 <= options.in_flight <= 65535 or options.buffer < 1:
            raise SpecError("a limit of mqtt is out of range", expected="in_flight of 1 to 65535, buffer of 1 or more")
        self._client: Any = None
        self._arrived: deque[tuple[int, Any]] = deque()
        self._unsettled: dict[int, int] = {}
        self._count = 0
        self._session = ""
        self._dropped = 0
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._subscribed = threading.Event()
        self._refused = ""

    def open(self, context: Context, position: Any | None) -> None:
        """Connect and subscribe.

        Raises ``SourceUnavailableError`` when the broker does not answer or refuses, ``SpecError`` for plain text
        beyond loopback, ``DependencyError`` without paho-mqtt.
        """
        self.close()
        refuse_plain_text(self._address, context.insecure)
        self._log = context.log
        self._complaints = Complaints(context.log, "message")
        self._refused = ""
        self._session = uuid.uuid4().hex[:12]
        self._subscribed.clear()
        self._client = self._make_client(context)
        try:
            self._connect(float(self._options.connect_timeout))
        except SourceUnavailableError:
            self.close()
            raise

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit messages until the run ends; a lost broker is waited for."""
        while not stop.is_set():
            # Cleared before looking, so that what comes in between wakes the next wait.
            self._news.clear()
            while self._arrived:
                number, message = self._arrived[0]
                if not self._hand_over(number, message, emit, stop):
                    return
                self._arrived.popleft()
            self._news.wait(0.1)

    def commit(self, position: Any) -> None:
        """Acknowledge every message up to ``position`` at the broker."""
        if not is_of_session(position, self._session):
            return  # of messages that were lost sight of, which the broker sends again
        with self._lock:
            settled = [number for number in self._unsettled if number <= position["message"]]
            acknowledgements = [self._unsettled.pop(number) for number in settled]
        client = self._client
        for mid in acknowledgements if client is not None else []:
            client.ack(mid, 1)

    def close(self) -> None:
        """Leave the broker, which keeps what was not acknowledged; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()
        self._arrived.clear()
        self._unsettled.clear()

    def _make_client(self, context: Context) -> Any:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        except ImportError as error:
            raise DependencyError("mqtt needs the package paho-mqtt", hint="pip install 'skerry[mqtt]'") from error
        options = self._options
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id or _kept_client_id(context.state),
            clean_session=options.clean_session if options.version == 3 else None,
            protocol=MQTTProtocolVersion.MQTTv5 if options.version == 5 else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        username, password = self._credentials()
        if username:
            client.username_pw_set(username, password)
        if self._address.scheme == "mqtts":
            client.tls_set_context(self._tls(context.home))
        client.reconnect_delay_set(1, SLOWEST_RECONNECT_S)
        client.connect_timeout = float(options.connect_timeout)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        return client

    def _credentials(self) -> tuple[str | None, str | None]:
        options = self._options
        password = options.password or self._address.password or None
        if options.password_env:
            password = os.environ.get(options.password_env)
            if not password:
                raise SpecError(f"the environment variable {options.password_env} holds no password")
        return options.username or self._address.username or None, password

    def _tls(self, home: Path) -> ssl.SSLContext:
        options = self._options
        try:
            context = ssl.create_default_context(cafile=home / options.ca if options.ca else None)
            if options.cert:
                context.load_cert_chain(home / options.cert, home / options.key if options.key else None)
        except (OSError, ssl.SSLError) as error:
            raise SpecError(f"a certificate cannot be used: {error}", expected="ca, cert and key in PEM") from error
        return context

    def _connect(self, timeout_s: float) -> None:
        """Connect and wait for the broker's word on the subscription."""
        host, port = self._address.host, self._address.port or (8883 if self._address.scheme == "mqtts" else 1883)
        try:
            self._client.connect(host, port, keepalive=max(1, round(self._options.keepalive)), **self._session_wishes())
        except (OSError, ValueError) as error:
            raise SourceUnavailableError(
                f"the broker {host}:{port} cannot be reached: {error}", expected="a running MQTT broker"
            ) from error
        self._client.loop_start()
        self._subscribed.wait(timeout_s)
        if self._refused or not self._subscribed.is_set():
            raise SourceUnavailableError(
                f"the broker {host}:{port} {self._refused or 'did not answer in time'}",
                hint="version: 3 speaks to older brokers" if "protocol version" in self._refused else "",
            )

    def _session_wishes(self) -> dict[str, Any]:
        """Return what MQTT 5 asks for when connecting."""
        options = self._options
        if options.version == 3:
            return {}
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        wishes: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.ReceiveMaximum = options.in_flight
        wishes.SessionExpiryInterval = 0 if options.clean_session else min(round(options.session), 2**32 - 1)
        return {"clean_start": options.clean_session, "properties": wishes}

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"refuses the connection: {reason}"
            self._subscribed.set()
            return
        if not flags.session_present:
            # The broker has forgotten us, and with us the numbers of the messages that we could acknowledge.
            with self._lock:
                self._unsettled.clear()
        if not (flags.session_present and self._subscribed.is_set()):
            # Subscribing again would bring the retained messages again.
            client.subscribe(self._topic, self._options.qos)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refused = f"refuses the topic {self._topic}: {', '.join(map(str, reasons))}"
            self._log.error("the broker %s", self._refused)
        self._subscribed.set()

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._client is not None and self._subscribed.is_set() and not self._refused:
            self._log.warning("the broker %s is lost (%s); trying to get back", self._address.host, reason)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        """Queue a message for the run; paho's own thread must not wait, or the broker would take us for dead."""
        with self._lock:
            if message.qos == 0 and len(self._arrived) >= self._options.buffer:
                self._dropped += 1
                if self._dropped & (self._dropped - 1) == 0:
                    self._log.warning("the pipeline is full: %d messages of QoS 0 dropped so far", self._dropped)
                return
            if message.dup and message.mid in self._unsettled.values():
                return  # sent again after a reconnect, and still on its way through the pipeline
            self._count += 1
            if message.qos:
                self._unsettled[self._count] = message.mid
            self._arrived.append((self._count, message))
        self._news.set()

    def _hand_over(self, number: int, message: Any, emit: Emit, stop: Stop) -> bool:
        fields = self._fields(message)
        if fields is not None:
            return deliver(emit, stop, fields, size=len(message.payload), position=self._position(number))
        with self._lock:
            mid = self._unsettled.pop(number, None)
        if mid is not None:  # a message that nobody can read would come back for ever
            self._client.ack(mid, 1)
        return True

    def _position(self, number: int) -> dict[str, Any]:
        return {"session": self._session, "message": number}

    def _fields(self, message: Any) -> Fields | None:
        """Return the fields of a message, or ``None`` for one that cannot be read, which is logged."""
        try:
            fields = _read_payload(self._options.payload, message.payload)
            fields["topic"] = message.topic
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._complaints.add(self._topic, str(error))
            return None
        if message.retain:
            fields["retained"] = True
        return fields


def _read_payload(kind: str, payload: bytes) -> Fields:
    if kind == "bytes":
        return {"payload": payload}
    if kind == "json":
        value = msgspec.json.decode(payload)
        return value if isinstance(value, dict) else {"value": value}
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"text": payload.decode(errors="replace"), "invalid_utf8": True}


def _topic(address: Address) -> str:
    """Return the topic filter."""
    topic = address.path.removeprefix("/")
    if "#" in topic[:-1] or (topic.endswith("#") and topic not in {"#"} and not topic.endswith("/#")):
        raise SpecError(f"{address.text!r} is no topic filter", expected="# only as the last level, as in plant/#")
    if not topic or "\0" in topic or len(topic.encode()) > 65535:
        raise SpecError(f"{address.text!r} names no topic", expected="mqtt://host:1883/topic/filter")
    return topic


def _kept_client_id(state: Path) -> str:
    """Return the client id of this source, made on its first run and kept in its folder."""
    path = state / "client-id"
    with contextlib.suppress(OSError):
        kept = path.read_text(encoding="ascii", errors="ignore").strip()
        if kept:
            return kept
    # 23 characters are what every broker of MQTT 3.1.1 has to take.
    made = "skerry" + hashlib.blake2b(uuid.uuid4().bytes, digest_size=8).hexdigest()
    path.write_text(made, encoding="ascii")
    return made
