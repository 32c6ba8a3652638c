"""The clock of a record: when it was made, as the hub's clock would have shown, whatever the device's clock said.

A device's wall clock may be a year off and jump; its monotonic clock only counts, from each boot anew. The hub knows
when a batch arrived and what the monotonic clock of the sending boot showed when it left, so within one boot the wall
clock of the device is never needed. The difference of both clocks (the *offset* of a boot) is remembered: records of
an earlier boot that was seen then can still be placed. All functions are pure; times are whole milliseconds of Unix
time unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from skerry.wire.batch import Header
from skerry.wire.record import WireRecord

TimeFrom = Literal["hub", "wall", "offset", "unknown"]
"""What vouches for a record's time: the hub's clock, the device's synchronized clock, a remembered offset, nothing."""

DRIFT = 200e-6
"""How fast two clocks may drift apart: twice what the crystals of cheap boards are sold with (100 ppm)."""


class Offset(msgspec.Struct, frozen=True):
    """The hub's clock minus the monotonic clock of one boot, in ms, and when it was last looked at."""

    offset_ms: int
    measured_ms: int


def learn(known: Offset | None, header: Header, hub_ms: int) -> Offset:
    """Return what is known of a boot's offset after a batch of that boot arrived at ``hub_ms``.

    A batch is always late, by milliseconds on a link and by days on a relay, so the smallest difference seen is the
    best one; the clocks may drift apart meanwhile, by :data:`DRIFT`. A hub whose own clock went back starts over.
    """
    sample = hub_ms - header.sent_mono_us // 1000
    if known is None or hub_ms < known.measured_ms:
        return Offset(sample, hub_ms)
    believed = known.offset_ms + int((hub_ms - known.measured_ms) * DRIFT)
    return Offset(min(sample, believed), hub_ms)


def place(record: WireRecord, header: Header, offsets: Mapping[str, Offset]) -> tuple[int | None, TimeFrom]:
    """Return when a record was made and what vouches for it; ``offsets`` holds that of the header's boot too.

    Of the boot that sent it: by the hub's clock. Of another boot: by the device's wall clock if it was synchronized,
    else by the offset of that boot if it is known, else the time is unknown.
    """
    mono_ms = record.mono_us // 1000
    boot = record.moment.boot
    if boot == header.boot and boot in offsets:
        return offsets[boot].offset_ms + mono_ms, "hub"
    if record.moment.synced:
        return mono_ms + record.moment.offset_ms, "wall"
    if boot in offsets:
        return offsets[boot].offset_ms + mono_ms, "offset"
    return None, "unknown"
