"""Samples: repeated measurements taken in turns, with their median and spread.

On a machine with other work, two candidates are only comparable when they meet the same disturbances. So they run in
turns, in an order that rotates, and ratios are formed round by round before the median is taken.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

Measure = Callable[[], float]
"""Runs once and returns what it measured, in one unit (seconds, items per second, …)."""


class Samples(NamedTuple):
    """One figure measured ``runs`` times, in the order of the rounds."""

    values: tuple[float, ...]

    @property
    def runs(self) -> int:
        """How often it was measured."""
        return len(self.values)

    @property
    def median(self) -> float:
        """The middle value; NaN without values."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """The distance between the first and the third quartile, in the figure's unit; 0 for a single value."""
        return percentile(self.values, 75.0) - percentile(self.values, 25.0) if self.values else math.nan

    def over(self, other: Samples) -> Samples:
        """Divide round by round, so that a disturbance that hit a whole round cancels.

        Raises
        ------
        ValueError
            The two were not measured equally often.
        """
        return self._paired(other, lambda mine, theirs: mine / theirs)

    def minus(self, other: Samples) -> Samples:
        """Subtract round by round; raises ``ValueError`` as :meth:`over` does."""
        return self._paired(other, lambda mine, theirs: mine - theirs)

    def scaled(self, factor: float) -> Samples:
        """Multiply every value, for instance to change the unit."""
        return Samples(tuple(value * factor for value in self.values))

    def _paired(self, other: Samples, combine: Callable[[float, float], float]) -> Samples:
        if self.runs != other.runs:
            raise ValueError(f"{self.runs} runs cannot be paired with {other.runs}")
        return Samples(tuple(combine(mine, theirs) for mine, theirs in zip(self.values, other.values, strict=True)))


class Timing(NamedTuple):
    """What one call took, in seconds on the wall and seconds of this process's CPU time (all threads)."""

    wall_s: float
    cpu_s: float


def interleaved(measures: Mapping[str, Measure], *, repeats: int, warm_up: int = 1) -> dict[str, Samples]:
    """Measure every candidate ``repeats`` times in turns and return their samples by name.

    The order rotates by one from round to round, so that none always runs after the same neighbour. The first
    ``warm_up`` rounds are thrown away: caches, clocks and lazy imports settle there.
    """
    names = list(measures)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        shift = turn % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            value = measures[name]()
            if turn >= warm_up:
                taken[name].append(value)
    return {name: Samples(tuple(values)) for name, values in taken.items()}


def timed(function: Callable[[], object], *, count: int = 1) -> Timing:
    """Call ``function`` ``count`` times without the garbage collector and return the time of one call."""
    calls = range(count)
    with collector_paused():
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in calls:
            function()
        return Timing((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` percent lie, interpolated between neighbours; NaN without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100.0
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector out of what is measured, and leave it as it was found."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
