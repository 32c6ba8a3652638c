"""The status of an outbox: what a person or a page asks of it, read while its process writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from skerry.run.outbox import tables
from skerry.run.outbox.database import one_row
from skerry.run.outbox.item import OVERHEAD_BYTES
from skerry.run.outbox.options import PRIORITIES

if TYPE_CHECKING:
    import apsw


class ClassStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One priority class: how many records wait, and the bytes that they count with."""

    name: str
    count: int
    size_bytes: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was taken out because it cannot be delivered.

    ``id`` names it for replaying and dropping; ``epoch`` and ``seq`` are what it was sent as.
    """

    id: int
    epoch: str
    seq: int
    priority: str
    stream: str
    reason: str
    size_bytes: int
    fields: dict[str, Any]


class OutboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What an outbox holds and has lost.

    ``held`` tells whether a process has the store open; ``settled`` counts what the hub took in this epoch, ``losses``
    what was given up in it, cumulative; ``forks`` the epochs before, and ``fork_reason`` why the last one ended.
    """

    file: str
    device: str
    epoch: str
    last_seq: int
    pending: int
    size_bytes: int
    classes: tuple[ClassStatus, ...]
    dead: int
    dead_bytes: int
    settled: int
    losses: dict[str, int]
    forks: int
    fork_reason: str
    held: bool
    ballast_bytes: int
    file_bytes: int


def status_of(connection: apsw.Connection, path: Path, held: tuple[list[int], list[int]] | None = None) -> OutboxStatus:
    """Return what the file of a store tells; whether a process holds it, and the ballast, are asked of the folder.

    ``held`` are bytes and records by class where they are known: counting them reads the whole store.
    """
    values = tables.read_values(connection)
    sizes, counts = held or tables.held(connection)[:2]
    dead, dead_bytes = dead_held(connection)
    return OutboxStatus(
        file=str(path),
        device=str(values["device"]),
        epoch=str(values["epoch"]),
        last_seq=tables.last_seq(connection),
        pending=sum(counts),
        size_bytes=sum(sizes),
        classes=tuple(
            ClassStatus(name=name, count=count, size_bytes=size)
            for name, count, size in zip(PRIORITIES, counts, sizes, strict=True)
        ),
        dead=dead,
        dead_bytes=dead_bytes,
        settled=int(values["settled"]),
        losses=tables.read_losses(connection),
        forks=int(values["forks"]),
        fork_reason=str(values.get("fork_reason", "")),
        held=False,
        ballast_bytes=0,
        file_bytes=path.stat().st_size,
    )


def dead_held(connection: apsw.Connection) -> tuple[int, int]:
    """Return how many dead letters there are, and their bytes."""
    row = one_row(connection, "SELECT count(*), coalesce(sum(length(payload)), 0) FROM dead")
    return row[0], row[1] + OVERHEAD_BYTES * row[0]
