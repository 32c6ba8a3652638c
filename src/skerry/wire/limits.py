"""Limits of a batch: what a reader takes and a writer makes, so that no sender can fill a memory."""

from __future__ import annotations

from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a batch may be.

    Parameters
    ----------
    packed:
        Bytes on the wire; default 8 MiB, ten seconds at 6 Mbit/s, and what a hub can hold for many devices at once.
    unpacked:
        Bytes after decompression; default 32 MiB. A zip bomb is refused before anything of that size is allocated.
    records:
        How many records; default 10,000: larger batches are hardly smaller per record.
    values:
        How many values all records hold, keys and containers included; default 4,000,000, some 250 MB of Python
        objects at the most. A few bytes can stand for many values, so that bytes alone limit nothing.
    depth:
        How deep lists and objects nest; default 128, more than people write and less than what a reader's stack holds.
    """

    packed: int = 8 << 20
    unpacked: int = 32 << 20
    records: int = 10_000
    values: int = 4_000_000
    depth: int = 128


DEFAULT_LIMITS: Final = Limits()
