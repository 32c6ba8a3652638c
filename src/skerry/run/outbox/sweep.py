"""The sweep: what is not worth sending any more is deleted and counted, a part of the store at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from skerry.run.outbox import tables
from skerry.run.outbox.options import PRIORITIES
from skerry.wire.ranges import Range

if TYPE_CHECKING:
    from skerry.run.outbox.store import Store

NUMBERS = 2000
"""Numbers that one look takes: half a megabyte of small records, some 30 ms on a slow card."""
LONGEST_S = 0.05
"""Nobody can put a record meanwhile, so a large store is swept in several goes."""


def sweep(store: Store) -> int:
    """Delete what is too old, from where the last sweep ended; return how many records that were."""
    begin, gone = time.monotonic(), 0
    while store.mortal:
        among, counts = _expire_next(store)
        gone += sum(counts)
        store.swept = among[1] if among else 0
        if among is None or time.monotonic() - begin > LONGEST_S:
            break
    return gone


def _expire_next(store: Store) -> tuple[Range | None, list[int]]:
    """Delete what is too old in the next part of the store; return its numbers, and how many records by class."""
    now = store.now()

    def work() -> tuple[Range | None, list[tuple[int, int]]]:
        connection, under_way = store.connection, store.under_way
        among = tables.slice_after(connection, store.swept, NUMBERS)
        if among is None:
            return None, []
        gone = [tables.expire(connection, number, now, among, under_way) for number in range(len(PRIORITIES))]
        losses = {f"expired.{PRIORITIES[number]}": count for number, (_, count) in enumerate(gone) if count}
        tables.count_losses(connection, losses)
        if losses:
            tables.keep_last_seq(connection, store.last_seq)
        return among, gone

    among, gone = store.transaction(work)
    for priority, (size, count) in enumerate(gone):
        store.forget(priority, size, count)
    return among, [count for _, count in gone]
