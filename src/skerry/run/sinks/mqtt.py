"""MQTT: records published to a broker, each acknowledged by it."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from skerry.run.encoding import Encoder
from skerry.run.template import Template
from skerry.spec.address import refuse_plain_text
from skerry.spec.errors import DependencyError, SinkError, SinkUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Options
from skerry.spec.record import Record
from skerry.spec.units import Duration

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_LARGEST_MESSAGE = 268_000_000  # 2^28 - 1 bytes with the topic and header, MQTT 3.1.1 section 2.2.3
_MOST_PENDING = 60_000  # message ids are 16 bits wide


class MqttOptions(Options, frozen=True, kw_only=True):
    """How records are published.

    Parameters
    ----------
    qos:
        0 for no receipt, 1 (default) for the broker's receipt, 2 for exactly once up to the broker.
    retain:
        Whether the broker keeps the last message of each topic for newcomers; default no.
    payload:
        A template for the message, such as ``"{score:.2f}"``; default the fields as JSON.
    client_id:
        How the broker knows us; default one that the broker makes up.
    username:
        The name to log in with.
    password_env:
        The environment variable that holds its password; secrets do not belong into a pipeline file.
    keepalive:
        How often a silent connection is checked; default 30 s, so that a dead link is noticed within 45 s.
    connect_timeout:
        How long the broker may take to greet; default 5 s.
    timeout:
        How long a flush waits for the receipts; default 10 s, a slow link's round trip for a full queue.
    max_pending:
        How many messages may wait for a receipt before a write is refused; default 10,000, what fits into a few MB.
    ca, certificate, key:
        PEM files for ``mqtts``, relative to the pipeline file: whom to believe instead of the system's authorities,
        and who we are.
    array_items:
        The largest array that is written out, in numbers; default 1024, so that an embedding is sent.
    """

    qos: Literal[0, 1, 2] = 1
    retain: bool = False
    payload: str | None = None
    client_id: str = ""
    username: str | None = None
    password_env: str | None = None
    keepalive: Duration = Duration(30.0)
    connect_timeout: Duration = Duration(5.0)
    timeout: Duration = Duration(10.0)
    max_pending: int = 10_000
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    array_items: int = 1024


class MqttSink:
    """Publishes each record; ``flush`` waits for the broker's receipt of every one.

    The topic is the path of the address and may hold fields: ``mqtt://host:1883/alarms/{label}``. A broker that went
    away is called again in the background until a flush gives up. What it has not acknowledged is sent again, so a
    message may come twice.
    """

    Options: ClassVar[type[MqttOptions]] = MqttOptions
    blocking: ClassVar[bool] = True

    def __init__(self, address: Address, options: MqttOptions) -> None:
        topic = address.path.removeprefix("/")
        if not topic or any(sign in topic for sign in "+#\0"):
            raise SpecError(
                f"{address.text!r} names no topic to publish to", expected="mqtt://host:1883/topic without + and #"
            )
        if not 1 <= options.max_pending <= _MOST_PENDING:
            raise SpecError(f"`max_pending` is between 1 and {_MOST_PENDING}", where=address.text)
        if address.password:
            raise SpecError("a password does not belong into an address", expected="`password_env`")
        self._address, self._options = address, options
        self._name = f"{address.scheme}://{address.host}:{_port(address)}"
        self._topic = Template(topic, where="topic")
        self._payload = Template(options.payload, where="payload") if options.payload is not None else None
        self._encoder = Encoder(options.array_items)
        self._home: Path | None = None
        self._link: _Link | None = None

    def open(self, context: Context) -> None:
        """Connect and log in.

        Raises ``SinkUnavailableError`` when the broker is not there, refuses or is silent, ``SpecError`` for plain
        text beyond loopback, ``DependencyError`` without paho-mqtt.
        """
        self.close()
        refuse_plain_text(self._address, context.insecure, where=context.name)
        self._home = context.home
        self._link = self._connected(context.home)

    def _connected(self, home: Path) -> _Link:
        link = _Link(_client(self._address, self._options, home), self._name)
        try:
            link.connect(self._address.host, _port(self._address), self._options)
        except BaseException:
            link.close()
            raise
        return link

    def write(self, records: Sequence[Record]) -> None:
        """Hand the records to the connection, made anew when the last flush gave it up.

        Raises ``SinkUnavailableError`` while there is no connection or too many receipts are missing, ``SinkError``
        when a record has no field that the topic needs; none of the records has been sent then.
        """
        if self._home is None:
            raise SinkUnavailableError(f"{self._name} is not open")
        messages = [(self._topic_of(record), self._message(record.fields)) for record in records]
        if self._link is None:
            self._link = self._connected(self._home)
        self._link.refuse_when_stuck(len(messages), self._options.max_pending)
        for topic, message in messages:
            self._link.publish(topic, message, self._options.qos, self._options.retain)

    def flush(self) -> None:
        """Wait for every receipt.

        Raises ``SinkUnavailableError`` when one did not come within ``timeout``. What was not acknowledged is given up
        with the connection then: whoever called writes it again, and it must not be sent twice by both of us.
        """
        if self._home is None:
            raise SinkUnavailableError(f"{self._name} is not open")
        if self._link is None:
            return
        try:
            self._link.wait(self._options.timeout)
        except SinkUnavailableError:
            self._disconnect()
            raise

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        self._home = None
        self._disconnect()

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _topic_of(self, record: Record) -> str:
        topic = self._topic.fill(record.fields, error=SinkError, quote=_topic_level)
        if len(topic.encode()) > 65535:
            raise SinkError("a topic is at most 65,535 bytes long")
        return topic

    def _message(self, fields: dict[str, Any]) -> bytes:
        if self._payload is not None:
            message = self._payload.fill(fields, error=SinkError).encode("utf-8", "replace")
        else:
            message = self._encoder.encode(fields)
        if len(message) > _LARGEST_MESSAGE:
            raise SinkError(f"a message of {len(message)} bytes is more than MQTT takes ({_LARGEST_MESSAGE})")
        return message


def _port(address: Address) -> int:
    return address.port or (8883 if address.scheme == "mqtts" else 1883)


def _topic_level(value: str) -> str:
    """Make a value one level of a topic: a record must not choose where else it is published."""
    cleaned = "".join("_" if sign in "/+#\0" or not sign.isprintable() else sign for sign in value)
    return cleaned.encode("utf-8", "replace").decode() or "_"


def _client(address: Address, options: MqttOptions, home: Path) -> Client:
    try:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise DependencyError("MQTT needs the package paho-mqtt", hint="pip install 'skerry[mqtt]'") from error
    client = Client(CallbackAPIVersion.VERSION2, client_id=options.client_id or None)
    client.connect_timeout = float(options.connect_timeout)
    client.reconnect_delay_set(min_delay=1, max_delay=30)
    username = options.username or address.username
    if username:
        client.username_pw_set(username, _password(options.password_env))
    if address.scheme == "mqtts":
        _use_tls(client, options, home)
    return client


def _password(variable: str | None) -> str | None:
    if variable is None:
        return None
    if variable not in os.environ:
        raise SpecError(f"the environment variable {variable} is not set", expected="the password in it")
    return os.environ[variable]


def _use_tls(client: Client, options: MqttOptions, home: Path) -> None:
    try:
        context = ssl.create_default_context(cafile=str(home / options.ca) if options.ca else None)
        if options.certificate:
            context.load_cert_chain(home / options.certificate, home / options.key if options.key else None)
    except OSError as error:
        raise SpecError(f"a certificate cannot be used: {error}", expected="PEM files") from error
    client.tls_set_context(context)


class _Link:
    """A connection to a broker, and the receipts that it still owes."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._answered, self._receipt = threading.Event(), threading.Event()
        self._refusal = ""
        self._owed: set[int] = set()
        # Filled by paho's thread under paho's own lock, so nothing here may wait for ours: a deque needs none.
        self._receipts: deque[int] = deque()
        self._lost = 0
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish

    def _on_connect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _on_publish(self, client: Client, userdata: Any, message: int, reason: Any, properties: Any) -> None:
        self._receipts.append(message)
        self._receipt.set()

    def connect(self, host: str, port: int, options: MqttOptions) -> None:
        """Connect within the time limit; raises ``SinkUnavailableError``."""
        try:
            self._client.connect(host, port, keepalive=max(1, round(options.keepalive)))
        except (OSError, ValueError) as error:
            raise SinkUnavailableError(f"{self._name} cannot be reached: {error}") from error
        self._client.loop_start()
        if not self._answered.wait(options.connect_timeout):
            raise SinkUnavailableError(f"{self._name} took the connection and then said nothing")
        if self._refusal:
            raise SinkUnavailableError(f"{self._name} refuses: {self._refusal}")

    def refuse_when_stuck(self, messages: int, max_pending: int) -> None:
        """Raise ``SinkUnavailableError`` when there is no connection or too much would be owed."""
        self._collect()
        if not self._client.is_connected():
            raise SinkUnavailableError(f"the connection to {self._name} is lost")
        if self._owed and len(self._owed) + messages > max_pending:
            raise SinkUnavailableError(f"{self._name} owes {len(self._owed)} receipts")

    def publish(self, topic: str, message: bytes, qos: int, retain: bool) -> None:
        """Queue one message; with a receipt, one that finds the connection just lost is sent when it is back."""
        sent = self._client.publish(topic, message, qos=qos, retain=retain)
        if qos == 0 and sent.rc != 0:
            self._lost += 1
        else:
            self._owed.add(sent.mid)

    def wait(self, timeout_s: float) -> None:
        """Wait for every receipt; raises ``SinkUnavailableError``."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._receipt.clear()
            self._collect()
            if not self._owed:
                break
            if not self._receipt.wait(max(0.0, deadline - time.monotonic())):
                raise SinkUnavailableError(f"{self._name} owes {len(self._owed)} receipts after {timeout_s:g} s")
        lost, self._lost = self._lost, 0
        if lost:
            raise SinkUnavailableError(f"{lost} messages without a receipt (qos 0) met no connection to {self._name}")

    def _collect(self) -> None:
        while self._receipts:
            self._owed.discard(self._receipts.popleft())

    def close(self) -> None:
        """Disconnect and stop the thread."""
        self._client.disconnect()
        self._client.loop_stop()
