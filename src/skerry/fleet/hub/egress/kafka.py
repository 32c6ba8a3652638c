"""Kafka and its kin: every event produced once per attempt, confirmed by all replicas that are in sync."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.egress.event import EVENT_TYPE, Event
from skerry.fleet.hub.egress.outlet import OutletOptions
from skerry.spec.errors import DependencyError, HubUnreachableError


class KafkaOptions(OutletOptions, frozen=True, kw_only=True):
    """How to produce.

    Parameters
    ----------
    brokers:
        Further brokers to begin with, ``host:port,host:port``.
    tls, ca:
        Whether to speak TLS, and whom to believe instead of the system's authorities.
    timeout_s:
        Seconds for the confirmations of one batch.
    """

    brokers: str = ""
    tls: bool = False
    ca: str = ""
    timeout_s: float = 60.0


class KafkaEgress:
    """Produces to the topic that the path names; the key is the device, so that its records stay in order."""

    def __init__(self, place: Place, options: KafkaOptions) -> None:
        self._place, self._options = place, options
        self._topic = place.path.strip("/") or "skerry-records"
        self._producer: Any = None

    def open(self) -> None:
        """Make a producer; it connects by itself."""
        try:
            from confluent_kafka import Producer
        except ImportError as error:
            raise DependencyError(
                "Kafka needs the package confluent-kafka", hint="pip install 'skerry[kafka]'"
            ) from error
        first = f"{self._place.host}:{self._place.port}"
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(filter(None, [first, self._options.brokers])),
            "enable.idempotence": True, "acks": "all", "linger.ms": 5, "compression.type": "zstd",
            "delivery.timeout.ms": int(self._options.timeout_s * 1000), "log_level": 0,
            "error_cb": lambda _error: None,
        }  # fmt: skip
        if self._options.tls:
            settings["security.protocol"] = "sasl_ssl" if self._place.username else "ssl"
            if self._options.ca:
                settings["ssl.ca.location"] = self._options.ca
        elif self._place.username:
            settings["security.protocol"] = "sasl_plaintext"
        if self._place.username:
            settings |= {
                "sasl.mechanism": "PLAIN", "sasl.username": self._place.username,
                "sasl.password": self._place.password,
            }  # fmt: skip
        self._producer = Producer(settings)

    def deliver(self, events: Sequence[Event]) -> None:
        """Produce, and wait for every confirmation."""
        confirmed, refused = [0], [""]

        def told(error: Any, _message: Any) -> None:
            if error is None:
                confirmed[0] += 1
            else:
                refused[0] = str(error)

        headers = [("content-type", EVENT_TYPE)]
        for event in events:
            self._producer.produce(self._topic, event.body, key=event.record.device, headers=headers, on_delivery=told)
        self._producer.flush(self._options.timeout_s)
        if confirmed[0] < len(events):
            raise HubUnreachableError(f"{self._place.name}: {refused[0] or 'not confirmed in time'}")

    def close(self) -> None:
        """Give up what was not confirmed; it is sent again by the next producer."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(1.0)
