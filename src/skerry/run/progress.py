"""Progress: up to which position everything that a source read is settled."""

from __future__ import annotations

import threading
from typing import Any


class Progress:
    """Keeps the low-water mark of one source; records may settle in any order and from any thread."""

    def __init__(self, position: Any = None) -> None:
        self._lock = threading.Lock()
        self._low = 0
        self._done: dict[int, Any] = {}
        self._position = position

    def settle(self, sequence: int, position: Any) -> None:
        """Note that the record with this sequence number met its fate; a second time is ignored."""
        with self._lock:
            if sequence <= self._low:
                return
            if sequence != self._low + 1:
                self._done[sequence] = position
                return
            self._advance(sequence, position)
            while (following := self._low + 1) in self._done:
                self._advance(following, self._done.pop(following))

    def _advance(self, sequence: int, position: Any) -> None:
        self._low = sequence
        if position is not None:
            self._position = position

    def position(self) -> Any:
        """Return the position after the last record before which everything is settled."""
        with self._lock:
            return self._position
