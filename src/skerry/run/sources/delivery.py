"""Delivery: an item is offered until it is taken or the run ends, and bad input is named without flooding the log."""

from __future__ import annotations

from typing import Any

from skerry.spec.ports import Emit, Fields, Log, Stop

REFUSED_PAUSE_S = 0.02
"""Seconds between two offers of a refused item: short beside any pipeline, long beside a busy loop."""


def deliver(emit: Emit, stop: Stop, fields: Fields, *, size: int = 0, position: Any = None) -> bool:
    """Offer one item until it is taken; return ``False`` when the run ended first and it was never taken."""
    while not emit(fields, size=size, position=position):
        if stop.wait(REFUSED_PAUSE_S):
            return False
    return True


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
