"""Foresight: how long the next exchange with a cloud will take, learned from the last ones."""

from __future__ import annotations

import math
import threading
from collections import deque

WINDOW = 128
"""Exchanges that count: enough for a 95 % quantile with a margin, few enough to follow a link that changes."""
DOUBT = 1.5
"""Factor on the longest exchange while there are too few for the quantile."""


class Foresight:
    """A quantile of the last exchanges' times, with the correction for their number; safe from any thread.

    The next of n exchangeable times is at most the ceil((n + 1) q)-th smallest with chance q at least (Vovk, Gammerman,
    Shafer: Algorithmic Learning in a Random World, 2005). A request that timed out counts as long as it was waited for.

    Parameters
    ----------
    quantile:
        The share of exchanges that the prediction is to cover, 0 to 1.
    stale_s:
        Seconds after which times are no longer believed: a link that was slow once is tried again.
    """

    def __init__(self, quantile: float, *, stale_s: float = 60.0) -> None:
        self._quantile, self._stale_s = quantile, stale_s
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._learned_s = -math.inf
        self._lock = threading.Lock()

    def learn(self, seconds: float, now_s: float) -> None:
        """Take in how long an exchange took."""
        with self._lock:
            self._times.append(seconds)
            self._learned_s = now_s

    def predict(self, now_s: float) -> float | None:
        """Return the seconds that the next exchange will need; ``None`` while nothing recent is known."""
        with self._lock:
            times = sorted(self._times)
            stale = now_s - self._learned_s > self._stale_s
        if not times or stale:
            return None
        place = math.ceil((len(times) + 1) * self._quantile)
        return times[place - 1] if place <= len(times) else times[-1] * DOUBT
