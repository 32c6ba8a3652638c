"""Opening an uplink: from an address in a pipeline file to what reaches that hub as this device."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from skerry.run.uplink.http import HttpTransport, Place
from skerry.run.uplink.job import Clock, Store
from skerry.run.uplink.options import UplinkOptions
from skerry.run.uplink.passport import Passport
from skerry.run.uplink.transport import Transport
from skerry.run.uplink.uplink import Uplink
from skerry.spec.address import is_loopback
from skerry.spec.errors import SpecError

if TYPE_CHECKING:
    from skerry.trust.identity import Identity

PORT = 8470
"""The port of a hub where an address names none."""
_EXPECTED = "hub:, hub://host:port, hub+http://127.0.0.1:port, hub+mqtt://broker:port or hub+nats://server:port"


class Target(msgspec.Struct, frozen=True):
    """Where a hub is, and what carries batches there: ``https``, ``http``, ``mqtt``, ``mqtts``, ``nats`` or ``tls``."""

    carrier: str
    host: str
    port: int

    @property
    def is_plain(self) -> bool:
        """Whether it is plain text, which is taken on loopback only: what is signed there is not secret."""
        return self.carrier in {"http", "mqtt", "nats"}


_PORTS = {"https": PORT, "http": PORT, "mqtt": 1883, "mqtts": 8883, "nats": 4222, "nats+tls": 4222}


def read_target(scheme: str, rest: str, hub: str = "", *, insecure: bool = False, where: str = "") -> Target:
    """Return where a hub is; without a place of its own, where the identity says (``hub``, a URL).

    Raises ``SpecError`` for an address that is none, and for plain text beyond loopback unless ``insecure``.
    """
    carrier = scheme.removeprefix("hub").removeprefix("+") or "https"
    if carrier not in _PORTS:
        raise SpecError(f"{scheme}: names no way to a hub", where=where, expected=_EXPECTED)
    text = rest.strip("/")
    if not text and carrier == "https":
        if not hub:
            raise SpecError("the identity of this device names no hub", where=where, expected="hub://host:port")
        text = urlsplit(hub).netloc
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise SpecError(f"{rest!r} is no address: {error}", where=where, expected=_EXPECTED) from error
    if not host or parts.path or parts.username or re.search(r"\s", text):
        raise SpecError(f"{rest!r} is no address of a hub", where=where, expected=_EXPECTED)
    target = Target(carrier, host, port or _PORTS[carrier])
    if target.is_plain and not insecure and not is_loopback(host):
        raise SpecError(
            f"{scheme}://{text} is plain text on a network",
            where=where,
            expected=f"hub://{text} with an enrolled device",
        )
    return target


def open_uplink(
    store: Store,
    target: Target,
    identity: Identity,
    options: UplinkOptions,
    *,
    state: Path,
    clock: Clock,
    retire: Callable[[Store], None] | None = None,
    log: logging.Logger | None = None,
) -> Uplink:
    """Return an uplink that is not started yet.

    Raises ``DependencyError`` when the package of a carrier is missing.
    """
    passport = Passport(identity, clock)
    transport = make_transport(target, passport, options)
    return Uplink(
        store,
        transport,
        options,
        device=identity.device,
        signer=passport.signer,
        state=state,
        clock=clock,
        host=target.host,
        renew=passport.renew if identity.has_certificate and identity.hub else None,
        retire=retire,
        log=log,
    )


def make_transport(target: Target, passport: Passport, options: UplinkOptions) -> Transport:
    """Return what carries batches to a target."""
    if target.carrier in {"mqtt", "mqtts"}:
        from skerry.run.uplink.mqtt import MqttTransport

        return MqttTransport(target.host, target.port, passport, options, tls=target.carrier == "mqtts")
    if target.carrier.startswith("nats"):
        from skerry.run.uplink.nats import NatsTransport

        return NatsTransport(target.host, target.port, passport, options, tls=target.carrier == "nats+tls")
    return HttpTransport(
        Place(target.carrier, target.host, target.port),
        None if target.carrier == "http" else passport.context,
        connect_timeout_s=options.connect_timeout,
        silence_s=options.silence,
    )
