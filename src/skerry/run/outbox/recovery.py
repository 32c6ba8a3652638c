"""Recovery: a damaged store is put aside, and a new one goes on with what could be read of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skerry.run.outbox.database import DamagedError
from skerry.run.outbox.options import PRIORITIES
from skerry.run.outbox.salvage import Salvaged, quarantine, salvage
from skerry.run.outbox.store import Store


def opened(path: Path, *, known: Sequence[int] | None = None, **settings: Any) -> Store:
    """Open a store; a damaged one is put aside first.

    Parameters
    ----------
    known:
        How many records of each class the damaged store held, where that is known: it was open until now.
    settings:
        What :class:`~skerry.run.outbox.store.Store` takes.
    """
    if known is None:
        try:
            return Store(path, **settings)
        except DamagedError:
            pass
    aside = quarantine(path)
    found = salvage(aside, settings["vfs"])
    store = Store(path, **settings)
    try:
        _take_over(store, found, known)
    except BaseException:
        store.abandon()
        raise
    return store


def _take_over(store: Store, found: Salvaged, known: Sequence[int] | None) -> None:
    """Put salvaged records into a new store, and count what is missing."""
    saved = [0] * len(PRIORITIES)
    for record in found.records:
        saved[record.priority] += 1
    for name, count in found.losses.items():
        store.unwritten[str(name)] = int(count)
    store.unwritten["damaged.stores"] = store.unwritten.get("damaged.stores", 0) + 1
    for priority, count in enumerate(known or ()):
        if count > saved[priority]:
            name = f"damaged.{PRIORITIES[priority]}"
            store.unwritten[name] = store.unwritten.get(name, 0) + count - saved[priority]
    if found.records:
        store.add(found.records)
    store.write_down()
