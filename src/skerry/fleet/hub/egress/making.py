"""Making an egress of a URI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from skerry.fleet.hub.egress.address import Place, read_address
from skerry.fleet.hub.egress.kafka import KafkaEgress, KafkaOptions
from skerry.fleet.hub.egress.mqtt import MqttEgress, MqttEgressOptions
from skerry.fleet.hub.egress.nats import NatsEgress, NatsEgressOptions
from skerry.fleet.hub.egress.outlet import OutletOptions, RunningOutlet, Target
from skerry.fleet.hub.egress.webhook import Webhook, WebhookOptions
from skerry.fleet.hub.store import Store
from skerry.fleet.hub.writer import Writer
from skerry.spec.errors import UsageError
from skerry.spec.words import did_you_mean

Made = tuple[Place, Target, OutletOptions]


def make_outlets(uris: Sequence[str], store: Store, writer: Writer) -> list[RunningOutlet]:
    """Return an outlet for each URI, not started; raises ``UsageError`` for a bad one, or for two of one name."""
    outlets: dict[str, RunningOutlet] = {}
    for uri in uris:
        name, target, options = _target(uri)
        if name in outlets:
            raise UsageError(f"two egresses are called {name}", hint="give one of them ?name=… in its query")
        outlets[name] = RunningOutlet(name, target, options, store, writer)
    return list(outlets.values())


def _target(uri: str) -> tuple[str, Target, OutletOptions]:
    scheme = urlsplit(uri).scheme
    if scheme not in MAKERS:
        raise UsageError(
            f"records cannot go to {scheme!r}", expected=", ".join(MAKERS), hint=did_you_mean(scheme, MAKERS)
        )
    place, target, options = MAKERS[scheme](uri)
    if not 0 < options.batch <= 10_000 or options.begin not in {"all", "now"}:
        raise UsageError(f"{place.name}: batch is 1 to 10000, and begin is all or now")
    return options.name or place.name, target, options


def _webhook(uri: str) -> Made:
    place, options = read_address(uri, WebhookOptions)
    return place, Webhook(place, options), options


def _mqtt(uri: str) -> Made:
    place, options = read_address(uri, MqttEgressOptions)
    return place, MqttEgress(place, options), options


def _nats(uri: str) -> Made:
    place, options = read_address(uri, NatsEgressOptions)
    return place, NatsEgress(place, options), options


def _kafka(uri: str) -> Made:
    place, options = read_address(uri, KafkaOptions)
    return place, KafkaEgress(place, options), options


MAKERS: dict[str, Callable[[str], Made]] = {
    "http": _webhook, "https": _webhook, "mqtt": _mqtt, "mqtts": _mqtt, "nats": _nats, "kafka": _kafka,
}  # fmt: skip
