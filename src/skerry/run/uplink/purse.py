"""The purse: today's budget, with what is set aside for batches on their way, kept over restarts.

What is written down runs ahead of what was spent, by a small lease: so a device that is killed may lose a little of its
budget, and can never spend it twice, without a write to the disk for every batch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from skerry.run.uplink import allowance as day
from skerry.run.uplink.allowance import Allowance
from skerry.run.uplink.job import Clock

_LEASES = 50  # a day's budget is leased in so many parts: writes to the disk, and what a power cut costs


class Book(Protocol):
    """Where an allowance is kept."""

    def read(self) -> Allowance:
        """Return what was kept, or a fresh one."""

    def write(self, allowance: Allowance) -> None:
        """Keep it; never raises, a device without space goes on."""


class BookInMemory:
    """Keeps it as long as the process lives."""

    def __init__(self, allowance: Allowance | None = None) -> None:
        self.kept = allowance or Allowance()

    def read(self) -> Allowance:
        """Return what was kept."""
        return self.kept

    def write(self, allowance: Allowance) -> None:
        """Keep it."""
        self.kept = allowance


class BookOnDisk:
    """Keeps it in a small JSON file, replaced in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Allowance:
        """Return what was kept; a damaged file counts as none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Allowance)
        except (OSError, msgspec.MsgspecError):
            return Allowance()

    def write(self, allowance: Allowance) -> None:
        """Keep it."""
        draft = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(allowance))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)


class Purse:
    """What may still be spent; used under the conductor's lock.

    Parameters
    ----------
    budgets:
        Bytes a day by class of link.
    book:
        Where it is kept.
    clock:
        Tells when a day is over.
    """

    def __init__(self, budgets: Mapping[Any, float], book: Book, clock: Clock) -> None:
        self._budgets, self._book, self._clock = budgets, book, clock
        self._allowance = book.read()
        self._leased: dict[str, int] = dict(self._allowance.spent)
        self._aside: dict[str, int] = {}
        self.roll()

    @property
    def left_s(self) -> float:
        """Seconds until there is a new budget."""
        return self._allowance.left_s

    @property
    def spent(self) -> dict[str, int]:
        """Bytes spent today by class of link."""
        return dict(self._allowance.spent)

    def roll(self) -> None:
        """Begin a new day when the old one is over."""
        clock = self._clock
        wall_s = clock.wall_ms() / 1000
        until_midnight_s = day.DAY_S - wall_s % day.DAY_S if clock.synced() else day.DAY_S
        before = self._allowance
        self._allowance = day.brought_to(
            before, clock.boot(), clock.mono_us() / 1e6, wall_s, until_midnight_s=until_midnight_s
        )
        if before.spent and not self._allowance.spent:
            self._leased = {}

    def free(self, link: str) -> int | None:
        """Return the bytes that are neither spent nor set aside; ``None`` where there is no budget."""
        left = day.left(self._allowance, self._budgets, link)
        return None if left is None else max(0, left - self._aside.get(link, 0))

    def set_aside(self, link: str, size: int) -> None:
        """Keep bytes for something that is begun now; they are leased on disk before anything is sent."""
        self._aside[link] = self._aside.get(link, 0) + size
        if link not in self._budgets:
            return
        needed = self._allowance.spent.get(link, 0) + self._aside[link]
        if needed > self._leased.get(link, 0):
            self._leased[link] = needed + int(self._budgets[link] / _LEASES)
            self._book.write(msgspec.structs.replace(self._allowance, spent={**self.spent, **self._leased}))

    def spend(self, link: str, size: int, *, set_aside: int = 0) -> None:
        """Take bytes that went over the wire, in place of those that were set aside for them."""
        self._aside[link] = max(0, self._aside.get(link, 0) - set_aside)
        self._allowance = day.charged(self._allowance, link, size)
        self.set_aside(link, 0)  # what cost more than was thought is written down as well

    def close(self) -> None:
        """Write down what was really spent."""
        if self._budgets:
            self._book.write(self._allowance)
