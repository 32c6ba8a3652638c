"""Omissions: what a search had no time for. The same one leaves out the same when it is asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skerry.build.cache import Cache


class Omissions:
    """What searches of one kind leave out.

    Parameters
    ----------
    key:
        All that decides what a search does, the time that it is given among it: more time is another search.
    """

    def __init__(self, cache: Cache, key: Mapping[str, Any]) -> None:
        self._cache = cache
        self._key = {"step": "search", "version": 1, **key}
        found = cache.find(self._key)
        self._before = None if found is None else frozenset(found.note.facts["left_out"])
        self._now: set[str] = set()

    def decided(self, what: str, is_late: bool) -> bool:
        """Tell whether to leave something out: as the search before did, or where there was none, if it is late."""
        out = is_late if self._before is None else what in self._before
        if out:
            self._now.add(what)
        return out

    def add(self, what: str) -> None:
        """Note what was begun and broken off."""
        self._now.add(what)

    def keep(self) -> None:
        """Remember them, at the end of a search."""
        if self._before is None:
            self._cache.entry(self._key, lambda folder: {"left_out": sorted(self._now)})
