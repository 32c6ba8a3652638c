"""Salvage: what is still to be read of a damaged store."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from skerry.run.outbox.database import load_apsw
from skerry.run.outbox.item import Packed, unpack
from skerry.run.outbox.life import LifeMark
from skerry.run.outbox.options import PRIORITIES
from skerry.run.outbox.tables import read_mark

_MOST_JUMPS = 4096  # damaged places that are stepped over in one table before the rest is given up
_HIGHEST = 2**53  # no store gets there: a number beyond it is damaged itself
_EPOCH = re.compile("[0-9a-f]{16}")
_LETTERS = "SELECT epoch, seq, priority, digest, reason, payload FROM dead ORDER BY id"


class Known(NamedTuple):
    """What a store knows beside its records.

    Its identity, what the hub has of its epoch, the highest number that it gave, how long it has lived, how many
    records of each class it held (``None`` when nobody knows), and losses that only memory knew.
    """

    device: str
    epoch: str
    settled: int
    checksum: int
    forks: int
    last_seq: int
    mark: LifeMark | None
    counts: tuple[int, ...] | None
    unwritten: dict[str, int]


class Wreck:
    """A damaged store that is read. Whatever of it is read may end early; nothing that it returns was never stored."""

    def __init__(self, path: Path, vfs: str | None) -> None:
        apsw = load_apsw()
        self._error: type[Exception] = apsw.Error
        self._connection = None
        if path.stat().st_size == 0:
            return  # opening it would delete its log
        with contextlib.suppress(apsw.Error):
            self._connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE, vfs)
            # A schema that is damaged in part is read as far as it goes.
            self._connection.execute("PRAGMA writable_schema = ON")

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close(True)

    def records(self) -> Iterator[tuple[int, Packed]]:
        """Yield numbers and records, the highest class first; a record counts only when it is what was stored."""
        for priority in range(len(PRIORITIES) - 1, -1, -1):
            yield from self._records(priority, PRIORITIES[priority])

    def letters(self) -> Iterator[tuple[Any, ...]]:
        """Yield the dead letters whose content is what was stored."""
        for row in self._rows(_LETTERS):
            if _whole((row[1], row[3], 0, None, None, row[5]), row[2]) is not None:
                yield row

    def losses(self) -> tuple[list[tuple[str, int, int]], bool]:
        """Return names, counts and what of them the hub was told, and whether these are all."""
        found = []
        sound = True
        try:
            for name, count, told in self._all("SELECT name, count, told FROM loss"):
                if isinstance(name, str) and isinstance(count, int) and isinstance(told, int) and 0 <= told <= count:
                    found.append((name, count, told))
                else:
                    sound = False
        except (self._error, ValueError):
            sound = False
        return found, sound

    def known(self) -> Known | None:
        """Return what the store said of itself, if that can be read and be right."""
        try:
            values = dict(self._all("SELECT name, value FROM store"))
            known = Known(
                device=str(values["device"]),
                epoch=str(values["epoch"]),
                settled=int(values["settled"]),
                checksum=int(values["checksum"]) % 2**64,
                forks=int(values["forks"]),
                last_seq=int(values.get("last_seq", 0)),
                mark=read_mark(values),
                counts=None,
                unwritten={},
            )
        except (self._error, LookupError, TypeError, ValueError):
            return None
        right = _EPOCH.fullmatch(known.epoch) and 0 <= known.settled <= _HIGHEST and 0 <= known.last_seq <= _HIGHEST
        return known if right else None

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return [] if self._connection is None else self._connection.execute(query).fetchall()

    def _rows(self, query: str, bindings: tuple[Any, ...] = ()) -> Iterator[Any]:
        """Yield rows until the end or the first damage."""
        if self._connection is None:
            return
        try:
            yield from self._connection.execute(query, bindings)
        except (self._error, ValueError):  # ValueError: a text that is none
            return

    def _records(self, priority: int, table: str) -> Iterator[tuple[int, Packed]]:
        """Read a table from its begin, then from behind each damaged place, with growing steps."""
        query = f"SELECT seq, digest, born_ms, wall_ms, ttl_ms, payload FROM {table} WHERE seq >= ? ORDER BY seq"
        last = next(self._rows(f"SELECT max(seq) FROM {table}"), (None,))[0]
        last = min(last if isinstance(last, int) else self._given(), _HIGHEST)
        start, step = 1, 1
        for _ in range(_MOST_JUMPS):
            found = False
            for row in self._rows(query, (start,)):
                if not start <= row[0] <= _HIGHEST:
                    break  # pages that point at each other: the table has no end
                start = row[0] + 1
                record = _whole(row, priority)
                if record is not None:
                    found = True
                    yield record
            if start > last:
                return
            step = 1 if found else step * 2
            start += step

    def _given(self) -> int:
        known = self.known()
        return known.last_seq if known is not None and known.last_seq else 2**40


def newest_mark(newest: Packed | None) -> LifeMark | None:
    """Return how long a store has lived by its newest record, where nothing else tells."""
    if newest is None:
        return None
    record = unpack(0, newest.priority, newest.digest, newest.payload)
    return LifeMark(record.moment.boot, newest.born_ms - record.mono_us // 1000, newest.born_ms)


def _whole(row: tuple[Any, ...], priority: int) -> tuple[int, Packed] | None:
    """Return a row as a record when it is what was stored."""
    seq, digest, born_ms, wall_ms, ttl_ms, payload = row
    try:
        unpack(seq, priority, digest, payload)
        return seq, Packed(priority, digest, int(born_ms), wall_ms, ttl_ms, payload)
    except (ValueError, TypeError):
        return None
