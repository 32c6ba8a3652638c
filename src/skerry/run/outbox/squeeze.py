"""The squeeze: how a store gets by on a disk that others have filled, and how it notices that there is room again.

A database that grows finds out only when its log is brought in that there is no space, and then neither the log nor the
database can go on: not even for deleting. So on the first such failure the ballast is given up, the log is brought in
with its space, what is left of it becomes free pages of the database before others take it, and from then on the
database may not grow (``max_page_count``): a record that does not fit fails at once, and can take the place of others.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from skerry.run.outbox.database import DiskFullError, load_apsw

if TYPE_CHECKING:
    from skerry.run.outbox.store import Store

PAGE_BYTES = 4096
FILL = "CREATE TABLE IF NOT EXISTS filler (content); INSERT INTO filler VALUES (zeroblob(?))"
"""Takes up space, which :data:`EMPTY` turns into free pages."""
EMPTY = "DROP TABLE IF EXISTS filler"
_UNLIMITED = 2**32 - 2  # pages: the most that SQLite takes


class Squeeze:
    """Whether a store is squeezed, and what is done about it.

    Parameters
    ----------
    store:
        The store.
    most:
        Bytes that are claimed at the most: those of the ballast.
    step:
        Bytes that are claimed at once: what the log has room for.
    """

    def __init__(self, store: Store, most: int, step: int) -> None:
        self._store = store
        self._most = most
        self._step = step
        self.on = False

    def find_space(self) -> None:
        """Make room on a full disk, or notice that there is some again."""
        store = self._store
        if store.ballast.room_to_spare():
            self.relax()
            return
        store.ballast.give_up()
        if store.checkpoint() and not self.on:
            self._claim()
            self._limit(store.path.stat().st_size // PAGE_BYTES)
            self.on = True

    def relax(self) -> None:
        """Let the database grow again."""
        if self.on:
            self._limit(_UNLIMITED)
            self.on = False

    def _limit(self, pages: int) -> None:
        with contextlib.suppress(load_apsw().Error):
            self._store.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    def _claim(self) -> None:
        """Turn what is free on the disk, up to the size of the ballast, into free pages of the database."""
        store, left = self._store, self._most
        with contextlib.suppress(DiskFullError):
            while left >= self._step and store.ballast.free_bytes() >= 2 * self._step:
                store.within(lambda: store.connection.execute(FILL, (self._step,)))
                left -= self._step
                if not store.checkpoint():
                    break
        with contextlib.suppress(DiskFullError):
            store.within(lambda: store.connection.execute(EMPTY))
        store.checkpoint()
