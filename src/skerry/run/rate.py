"""A rate limit: at most so many actions in so much time, however many records ask."""

from __future__ import annotations

import threading
from collections import deque
from weakref import WeakValueDictionary


class RateLimit:
    """Allows ``at_most`` actions within any ``per_s`` seconds; 0 allows any number. Safe to use from any thread."""

    def __init__(self, at_most: int, per_s: float) -> None:
        self._at_most, self._per_s = at_most, per_s
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def allows(self, now_s: float) -> bool:
        """Tell whether an action may be done at ``now_s`` of the monotonic clock, and count it if so."""
        if not self._at_most:
            return True
        with self._lock:
            while self._times and now_s - self._times[0] >= self._per_s:
                self._times.popleft()
            if len(self._times) >= self._at_most:
                return False
            self._times.append(now_s)
            return True


class Gate:
    """What all workers of one action stage share: its rate limit, and how many actions run at once."""

    def __init__(self, at_most: int, per_s: float, concurrency: int) -> None:
        self.rate = RateLimit(at_most, per_s)
        self.slots = threading.BoundedSemaphore(concurrency)


_gates: WeakValueDictionary[tuple[str, str], Gate] = WeakValueDictionary()
_gates_lock = threading.Lock()


def gate_of(home: str, name: str, at_most: int, per_s: float, concurrency: int) -> Gate:
    """Return the gate of a stage by its pipeline's folder and its name; it lives as long as a worker holds it."""
    with _gates_lock:
        gate = _gates.get((home, name))
        if gate is None:
            gate = _gates[home, name] = Gate(at_most, per_s, concurrency)
        return gate
