"""Halving: which candidates deserve more measuring time. Pure.

Successive halving (Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter Optimization, 2016):
all candidates get a short trial, the best third of them a longer one, and so on. What is on the Pareto front of quality
against latency stays as well, since the degrade ladder is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from skerry.build.figures import Figures
from skerry.build.verdict import quality_risk, total_excess, verdict
from skerry.spec.budget import Budget

SHARE = 3
"""One of so many goes on to the next rung: the value that the authors found to matter little between 2 and 4."""


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: texts for the quality, runs for the latency, and seconds that takes for a candidate."""

    texts: int
    runs: int
    seconds: float


RUNGS = (
    Rung(texts=60, runs=40, seconds=2.0),
    Rung(texts=200, runs=150, seconds=6.0),
    Rung(texts=500, runs=600, seconds=20.0),
)


def order(results: Mapping[str, Figures], budget: Budget, metric: str) -> list[str]:
    """Return candidates from the best to the worst.

    First come those that keep the budget, the fastest first; then the others, by how much they miss it. Fast is what
    has the greatest speedup, which was measured turn by turn beside the baseline: latencies of different trials meet
    different disturbances. Ties are broken by the better quality, then by name, so that equal measurements give equal
    results.
    """

    lower = budget.lower_is_better(metric)

    def key(name: str) -> tuple[float, float, float, str]:
        figures = results[name]
        return *merit(figures, total_excess(verdict(budget, figures)), metric, lower=lower), name

    return sorted(results, key=key)


def merit(figures: Figures, excess: float, metric: str, *, lower: bool = False) -> tuple[float, float, float]:
    """Return what candidates are sorted by, the best first; ``excess`` is by how much the budget is missed."""
    return excess, -figures.speedup.value, -worth(figures, metric, lower=lower)


def choice(results: Mapping[str, Figures], budget: Budget, metric: str) -> str:
    """Return the candidate to be used: of those that keep the budget, the fastest whose quality is beyond doubt.

    The fastest of many was often lucky with the texts that it was chosen by. So the worse end of the quality's interval
    has to hold as well; where it does for none, the one that would miss the least there is chosen. See ``order`` for
    what decides among equals.
    """

    return min(order(results, budget, metric), key=lambda name: _doubt(budget, results[name]))


def keeps(budget: Budget, figures: Figures) -> bool:
    """Tell whether a candidate keeps the budget, its quality at the worse end of the interval too."""
    return _doubt(budget, figures) == (0.0, 0.0)


def _doubt(budget: Budget, figures: Figures) -> tuple[float, float]:
    lines = verdict(budget, figures)
    return total_excess(lines), quality_risk(lines)


def front(results: Mapping[str, Figures], metric: str, *, lower: bool = False) -> list[str]:
    """Return the candidates that no other beats in both quality and speedup, the best quality first.

    ``lower`` tells that less of the metric is better.
    """

    def key(name: str) -> tuple[float, float, str]:
        return -worth(results[name], metric, lower=lower), -results[name].speedup.value, name

    ranked = sorted(results, key=key)
    kept: list[str] = []
    fastest = 0.0
    for name in ranked:
        if results[name].speedup.value > fastest:
            fastest = results[name].speedup.value
            kept.append(name)
    return kept


def survivors(results: Mapping[str, Figures], budget: Budget, metric: str, *, at_most: int | None = None) -> list[str]:
    """Return who goes on to the next rung: the best third, and the front; the best first.

    ``at_most`` limits them to what the time allows; at least one goes on.
    """
    if not results:
        return []
    ranked = order(results, budget, metric)
    count = max(1, math.ceil(len(ranked) / SHARE))
    best = ranked[:count]
    ahead = set(front(results, metric, lower=budget.lower_is_better(metric)))
    kept = best + [name for name in ranked[count:] if name in ahead]
    return kept[: max(1, at_most)] if at_most is not None else kept


def affordable(seconds_left: float, rungs: Sequence[Rung]) -> list[int]:
    """Return how many candidates each of the rungs can take in the time left, the first rung first.

    A third of the candidates goes on each time, so the rungs cost about ``n (s0 + s1/3 + s2/9 + …)`` seconds.
    """
    cost = sum(rung.seconds / SHARE**index for index, rung in enumerate(rungs))
    first = max(1, int(max(0.0, seconds_left) / cost))
    return [max(1, math.ceil(first / SHARE**index)) for index in range(len(rungs))]


def ladder(results: Mapping[str, Figures], chosen: str, metric: str, *, lower: bool = False) -> list[str]:
    """Return the rungs of the degrade ladder: the chosen one, then what is on the front and faster, one by one."""
    start = results[chosen].speedup.value
    ahead = front(results, metric, lower=lower)
    return [chosen, *(name for name in ahead if name != chosen and results[name].speedup.value > start)]


def worth(figures: Figures, metric: str, *, lower: bool = False) -> float:
    """Return a quality of which more is better, whichever way its metric goes; the worst where it was not measured."""
    found = figures.quality.get(metric)
    if found is None:
        return -math.inf
    return -found.value if lower else found.value
