"""Dead letters: records that cannot be delivered, kept until a person has looked at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from skerry.run.outbox import tables
from skerry.run.outbox.database import one_row
from skerry.run.outbox.item import OVERHEAD_BYTES, Packed, unpack
from skerry.run.outbox.options import PRIORITIES
from skerry.run.outbox.status import DeadLetter, dead_held

if TYPE_CHECKING:
    import apsw

    from skerry.run.outbox.store import Store

_LONGEST_REASON = 500  # characters: a hub's message is not to fill the device


def bury(store: Store, seq: int, reason: str, limit: int) -> bool:
    """Move a record to the dead letters; above ``limit`` bytes of those the oldest go, counted."""
    connection = store.connection

    def work() -> tuple[int, int] | None:
        found = _take(connection, seq)
        if found is None:
            return None
        priority, digest, payload = found
        connection.execute(
            "INSERT INTO dead (epoch, seq, priority, digest, reason, payload) VALUES (?, ?, ?, ?, ?, ?)",
            (store.epoch, seq, priority, digest, reason[:_LONGEST_REASON], payload),
        )
        losses = {f"buried.{PRIORITIES[priority]}": 1}
        gone = _trim(connection, limit)
        if gone:
            losses["dead.dropped"] = gone
        tables.count_losses(connection, losses)
        tables.keep_last_seq(connection, store.last_seq)
        return priority, len(payload) + OVERHEAD_BYTES

    taken = store.transaction(work)
    if taken is None:
        return False
    store.forget(taken[0], taken[1], 1)
    return True


def _take(connection: apsw.Connection, seq: int) -> tuple[int, int, bytes] | None:
    for priority, table in enumerate(PRIORITIES):
        row = one_row(connection, f"DELETE FROM {table} WHERE seq = ? RETURNING digest, payload", (seq,))
        if row:
            return priority, row[0], row[1]
    return None


def _trim(connection: apsw.Connection, limit: int) -> int:
    """Delete the oldest dead letters beyond a size; return how many."""
    over = dead_held(connection)[1] - limit
    if over <= 0:
        return 0
    gone = []
    for number, length in connection.execute("SELECT id, length(payload) FROM dead ORDER BY id"):
        if over <= 0:
            break
        gone.append((number,))
        over -= length + OVERHEAD_BYTES
    connection.executemany("DELETE FROM dead WHERE id = ?", gone)
    return len(gone)


def listed(connection: apsw.Connection, limit: int) -> list[DeadLetter]:
    """Return dead letters, the oldest first; one whose content is damaged says so in place of its fields."""
    query = "SELECT id, epoch, seq, priority, digest, reason, payload FROM dead ORDER BY id LIMIT ?"
    return [_letter(*row) for row in connection.execute(query, (limit,))]


def _letter(number: int, epoch: str, seq: int, priority: int, digest: int, reason: str, payload: bytes) -> DeadLetter:
    try:
        record = unpack(seq, priority, digest, payload)
        stream, fields = record.stream, record.fields
    except ValueError as error:
        stream, fields, reason = "", {}, f"{reason} ({error})"
    return DeadLetter(
        id=number,
        epoch=epoch,
        seq=seq,
        priority=PRIORITIES[priority],
        stream=stream,
        reason=reason,
        size_bytes=len(payload) + OVERHEAD_BYTES,
        fields=fields,
    )


def _chosen(connection: apsw.Connection, ids: Sequence[int] | None) -> list[int]:
    if ids is None:
        return [row[0] for row in connection.execute("SELECT id FROM dead ORDER BY id")]
    exists = "SELECT id FROM dead WHERE id = ?"
    return sorted({row[0] for number in ids for row in connection.execute(exists, (number,))})


def replay(store: Store, ids: Sequence[int] | None) -> int:
    """Give dead letters new numbers in their old classes, as if they were new; return how many.

    They have no time to live any more: somebody wants them sent.
    """
    connection = store.connection
    born = store.life.now_ms()

    def work() -> list[Packed]:
        records: list[Packed] = []
        for number in _chosen(connection, ids):
            priority, digest, payload = one_row(
                connection, "DELETE FROM dead WHERE id = ? RETURNING priority, digest, payload", (number,)
            )
            records.append(Packed(priority, digest, born, None, None, payload))
        for text, values in tables.inserts(store.last_seq + 1, records):
            connection.execute(text, values)
        return records

    records = store.transaction(work)
    store.remember(records)
    return len(records)


def drop(store: Store, ids: Sequence[int] | None) -> int:
    """Delete dead letters; return how many."""
    connection = store.connection

    def work() -> int:
        chosen = _chosen(connection, ids)
        connection.executemany("DELETE FROM dead WHERE id = ?", [(number,) for number in chosen])
        return len(chosen)

    return store.transaction(work)
