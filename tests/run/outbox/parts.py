"""What the tests of the outbox share: a clock that is set by hand, and items."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw

from skerry.run.outbox import Item, Outbox, OutboxOptions
from skerry.run.outbox.options import Priority
from skerry.spec.units import Size

PAGE = 4096
YEAR_MS = 365 * 86400 * 1000


class HandClock:
    """A clock that stands until it is moved; ``reboot`` gives it a new boot."""

    def __init__(self, *, synced: bool = True) -> None:
        self.mono_ms = 1_000_000
        self.wall = 1_700_000_000_000
        self.number = 1
        self.is_synced = synced

    def mono_us(self) -> int:
        return self.mono_ms * 1000

    def wall_ms(self) -> int:
        return self.wall

    def boot(self) -> str:
        return f"{self.number:032x}"

    def synced(self) -> bool:
        return self.is_synced

    def pass_s(self, seconds: float) -> None:
        self.mono_ms += int(seconds * 1000)
        self.wall += int(seconds * 1000)

    def reboot(self, off_s: float, wall_error_ms: int = 0) -> None:
        self.number += 1
        self.mono_ms = 5_000
        self.wall += int(off_s * 1000) + 5_000 + wall_error_ms


def item(number: int, priority: Priority = "normal", *, size: int = 0, **more: Any) -> Item:
    return Item(stream="alerts", fields={"n": number, "pad": "x" * size}, priority=priority, **more)


def options(**more: Any) -> OutboxOptions:
    """Options of a small store without a ballast or a reserve, which would only take time."""
    return OutboxOptions(**{"ballast": Size(0), "reserve": Size(0), **more})


def opened(folder: Path, **more: Any) -> Outbox:
    settings = {"device": "pump-7", "options": options(), **more}
    return Outbox(folder, **settings)


def numbers(outbox: Outbox) -> list[int]:
    return [record.fields["n"] for record in outbox.pending(100_000, 2**40)]


def spoil(path: Path, pages: list[int]) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(random.Random(page).randbytes(PAGE))
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def pages_of(path: Path, name: str) -> list[int]:
    """Return the pages of a table, its root first."""
    connection = apsw.Connection(str(path))
    query = "SELECT pageno FROM dbstat WHERE name = ? ORDER BY path"
    found = [row[0] for row in connection.execute(query, (name,))]
    connection.close()
    return found
