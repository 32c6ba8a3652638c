"""Traces: records of this project that were recorded once, for real, and are frozen, so that figures stay comparable.

``telemetry``: 2,000 readings of a machine at work, one a second, by the source ``sys``, with the thirteen fields of
``TELEMETRY_FIELDS``. ``triage``: the first 2,000 lines of a machine's logs of packages as ``examples/log-triage`` sorts
them, as they came out of the pipeline. ``heldout-telemetry``, 900 readings of another hour, and ``heldout-triage``,
2,000 lines of mosquitto, PostgreSQL and apt, came later: nothing in the format of the wire was chosen by them.
``python -m bench.traces.record`` made all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from skerry.wire.compression import zstd
from skerry.wire.record import Moment, WireRecord

Name = Literal["telemetry", "triage", "heldout-telemetry", "heldout-triage"]
NAMES: tuple[Name, ...] = ("telemetry", "triage")
HELD_OUT: tuple[Name, ...] = ("heldout-telemetry", "heldout-triage")
"""Nothing was chosen by these."""
FOLDER = Path(__file__).parent
TELEMETRY_FIELDS = (
    "time", "cpu_percent", "load_1m", "processes", "memory_percent", "memory_available_bytes", "disk_percent",
    "disk_free_bytes", "disk_read_bytes_per_s", "disk_write_bytes_per_s", "network_received_bytes_per_s",
    "network_sent_bytes_per_s", "temperature_c",
)  # fmt: skip
"""What a fleet's operator asks of a machine; the source tells eight more."""
BOOT = "3f0c5d1a9b7e4c2d8a6f1b0e7d5c3a91"
"""Made up: the boot id of the machine that was recorded is nobody's business."""
RELEASE = "sha256:5e1f0b6c9d3a47288f4e6d2c1b0a99887766554433221100ffeeddccbbaa9988"


class Line(msgspec.Struct, frozen=True):
    """A line of a trace: when the record left the pipeline, the wall clock's offset then, and its fields."""

    mono_us: int
    offset_ms: int
    fields: dict[str, Any]


def path_of(name: Name) -> Path:
    """Return the file of a trace."""
    return FOLDER / f"{name}.jsonl.zst"


def read_lines(name: Name) -> list[Line]:
    """Read a trace."""
    text = zstd().decompress(path_of(name).read_bytes())
    return [msgspec.json.decode(line, type=Line) for line in text.splitlines()]


def read_records(name: Name) -> list[WireRecord]:
    """Read a trace as an outbox would hand it over: numbered from 1, of one boot and one release."""
    return [
        WireRecord(
            seq,
            name.removeprefix("heldout-"),
            line.fields,
            line.mono_us,
            Moment(BOOT, line.offset_ms, synced=True),
            release=RELEASE,
        )
        for seq, line in enumerate(read_lines(name), 1)
    ]


def in_batches(records: list[WireRecord], size: int = 100) -> Iterator[list[WireRecord]]:
    """Return the records in batches of one size."""
    for begin in range(0, len(records) - size + 1, size):
        yield records[begin : begin + size]
