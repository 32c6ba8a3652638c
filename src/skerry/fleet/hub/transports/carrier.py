"""A carrier: a broker that brings batches and takes their receipts back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from skerry.fleet.hub.access import CARRIER
from skerry.fleet.hub.answers import refusal_of
from skerry.fleet.hub.egress.address import read_address
from skerry.fleet.hub.egress.outlet import pause_s
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.parts import Parts
from skerry.fleet.hub.reception import Reception, reason_of
from skerry.spec.address import is_loopback
from skerry.spec.errors import SkerryError, UsageError

_DEVICE = re.compile(r"[a-z0-9-]{1,63}")
_log = logging.getLogger("skerry.hub")


class CarrierOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect.

    Parameters
    ----------
    tls, ca:
        Whether to speak TLS (to NATS), and a file of certificates to believe instead of the system's.
    insecure:
        Allows plain text beyond loopback.
    prefix:
        The first part of all topics or subjects.
    """

    tls: bool = False
    ca: str = ""
    insecure: bool = False
    prefix: str = "skerry"


class Reply(msgspec.Struct, frozen=True):
    """What goes back to a device: a receipt (status 200), or the reason of a refusal with the status of HTTP for it."""

    status: int
    body: bytes
    retry_after: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What goes beside the body; nothing beside a receipt."""
        if self.status == 200:
            return {}
        return {"status": str(self.status), **({"retry-after": self.retry_after} if self.retry_after else {})}


class Carrier(Protocol):
    """One connection to one broker."""

    name: str

    async def carry(self) -> None:
        """Connect and take batches until the connection ends; raises an error of the tree, or ``OSError``."""


class Desk:
    """Where a carrier hands in what it brought."""

    def __init__(self, reception: Reception, options: HubOptions, count: Parts) -> None:
        self._reception, self.options, self._counts = reception, options, count.counts

    async def answer(self, body: bytes, device: str) -> Reply:
        """Return the reply to a batch that came under a device's name; it must be signed by that device."""
        if not _DEVICE.fullmatch(device) or len(body) > self.options.max_body:
            self._counts.refuse("unreadable")
            return Reply(413 if len(body) > self.options.max_body else 400, b"")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._reception.held(len(body), ""))
            except SkerryError as error:
                self._counts.refuse(reason_of(error))
                return self._refused(error)
            try:
                return Reply(200, await self._reception.take(body, CARRIER, device=device))
            except SkerryError as error:
                return self._refused(error)

    def _refused(self, error: SkerryError) -> Reply:
        refusal = refusal_of(error, self.options.retry_after)
        return Reply(refusal.status, refusal.problem(), refusal.headers.get("retry-after", ""))


def make_carriers(uris: Sequence[str], parts: Parts) -> list[Carrier]:
    """Return a carrier for each URI; raises ``UsageError`` for a bad one."""
    desk = Desk(parts.reception, parts.options, parts)
    return [_make(uri, desk, has_authority=parts.access.authority is not None) for uri in uris]


def _make(uri: str, desk: Desk, *, has_authority: bool) -> Carrier:
    from skerry.fleet.hub.transports.mqtt import MqttCarrier
    from skerry.fleet.hub.transports.nats import NatsCarrier

    scheme = urlsplit(uri).scheme
    if scheme not in {"mqtt", "mqtts", "nats"}:
        raise UsageError(f"batches cannot come by {scheme!r}", expected="mqtt://, mqtts:// or nats://")
    place, options = read_address(uri, CarrierOptions)
    if not has_authority and not is_loopback(place.host):
        raise UsageError(
            f"{place.name} is not on this machine, and without an authority the first key of a name is trusted",
            expected="--authority FOLDER, or a broker on loopback",
        )
    return NatsCarrier(place, options, desk) if scheme == "nats" else MqttCarrier(place, options, desk)


async def keep_carrying(carrier: Carrier) -> None:
    """Carry for as long as the hub runs: whatever ends a connection, it is made again after a pause."""
    attempts, trouble = 0, ""
    while True:
        begun = asyncio.get_running_loop().time()
        try:
            await carrier.carry()
        except Exception as error:  # noqa: BLE001 - brokers' clients raise what they like; the hub goes on without
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            if told != trouble:
                _log.warning("transport %s: %s; it will be tried again", carrier.name, told)
            trouble = told
        attempts = 1 if asyncio.get_running_loop().time() - begun > 60 else attempts + 1
        await asyncio.sleep(pause_s(attempts, random.random()))
