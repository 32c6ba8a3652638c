"""Aggregates: one number (or value) out of those of a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Aggregate = Literal[
    "mean", "min", "max", "std", "sum", "count", "first", "last", "slope", "range", "energy", "rms", "list",
    "p05", "p25", "p50", "p75", "p95", "p99",
]  # fmt: skip

OF_ANYTHING: frozenset[str] = frozenset({"first", "last", "list", "count"})
"""Aggregates that take values of every type; the others take numbers."""


def aggregate(kind: str, values: Sequence[Any], times: Sequence[float]) -> Any:
    """Return the aggregate ``kind`` of ``values``, which stand in the order of ``times`` (seconds).

    There is none (``None``) for no values, except for ``count`` and ``sum`` (0) and ``list`` (empty).
    A result too large for floating point is infinite.
    """
    try:
        if kind == "slope":
            return slope(values, times)
        if kind[0] == "p":
            return percentile(values, int(kind[1:]) / 100.0)
        return _KINDS[kind](values)
    except (OverflowError, ValueError):
        return math.inf


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean."""
    return math.fsum(values) / len(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Return the population standard deviation (the divisor is n)."""
    if not values:
        return None
    middle = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - middle) * (value - middle) for value in values) / len(values))


def energy(values: Sequence[float]) -> float | None:
    """Return the sum of the squares."""
    return math.fsum(value * value for value in values) if values else None


def rms(values: Sequence[float]) -> float | None:
    """Return the square root of the mean of the squares."""
    return math.sqrt(math.fsum(value * value for value in values) / len(values)) if values else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which ``share`` of the values lie, interpolated linearly between the two nearest."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def slope(values: Sequence[float], times: Sequence[float]) -> float | None:
    """Return the slope of the least-squares line, in units of the value per second; 0 for values at one moment."""
    if not values:
        return None
    middle_time, middle = math.fsum(times) / len(times), math.fsum(values) / len(values)
    spread = math.fsum((time - middle_time) * (time - middle_time) for time in times)
    if spread == 0.0:
        return 0.0
    pairs = zip(times, values, strict=True)
    return math.fsum((time - middle_time) * (value - middle) for time, value in pairs) / spread


def _span(values: Sequence[float]) -> float | None:
    return max(values) - min(values) if values else None


_KINDS: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "mean": mean,
    "min": lambda values: min(values, default=None),
    "max": lambda values: max(values, default=None),
    "std": deviation,
    "sum": math.fsum,
    "count": len,
    "first": lambda values: values[0] if values else None,
    "last": lambda values: values[-1] if values else None,
    "range": _span,
    "energy": energy,
    "rms": rms,
    "list": list,
}
