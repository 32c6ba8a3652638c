"""The successor: what of a damaged store goes on in a new one, and under which identity.

Records keep their numbers. They keep their epoch too where everything that makes it up is known: then what was on its
way to the hub when the damage was found is the same record to the hub when it comes again, and is settled by a receipt
that comes late. A number must not be given twice, so where the last one is not known for certain, a stretch of numbers
is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from skerry.run.outbox import tables
from skerry.run.outbox.item import Packed
from skerry.run.outbox.options import PRIORITIES
from skerry.run.outbox.salvage import Known, Wreck, newest_mark

if TYPE_CHECKING:
    import apsw

    from skerry.run.outbox.store import Store

_LEFT_OUT = 2**32
"""Numbers: years of records that nobody remembers."""
_WHO_HAS = " UNION ALL ".join(f"SELECT digest FROM {table} WHERE seq = ?1" for table in PRIORITIES)


class _Taken(NamedTuple):
    """What was taken over: records by class, the highest number, the newest record, and those without a number."""

    counts: list[int]
    highest: int
    newest: Packed | None
    strays: list[Packed]


def known_of(store: Store) -> Known:
    """Return what a store that was open until now has in memory."""
    return Known(
        device=store.device,
        epoch=store.epoch,
        settled=store.settled,
        checksum=store.checksum,
        forks=store.forks,
        last_seq=store.last_seq,
        mark=store.life.mark(),
        counts=tuple(store.counts),
        unwritten=dict(store.unwritten),
    )


def take_over(store: Store, wreck: Wreck, live: Known | None) -> None:
    """Put into a new store what can be read of a damaged one, all of it or nothing, and count what is missing.

    ``live`` is what the process of the damaged store had in memory, if it was open. The new store has to be closed and
    opened again then. Raises what its transactions raise.
    """
    store.transaction(lambda: _take_over(store.connection, wreck, live))


def _take_over(connection: apsw.Connection, wreck: Wreck, live: Known | None) -> None:
    taken = _take_records(connection, wreck, live.last_seq if live else None)
    connection.executemany(
        "INSERT INTO dead (epoch, seq, priority, digest, reason, payload) VALUES (?, ?, ?, ?, ?, ?)", wreck.letters()
    )
    known = live or wreck.known()
    losses, complete = wreck.losses()
    last = taken.highest
    mark = (known.mark if known else None) or newest_mark(taken.newest)
    values: dict[str, Any] = tables.mark_values(mark) if mark else {}
    if known is not None and complete:  # or the hub, which takes the greater of two totals, would overlook new losses
        last = max(known.last_seq, taken.highest) + (0 if live else _LEFT_OUT)
        values |= {"device": known.device, "epoch": known.epoch, "settled": known.settled, "forks": known.forks}
        values |= {"checksum": tables.signed(known.checksum)}
    else:
        losses = [(name, count - told, 0) for name, count, told in losses]
    for text, bindings in tables.inserts(last + 1, taken.strays):
        connection.execute(text, bindings)
    tables.write_values(connection, {**values, "last_seq": last + len(taken.strays)})
    connection.executemany("INSERT INTO loss (name, count, told) VALUES (?, ?, ?)", losses)
    tables.count_losses(connection, {"damaged.stores": 1, **_missing(live, taken.counts)})
    tables.count_losses(connection, live.unwritten if live else {})


def _take_records(connection: apsw.Connection, wreck: Wreck, last: int | None) -> _Taken:
    """Store what is read, one at a time: a store may be larger than the memory.

    A record whose number was never given, or is another one's, needs a new one: its number is what is damaged.
    """
    counts, highest, newest = [0] * len(PRIORITIES), 0, None
    strays: list[Packed] = []
    for seq, record in wreck.records():
        owner = connection.execute(_WHO_HAS, (seq,)).fetchone()
        if owner is not None and owner[0] == record.digest:
            continue  # a page that is part of two tables
        if owner is not None or (last is not None and seq > last):
            strays.append(record)
        else:
            for text, bindings in tables.inserts(seq, [record]):
                connection.execute(text, bindings)
            highest = max(highest, seq)
        counts[record.priority] += 1
        if newest is None or record.born_ms > newest.born_ms:
            newest = record
    return _Taken(counts, highest, newest, strays)


def _missing(live: Known | None, saved: list[int]) -> dict[str, int]:
    """Return how many records of each class are gone, where it is known how many there were."""
    if live is None or live.counts is None:
        return {}
    pairs = zip(PRIORITIES, live.counts, saved, strict=True)
    return {f"damaged.{name}": had - has for name, had, has in pairs if had > has}
