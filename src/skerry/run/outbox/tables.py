"""The tables of a store: what is written and read, as functions of a connection inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from skerry.run.outbox.database import DamagedError, one_row
from skerry.run.outbox.item import OVERHEAD_BYTES, Packed
from skerry.run.outbox.life import LifeMark
from skerry.run.outbox.options import PRIORITIES
from skerry.wire.ranges import Range

if TYPE_CHECKING:
    import apsw

_END = 2**63 - 1
_ROWS_IN_ONE = 64  # rows of one statement: the interpreter's lock is then taken once for all of them
Row = tuple[int, int, int, bytes]
"""seq, priority, digest, payload."""


def _insert_text(table: str, rows: int) -> str:
    marks = ",".join(["(?,?,?,?,?,?)"] * rows)
    return f"INSERT INTO {table} (seq, digest, born_ms, wall_ms, ttl_ms, payload) VALUES {marks}"


_INSERTS = tuple(tuple(_insert_text(table, rows) for rows in range(_ROWS_IN_ONE + 1)) for table in PRIORITIES)


def inserts(first_seq: int, records: Sequence[Packed | None]) -> list[tuple[str, list[Any]]]:
    """Return the statements that insert records under consecutive numbers; ``None`` leaves its number unused."""
    if len(records) == 1 and (only := records[0]) is not None:
        return [(_INSERTS[only[0]][1], [first_seq, *only[1:]])]
    parts: dict[int, list[Any]] = {}
    for seq, record in enumerate(records, first_seq):
        if record is None:
            continue
        values = parts.get(record.priority)
        if values is None:
            values = parts[record.priority] = []
        values += (seq, *record[1:])
    statements: list[tuple[str, list[Any]]] = []
    width = 6 * _ROWS_IN_ONE
    for priority, values in parts.items():
        texts = _INSERTS[priority]
        statements += [
            (texts[len(part) // 6], part)
            for part in (values[start : start + width] for start in range(0, len(values), width))
        ]
    return statements


def check(connection: apsw.Connection) -> None:
    """Look through every page; raises ``DamagedError`` for one that cannot be right."""
    found = one_row(connection, "PRAGMA quick_check(1)")[0]
    if found != "ok":
        raise DamagedError(f"the store is damaged: {found}")


def held(connection: apsw.Connection) -> tuple[list[int], list[int], bool]:
    """Return bytes and records by class, and whether any has a time to live; reads the whole store, once."""
    sizes, counts, mortals = [], [], 0
    for table in PRIORITIES:
        query = f"SELECT coalesce(sum(length(payload)), 0), count(*), count(ttl_ms) FROM {table}"
        size, count, mortal = one_row(connection, query)
        sizes.append(size + OVERHEAD_BYTES * count)
        counts.append(count)
        mortals += mortal
    return sizes, counts, mortals > 0


def last_seq(connection: apsw.Connection) -> int:
    """Return the highest number that was ever given, those of records that are gone included.

    It is that of the newest record, or what :func:`keep_last_seq` has written down whenever records went. A table with
    ``AUTOINCREMENT`` would write one more page with every commit.
    """
    query = "SELECT max(coalesce((SELECT max(seq) FROM low), 0), coalesce((SELECT max(seq) FROM normal), 0),"
    query += " coalesce((SELECT max(seq) FROM high), 0), coalesce((SELECT max(seq) FROM critical), 0),"
    query += " coalesce((SELECT value FROM store WHERE name = 'last_seq'), 0))"
    return int(one_row(connection, query)[0])


def keep_last_seq(connection: apsw.Connection, last: int) -> None:
    """Write down the highest number that was given, within the transaction that deletes records."""
    write_values(connection, {"last_seq": last})


def newest_birth(connection: apsw.Connection) -> int:
    """Return the greatest ``born_ms`` of the newest record of each class, a lower bound of the store's life."""
    query = "SELECT born_ms FROM {} ORDER BY seq DESC LIMIT 1"
    found = [one_row(connection, query.format(table)) for table in PRIORITIES]
    return max((row[0] for row in found if row), default=0)


class Now(NamedTuple):
    """What decides which records are too old: life, the life at which this boot began, and the believed wall clock."""

    life_ms: int
    base_ms: int
    wall_ms: int | None

    def bindings(self) -> dict[str, int]:
        """Return the values of :data:`_TOO_OLD`."""
        return {"life": self.life_ms, "base": self.base_ms, "wall": -(2**62) if self.wall_ms is None else self.wall_ms}


# A record of this boot (born after `base`) is judged by the life of the store alone, one of an earlier boot also by the
# wall clock, where that was believed then and is now.
_TOO_OLD = (
    "ttl_ms IS NOT NULL AND (born_ms + ttl_ms <= :life "
    "OR (born_ms <= :base AND wall_ms IS NOT NULL AND wall_ms + ttl_ms <= :wall))"
)


def waiting(
    connection: apsw.Connection, counts: Sequence[int], gaps: Sequence[Range], now: Now | None
) -> Iterator[Row]:
    """Yield what lies in ranges of numbers and is not too old, the highest class first, within it the oldest."""
    unless = "" if now is None else f" AND NOT ({_TOO_OLD})"
    aged = {} if now is None else now.bindings()
    for priority in range(len(PRIORITIES) - 1, -1, -1):
        table = PRIORITIES[priority]
        query = f"SELECT seq, digest, payload FROM {table} WHERE seq BETWEEN :first AND :last{unless} ORDER BY seq"
        for first, last in gaps if counts[priority] else ():
            before = 0
            for seq, digest, payload in connection.execute(query, {"first": first, "last": last, **aged}):
                if seq <= before:
                    raise DamagedError("the store is damaged: its records are out of order")
                before = seq
                yield seq, priority, digest, payload


def take_out(connection: apsw.Connection, ranges: Iterable[Range]) -> tuple[list[int], list[int], int, int]:
    """Delete ranges of numbers; return bytes and records by class, how many, and the sum of their digests mod 2^64.

    Whoever calls this, :func:`evict` or :func:`expire` calls :func:`keep_last_seq` in the same transaction.
    """
    sizes, counts = [0] * len(PRIORITIES), [0] * len(PRIORITIES)
    checksum = 0
    for first, last in ranges:
        for number, table in enumerate(PRIORITIES):
            gone: list[tuple[Any, ...]] = connection.execute(
                f"DELETE FROM {table} WHERE seq BETWEEN ? AND ? RETURNING digest, length(payload)", (first, last)
            ).fetchall()
            counts[number] += len(gone)
            sizes[number] += sum(int(size) for _, size in gone) + OVERHEAD_BYTES * len(gone)
            checksum += sum(int(digest) for digest, _ in gone)
    return sizes, counts, sum(counts), checksum % 2**64


def evict(connection: apsw.Connection, priority: int, need: int, under_way: Sequence[Range]) -> tuple[int, int]:
    """Delete the oldest records of a class until ``need`` bytes are free; return the bytes and the records.

    Those that may be on their way to the hub go last.
    """
    table = PRIORITIES[priority]
    freed = gone = 0
    for first, last in (*gaps(under_way), *under_way):
        if freed >= need:
            break
        up_to = None
        query = f"SELECT seq, length(payload) FROM {table} WHERE seq BETWEEN ? AND ? ORDER BY seq"
        for seq, length in connection.execute(query, (first, last)):
            freed, gone, up_to = freed + length + OVERHEAD_BYTES, gone + 1, seq
            if freed >= need:
                break
        if up_to is not None:
            connection.execute(f"DELETE FROM {table} WHERE seq BETWEEN ? AND ?", (first, up_to))
    return freed, gone


def slice_after(connection: apsw.Connection, seq: int, numbers: int) -> Range | None:
    """Return the next range of so many numbers that holds a record, or ``None`` where no record comes after ``seq``."""
    query = " UNION ALL ".join(f"SELECT min(seq) FROM {table} WHERE seq > ?1" for table in PRIORITIES)
    first = one_row(connection, f"SELECT min(found) FROM (SELECT NULL AS found UNION ALL {query})", (seq,))[0]
    return None if first is None else (first, first + numbers - 1)


def expire(
    connection: apsw.Connection, priority: int, now: Now, among: Range, under_way: Sequence[Range]
) -> tuple[int, int]:
    """Delete what is too old among numbers, but what may be on its way to the hub; return bytes and records."""
    query = f"DELETE FROM {PRIORITIES[priority]} WHERE seq BETWEEN :first AND :last AND {_TOO_OLD}"
    size = count = 0
    for start, end in gaps(under_way):
        bindings = {"first": max(start, among[0]), "last": min(end, among[1]), **now.bindings()}
        gone: list[tuple[Any, ...]] = connection.execute(f"{query} RETURNING length(payload)", bindings).fetchall()
        size += sum(int(length) for (length,) in gone) + OVERHEAD_BYTES * len(gone)
        count += len(gone)
    return size, count


def gaps(taken: Sequence[Range]) -> list[Range]:
    """Return the numbers that are not in merged ranges.

    >>> gaps([(1, 3), (7, 7)])
    [(4, 6), (8, 9223372036854775807)]
    """
    found, start = [], 1
    for first, last in taken:
        if first > start:
            found.append((start, first - 1))
        start = last + 1
    return [*found, (start, _END)]


def signed(checksum: int) -> int:
    """Return a sum mod 2^64 as SQLite has its integers."""
    return checksum - 2**64 if checksum >= 2**63 else checksum


def read_values(connection: apsw.Connection) -> dict[str, Any]:
    """Return what the store knows of itself."""
    return {str(name): value for name, value in connection.execute("SELECT name, value FROM store")}


def write_values(connection: apsw.Connection, values: dict[str, Any]) -> None:
    """Write down some of what the store knows of itself."""
    connection.executemany("INSERT OR REPLACE INTO store VALUES (?, ?)", list(values.items()))


def read_mark(values: dict[str, Any]) -> LifeMark | None:
    """Return the mark of the store's life, if it has one."""
    if "life_boot" not in values:
        return None
    return LifeMark(str(values["life_boot"]), int(values["life_base_ms"]), int(values["life_reached_ms"]))


def mark_values(mark: LifeMark) -> dict[str, Any]:
    """Return a mark as values of the store."""
    return {"life_boot": mark.boot, "life_base_ms": mark.base_ms, "life_reached_ms": mark.reached_ms}


def read_losses(connection: apsw.Connection) -> dict[str, int]:
    """Return the losses of this epoch by name."""
    query = "SELECT name, count FROM loss WHERE count > 0 ORDER BY name"
    return {str(name): int(count) for name, count in connection.execute(query)}


def count_losses(connection: apsw.Connection, losses: dict[str, int]) -> None:
    """Add to the losses of this epoch."""
    connection.executemany(
        "INSERT INTO loss (name, count) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
        list(losses.items()),
    )


def tell_losses(connection: apsw.Connection, told: dict[str, int]) -> None:
    """Note which losses the hub knows, so that a fork does not report them again under its new epoch."""
    connection.executemany("UPDATE loss SET told = max(told, min(count, ?2)) WHERE name = ?1", list(told.items()))


def carry_losses(connection: apsw.Connection) -> None:
    """Begin an epoch: only what the hub was not told yet is counted on."""
    connection.execute("UPDATE loss SET count = count - told, told = 0")
