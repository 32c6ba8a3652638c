"""Requests: what the command line wants done to a store that a process holds, which alone may write records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skerry.run.outbox import letters
from skerry.run.outbox.database import load_apsw, one_row, translated

if TYPE_CHECKING:
    from skerry.run.outbox.store import Store

Verb = Literal["replay", "drop"]
_LOOK_S = 0.05


def leave(path: Path, verb: Verb, ids: Sequence[int] | None, patience_s: float) -> bool:
    """Ask the process that holds a store to replay or drop dead letters; tell whether it was done in time.

    It looks once a second while it works. Raises ``OutboxError`` where the store cannot be written to.
    """
    sqlite = load_apsw()
    try:
        connection = sqlite.Connection(str(path), sqlite.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(int(patience_s * 1000) + 1)
        connection.execute("BEGIN IMMEDIATE")
        for number in [None] if ids is None else ids:
            connection.execute("INSERT INTO request (verb, letter) VALUES (?, ?)", (verb, number))
        last = one_row(connection, "SELECT max(id) FROM request")[0]
        connection.execute("COMMIT")
        ends = time.monotonic() + patience_s
        while (left := one_row(connection, "SELECT 1 FROM request WHERE id <= ?", (last,))) and time.monotonic() < ends:
            time.sleep(_LOOK_S)
        connection.close()
    except sqlite.Error as error:
        raise translated(error, path) from error
    return not left


def serve(store: Store) -> None:
    """Do what was asked for."""
    asked: list[tuple[Any, ...]] = store.read(
        lambda: store.connection.execute("SELECT id, verb, letter FROM request ORDER BY id").fetchall()
    )
    for number, verb, letter in asked:
        ids = None if letter is None else [int(letter)]
        if verb == "replay":
            letters.replay(store, ids)
        elif verb == "drop":
            letters.drop(store, ids)
        _strike(store, number)


def _strike(store: Store, number: int) -> None:
    store.transaction(lambda: store.connection.execute("DELETE FROM request WHERE id = ?", (number,)))
