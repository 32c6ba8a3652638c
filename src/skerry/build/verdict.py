"""The verdict: how figures stand against a budget, limit by limit. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from skerry.build.figures import Estimate, Figures
from skerry.spec.budget import Budget

_MOST_EXCESS = 1e9
"""Beyond any use, and still a number that JSON holds: a limit may be written as next to nothing."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of the budget: what it asks, what was measured, and by how much it is missed.

    ``excess`` is 0 where the limit holds; else the relative amount by which it would have to be relaxed. ``value`` is
    ``None`` where nothing could be measured, which misses the limit by all of it. ``risk`` is the excess that there
    would be if the worse end of the interval counted.
    """

    limit: str
    must: float
    value: float | None
    low: float | None = None
    high: float | None = None
    at_least: bool = False
    excess: float = 0.0
    risk: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the limit is kept."""
        return self.excess == 0.0


def verdict(budget: Budget, figures: Figures) -> tuple[Line, ...]:
    """Hold figures against every limit that the budget names.

    The measured value counts, not the end of its interval: a limit that only the interval breaks is shown by the
    interval in the report.
    """
    return tuple(_lines(budget, figures))


def total_excess(lines: tuple[Line, ...]) -> float:
    """Return by how much a budget is missed in all; 0 when every limit holds."""
    return sum(line.excess for line in lines)


def quality_risk(lines: tuple[Line, ...]) -> float:
    """Return by how much the quality may be missed on other texts; 0 when the worse end of its interval holds too."""
    return sum(line.risk for line in lines if line.limit.startswith("quality"))


def _lines(budget: Budget, figures: Figures) -> Iterator[Line]:
    if budget.quality is not None:
        quality = budget.quality
        found = figures.quality.get(quality.metric)
        yield _line(f"quality ({quality.metric})", quality.limit, found, at_least=not quality.lower_is_better)
    measured: dict[str, Estimate | None] = {
        "latency_p50": _scaled(figures.latency_p50_ms, 1e-3),
        "latency_p99": _scaled(figures.latency_p99_ms, 1e-3),
        "memory": Estimate.exact(figures.peak_bytes),
        "size": Estimate.exact(figures.size_bytes),
        "energy": None if figures.energy_j is None else Estimate.exact(figures.energy_j),
    }
    for limit, found in measured.items():
        most = getattr(budget, limit)
        if most is not None:
            yield _line(limit, float(most), found)


def _line(limit: str, must: float, found: Estimate | None, *, at_least: bool = False) -> Line:
    if found is None:
        return Line(limit=limit, must=must, value=None, at_least=at_least, excess=1.0, risk=1.0)
    worse = found.low if at_least else found.high
    return Line(
        limit=limit, must=must, value=found.value, low=found.low, high=found.high, at_least=at_least,
        excess=_excess(found.value, must, at_least), risk=_excess(worse, must, at_least),
    )  # fmt: skip


def _excess(value: float, must: float, at_least: bool) -> float:
    gap = must - value if at_least else value - must
    return min(max(0.0, gap) / abs(must), _MOST_EXCESS) if must else float(gap > 0)


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(estimate.value * factor, estimate.low * factor, estimate.high * factor)
