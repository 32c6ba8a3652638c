"""Delivery: an item is offered until it is taken or the run ends, and bad input is named without flooding the log."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from skerry.spec.ports import Emit, Fields, Log, Stop

T = TypeVar("T")

REFUSED_PAUSE_S = 0.02
"""Seconds between two offers of a refused item: short beside any pipeline, long beside a busy loop."""


def deliver(emit: Emit, stop: Stop, fields: Fields, *, size: int = 0, position: Any = None) -> bool:
    """Offer one item until it is taken; return ``False`` when the run ended first and it was never taken."""
    while not emit(fields, size=size, position=position):
        if stop.wait(REFUSED_PAUSE_S):
            return False
    return True


def read_position(position: Any | None, kind: type[T], log: Log) -> T | None:
    """Return a saved position as ``kind``; ``None`` for none, and for one that another kind of source left."""
    if position is None:
        return None
    try:
        return msgspec.convert(position, kind)
    except msgspec.ValidationError as error:
        log.warning("the saved position is of another kind of source (%s): starting afresh", error)
        return None


def is_of_session(position: Any, session: str) -> bool:
    """Tell whether a committed position is of this session; the engine may still hold one of an earlier run."""
    return isinstance(position, dict) and position.get("session") == session


class Complaints:
    """Counts bad input of one kind and logs the first few of it, then only every power of two."""

    first = 5

    def __init__(self, log: Log, noun: str) -> None:
        self.count = 0
        self._log = log
        self._noun = noun

    def add(self, where: str, why: str) -> None:
        """Count one more, at ``where``, because of ``why``."""
        self.count += 1
        if self.count <= self.first or self.count & (self.count - 1) == 0:
            self._log.warning("%s: %s skipped: %s (%d so far)", where, self._noun, why, self.count)
