"""Copies: what the copies of one record share, so that the record is counted once."""

from __future__ import annotations

import threading

from skerry.spec.record import Fate

_RANK = {fate: rank for rank, fate in enumerate(Fate)}


class Copies:
    """Counts the copies that are still on their way, and keeps the best fate met so far."""

    __slots__ = ("_best", "_left", "_lock", "abandoned")

    def __init__(self, copies: int) -> None:
        self._left = copies
        self._best = Fate.FILTERED
        self._lock = threading.Lock()
        self.abandoned = False
        """Whether the end of the run cut a copy off, so that the record has to be read again."""

    def add(self, copies: int) -> None:
        """Announce ``copies`` more copies, made from one that is still on its way."""
        with self._lock:
            self._left += copies

    def settle(self, fate: Fate) -> Fate | None:
        """Report the end of one copy; return the record's fate when it was the last one."""
        with self._lock:
            if _RANK[fate] < _RANK[self._best]:
                self._best = fate
            self._left -= 1
            return None if self._left else self._best
