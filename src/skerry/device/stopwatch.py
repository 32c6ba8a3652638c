"""The stopwatch of the measurements: how long one round of work takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Rounds(NamedTuple):
    """Seconds that one round takes, and how many rounds were timed."""

    seconds: float
    times: int


def time_rounds(work: Callable[[], object], *, limit_s: float, sustained: bool) -> Rounds:
    """Repeat ``work`` for about ``limit_s`` seconds, after one round to warm up, and at least three times.

    Parameters
    ----------
    work:
        One round.
    limit_s:
        Seconds to spend.
    sustained:
        Take the mean instead of the shortest round. Under a CPU quota a short round runs at full speed until the
        quota of the period is spent, so that the shortest promises what cannot be kept.
    """
    work()
    shortest, times = float("inf"), 0
    began = now = time.perf_counter()
    while times < 3 or now - began < limit_s:
        started = now
        work()
        now = time.perf_counter()
        shortest = min(shortest, now - started)
        times += 1
    return Rounds((now - began) / times if sustained else shortest, times)
