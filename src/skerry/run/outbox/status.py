"""The status of an outbox: what a person or a page asks of it."""

from __future__ import annotations

from typing import Any

import msgspec


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
    """What an outbox holds, has lost, and how it feels.

    ``held`` tells whether a process has the store open; ``disk_full`` and ``damaged`` how often records or files were
    lost to that; ``losses`` are cumulative within the epoch.
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
    held: bool
    ballast_bytes: int
    file_bytes: int
    oldest_ms: int | None
