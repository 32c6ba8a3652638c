"""The tally of a route: who answered, for what reason, and what it cost."""

from __future__ import annotations

import threading
from collections import Counter

from skerry.spec.summary import RouteState

FAILED = "failed"
"""The reason of a local answer that stands because the cloud gave none."""


class RouteTally:
    """Counts that balance: every item was answered by the cloud, from memory, or locally for one reason."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._local: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._money = 0.0

    def stood(self, reason: str, number: int = 1) -> None:
        """Count local answers that stood."""
        with self._lock:
            self._counts["items"] += number
            self._local[reason] += number

    def offloaded(self, *, agreed: bool, cached: bool) -> None:
        """Count an answer that the cloud gave, now or before."""
        with self._lock:
            self._counts["items"] += 1
            self._counts["cached" if cached else "answered"] += 1
            self._counts["agreed"] += agreed

    def fault(self, reason: str, number: int = 1) -> None:
        """Count what went wrong with an exchange."""
        with self._lock:
            self._faults[reason] += number

    def revised(self) -> None:
        """Count a better answer that came later."""
        with self._lock:
            self._counts["revised"] += 1

    def paid(self, money: float) -> None:
        """Count what an exchange cost."""
        with self._lock:
            self._money += money

    def state(self, *, threshold: float, alarmed: bool, waiting: int, requests: int, nbytes: int) -> RouteState:
        """Return what was counted so far."""
        with self._lock:
            counts = dict(self._counts)
            return RouteState(
                threshold=threshold, alarmed=alarmed, items=counts.get("items", 0),
                answered=counts.get("answered", 0), cached=counts.get("cached", 0), agreed=counts.get("agreed", 0),
                local=dict(self._local), faults=dict(self._faults), waiting=waiting,
                revised=counts.get("revised", 0), requests=requests, bytes=nbytes, money=self._money,
            )  # fmt: skip
