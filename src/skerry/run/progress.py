"""Progress: up to which position everything that a source read is settled."""

from __future__ import annotations

import threading
from typing import Any


class Progress:
    """Keeps the low-water mark of one source; records may settle in any order and from any thread.

    What is settled beyond the mark is kept as runs of numbers without a gap, so that one record that is stuck for days
    does not cost memory for each of those that pass it.
    """

    def __init__(self, position: Any = None) -> None:
        self._lock = threading.Lock()
        self._low = 0
        self._runs: dict[int, tuple[int, Any]] = {}  # by first number: the last one, and the position after it
        self._firsts: dict[int, int] = {}  # the first number of a run by its last
        self._position = position

    def begin(self, sequence: int) -> None:
        """Note that this is the first record with a position: those before it are not waited for."""
        with self._lock:
            self._low = max(self._low, sequence - 1)

    def settle(self, sequence: int, position: Any) -> None:
        """Note that the record with this sequence number met its fate; a position of ``None`` changes none."""
        with self._lock:
            if sequence != self._low + 1:
                if sequence > self._low:
                    self._add(sequence, position)
                return
            self._low = sequence
            if position is not None:
                self._position = position
            if self._runs and sequence + 1 in self._runs:
                self._low, position = self._runs.pop(sequence + 1)
                del self._firsts[self._low]
                if position is not None:
                    self._position = position

    def _add(self, sequence: int, position: Any) -> None:
        """Add a number to the run that ends before it and the one that begins after it."""
        if sequence in self._runs or sequence in self._firsts:
            return  # settled before
        first, last = sequence, sequence
        if sequence - 1 in self._firsts:
            first = self._firsts.pop(sequence - 1)
            _, earlier = self._runs.pop(first)
            position = earlier if position is None else position
        if sequence + 1 in self._runs:
            last, later = self._runs.pop(sequence + 1)
            position = position if later is None else later
        self._runs[first] = (last, position)
        self._firsts[last] = first

    def position(self) -> Any:
        """Return the position after the last record before which everything is settled."""
        with self._lock:
            return self._position
