"""Packing: records become a batch that the link's budget and the wire's limits take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from skerry.run.uplink.job import Clock, Shelf, Store
from skerry.spec.errors import WireError
from skerry.spec.ports import Signer
from skerry.wire.batch import Header, encode
from skerry.wire.record import WireRecord


class Packed(msgspec.Struct, frozen=True):
    """A batch, its header and the records in it."""

    batch: bytes
    header: Header
    records: Sequence[WireRecord]


class Packer:
    """Makes batches of one device.

    Parameters
    ----------
    device:
        The device's name.
    signer:
        Returns who vouches for the batches now; ``None`` for nobody.
    clock:
        The device's clocks.
    unfit:
        Is told of numbers that cannot travel together, and why.
    """

    def __init__(
        self,
        device: str,
        signer: Callable[[], Signer] | None,
        clock: Clock,
        unfit: Callable[[Shelf, Sequence[int], str], None],
    ) -> None:
        self._device, self._signer, self._clock, self._unfit = device, signer, clock, unfit

    def pack(
        self, shelf: Shelf, records: Sequence[WireRecord], most_bytes: int | None
    ) -> Packed | Literal["too dear", "nothing"]:
        """Return a batch of as many of the first records as may travel together in so many bytes.

        ``too dear`` is one record that takes more, ``nothing`` when none of them can travel, or the store has just
        begun a new epoch, in which these numbers are other records'.
        """
        chosen = shelf.suspects.cut(records)
        while chosen:
            header = self._header(shelf.store)
            if header.epoch != shelf.epoch or shelf.store.epoch != shelf.epoch:
                return "nothing"
            try:
                batch = encode(header, chosen, self._signer() if self._signer else None)
            except WireError as error:  # too large, or not what JSON can say: one of them has to go
                self._unfit(shelf, [record.seq for record in chosen], error.message)
                chosen = chosen[: len(chosen) // 2]
                continue
            if most_bytes is None or len(batch) <= most_bytes:
                return Packed(batch, header, chosen)
            if len(chosen) == 1:
                return "too dear"
            chosen = chosen[: len(chosen) // 2]
        return "nothing"

    def _header(self, store: Store) -> Header:
        clock = self._clock
        return Header(
            device=self._device,
            epoch=store.epoch,
            boot=clock.boot(),
            sent_mono_us=clock.mono_us(),
            sent_wall_ms=clock.wall_ms(),
            synced=clock.synced(),
            losses=store.losses(),
        )
