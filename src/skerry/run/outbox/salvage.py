"""Salvage: what is still to be read of a damaged store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from skerry.run.outbox.database import load_apsw
from skerry.run.outbox.item import Packed, unpack
from skerry.run.outbox.life import LifeMark
from skerry.run.outbox.options import PRIORITIES
from skerry.run.outbox.tables import read_mark

_MOST_JUMPS = 4096  # damaged places that are stepped over in one table before the rest is given up


class Salvaged(NamedTuple):
    """What a damaged store gave back.

    Records in their order, rows of dead letters, losses that nobody was told of, and how long it has lived.
    """

    records: list[Packed]
    letters: list[tuple[Any, ...]]
    losses: dict[str, int]
    mark: LifeMark | None


def salvage(path: Path, vfs: str | None = None) -> Salvaged:
    """Read what can be read of a damaged store; a record counts only when its content is what was stored."""
    apsw = load_apsw()
    nothing = Salvaged([], [], {}, None)
    try:
        connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE, vfs)
    except apsw.Error:
        return nothing
    try:
        connection.execute("PRAGMA writable_schema = ON")  # a schema that is damaged in part is read as far as it goes
        found: list[tuple[int, Packed]] = []
        for priority, table in enumerate(PRIORITIES):
            found += _records(connection, apsw, priority, table)
        found.sort(key=lambda pair: pair[0])
        letters = _rows(connection, apsw, "SELECT epoch, seq, priority, digest, reason, payload FROM dead ORDER BY id")
        losses = _rows(connection, apsw, "SELECT name, count - told FROM loss WHERE count > told")
        values = dict(_rows(connection, apsw, "SELECT name, value FROM store"))
        records = [record for _, record in found]
        return Salvaged(records, _sound(letters), _counts(losses), _mark(values, records))
    finally:
        connection.close(True)


def _sound(rows: Iterator[Any]) -> list[tuple[Any, ...]]:
    """Return the dead letters whose content is what was stored."""
    return [row for row in rows if _whole((row[1], row[3], 0, None, None, row[5]), row[2]) is not None]


def _mark(values: dict[Any, Any], records: list[Packed]) -> LifeMark | None:
    """Return how long the store has lived, by its own word or else by its newest record."""
    with contextlib.suppress(LookupError, TypeError, ValueError):
        mark = read_mark(values)
        if mark is not None:
            return mark
    if not records:
        return None
    newest = max(records, key=lambda record: record.born_ms)
    record = unpack(0, newest.priority, newest.digest, newest.payload)
    return LifeMark(record.moment.boot, newest.born_ms - record.mono_us // 1000, newest.born_ms)


def _counts(rows: Iterator[Any]) -> dict[str, int]:
    return {name: count for name, count in rows if isinstance(name, str) and isinstance(count, int) and count > 0}


def _rows(connection: Any, apsw: Any, query: str, bindings: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield rows until the end or the first damage."""
    try:
        yield from connection.execute(query, bindings)
    except apsw.Error:
        return


def _records(connection: Any, apsw: Any, priority: int, table: str) -> list[tuple[int, Packed]]:
    """Read a table from its begin, then from behind each damaged place, with growing steps."""
    query = f"SELECT seq, digest, born_ms, wall_ms, ttl_ms, payload FROM {table} WHERE seq >= ? ORDER BY seq"
    last = next(_rows(connection, apsw, f"SELECT max(seq) FROM {table}"), (None,))[0] or _given(connection, apsw, table)
    found: list[tuple[int, Packed]] = []
    start, step = 1, 1
    for _ in range(_MOST_JUMPS):
        before = len(found)
        for row in _rows(connection, apsw, query, (start,)):
            if row[0] < start:
                break  # pages that point at each other: the table has no end
            start = row[0] + 1
            record = _whole(row, priority)
            if record is not None:
                found.append(record)
        if start > last:
            break
        step = 1 if len(found) > before else step * 2
        start += step
    return found


def _given(connection: Any, apsw: Any, table: str) -> int:
    row = next(_rows(connection, apsw, "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)), (0,))
    return int(row[0])


def _whole(row: tuple[Any, ...], priority: int) -> tuple[int, Packed] | None:
    """Return a row as a record when it is what was stored."""
    seq, digest, born_ms, wall_ms, ttl_ms, payload = row
    try:
        unpack(seq, priority, digest, payload)
        return seq, Packed(priority, digest, int(born_ms), wall_ms, ttl_ms, payload)
    except (ValueError, TypeError):
        return None
