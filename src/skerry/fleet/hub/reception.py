"""The reception: takes a batch from whatever brought it, and gives its receipt once it is durable."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from skerry.fleet.hub.access import Access, Caller
from skerry.fleet.hub.counts import Counts
from skerry.fleet.hub.ingest import Fates, Ingest
from skerry.fleet.hub.options import HubOptions
from skerry.fleet.hub.store import Transaction
from skerry.fleet.hub.writer import Writer
from skerry.spec.errors import (
    CertificateRefusedError,
    HubError,
    SignatureError,
    SkerryError,
    TrustError,
    WireError,
    WireVersionError,
)
from skerry.trust.names import checked_name
from skerry.wire.batch import peek
from skerry.wire.receipt import encode_receipt

SHARE = 4
"""Which part of the bytes that may be held one device may have."""


class BusyError(HubError):
    """The hub cannot take this now; the sender is told to come back, ``own_fault`` when it alone sends too much."""

    def __init__(self, message: str, *, own_fault: bool) -> None:
        super().__init__(message)
        self.own_fault = own_fault


class Reception:
    """The way of a batch into the store, the same for HTTP, MQTT and NATS.

    Used from one event loop; the work is done in the writer's thread.
    """

    def __init__(
        self,
        writer: Writer,
        ingest: Ingest,
        access: Access,
        options: HubOptions,
        counts: Counts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer, self._ingest, self._access = writer, ingest, access
        self._options, self._counts, self._clock = options, counts, clock

    @contextlib.contextmanager
    def held(self, size: int, sender: str) -> Iterator[None]:
        """Set bytes aside for a body that is about to be read, until it is done with.

        Raises ``BusyError`` when too many are held: in all, or by one sender, who could keep everybody else out by
        being slow. A sender without a name is the machine itself, or a broker; there is no other to be kept out.
        """
        counts, options = self._counts, self._options
        if sender and counts.held[sender] + size > max(options.max_body, options.in_flight // SHARE):
            raise BusyError(f"{sender} has as many bytes on their way as one may", own_fault=True)
        if counts.in_flight_bytes + size > options.in_flight:
            raise BusyError("the hub holds as many batches as it can", own_fault=False)
        counts.in_flight_bytes += size
        counts.held[sender] += size
        try:
            yield
        finally:
            counts.in_flight_bytes -= size
            counts.held[sender] -= size
            if not counts.held[sender]:
                del counts.held[sender]

    async def take(self, body: bytes, caller: Caller, *, device: str = "") -> bytes:
        """Return the receipt of a batch, which is durable then.

        Parameters
        ----------
        body:
            The batch as it came.
        caller:
            Who brought it.
        device:
            Whose it has to be, where the way that it came tells (the topic of a message).

        Raises
        ------
        WireError, WireVersionError, SignatureError, TrustError
            It cannot be read, or it is not vouched for; counted by reason.
        BusyError, HubError
            Not now.
        """
        try:
            return await self._take(body, caller, device)
        except SkerryError as error:
            self._counts.refuse(reason_of(error))
            raise

    async def _take(self, body: bytes, caller: Caller, device: str) -> bytes:
        header = peek(body)
        name = checked_name(header.device)
        if device and device != name:
            raise SignatureError(f"a batch of {name!r} among those of {device!r}")
        if self._counts.in_flight[name] >= self._options.per_device:
            raise BusyError(f"{name} has {self._options.per_device} batches waiting", own_fault=True)
        self._counts.in_flight[name] += 1
        try:
            receipt, fates = await asyncio.wrap_future(self._writer.submit(self._job(body, name, caller)))
        finally:
            self._counts.in_flight[name] -= 1
            if not self._counts.in_flight[name]:
                del self._counts.in_flight[name]
        self._counts.take(fates, len(body))
        return receipt

    def _job(self, body: bytes, device: str, caller: Caller) -> Callable[[Transaction], tuple[bytes, Fates]]:
        """Return what the writer does: unpacking too, so that one batch at a time is large in memory."""
        now_ms = int(self._clock() * 1000)  # when it arrived, not when its turn came

        def job(transaction: Transaction) -> tuple[bytes, Fates]:
            batch = self._access.read(body, device, caller, transaction, now_ms, self._options.wire)
            receipt, fates = self._ingest.take(batch, transaction, now_ms)
            return encode_receipt(receipt), fates

        return job


def reason_of(error: SkerryError) -> str:
    """Return the word under which a refused batch is counted."""
    if isinstance(error, BusyError):
        return "device_busy" if error.own_fault else "hub_busy"
    for kind, word in (
        (WireVersionError, "version"), (SignatureError, "signature"), (WireError, "unreadable"),
        (CertificateRefusedError, "certificate"), (TrustError, "identity"), (HubError, "store"),
    ):  # fmt: skip
        if isinstance(error, kind):
            return word
    return "other"
