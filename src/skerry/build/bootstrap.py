"""A bootstrap: how far a figure would move if other items of the same kind had been measured.

The percentile bootstrap of Efron (*Bootstrap methods: another look at the jackknife*, Annals of Statistics 7, 1979):
the items are drawn again with replacement, the figure is taken of every drawing, and the middle 95 % of those are the
interval. Everything random comes from a seed, so that equal measurements give equal intervals.
"""

from __future__ import annotations

from collections.abc import Callable

from skerry.build.figures import Estimate
from skerry.spec.ports import Array

RESAMPLES = 1000
"""Drawings: the ends of the interval then stand within a tenth of its width from where endless drawings put them."""

LEVEL = 95.0
"""Percent of the drawings that an interval holds."""

Statistic = Callable[[Array], Array]
"""Takes drawings, int64 of shape (resamples, items) with the places of the items, and returns the figure of each."""


def estimate(statistic: Statistic, items: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Return a figure of ``items`` items and its 95 % interval.

    Parameters
    ----------
    statistic:
        The figure; the first drawing it is asked about is every item once.
    items:
        How many there are, at least one.
    """
    import numpy as np

    value = float(statistic(np.arange(items)[None])[0])
    if items == 1:
        return Estimate.exact(value)
    drawn = np.random.default_rng(seed).integers(0, items, (resamples, items))
    return spanned(value, statistic(drawn))


def spanned(value: float, drawings: Array) -> Estimate:
    """Return ``value`` with the middle 95 % of ``drawings``, float of shape (resamples,); the value is in it.

    The percentile interval of a skewed figure can leave out the figure itself by a hair, which no reader expects.
    """
    import numpy as np

    edge = (100.0 - LEVEL) / 2
    low, high = (float(bound) for bound in np.percentile(drawings, [edge, 100.0 - edge]))
    return Estimate(value, min(low, value), max(high, value))


def mean(values: Array, *, seed: int = 0) -> Estimate:
    """Return the mean of values, float of shape (items,), and its interval."""
    return estimate(lambda drawn: values[drawn].mean(axis=1), len(values), seed=seed)


def ratio(above: Array, below: Array, *, seed: int = 0) -> Estimate:
    """Return the ratio of two sums, such as errors by words, and its interval; both float of shape (items,).

    A drawing without anything below counts as 0.
    """
    import numpy as np

    def statistic(drawn: Array) -> Array:
        return np.asarray(above[drawn].sum(axis=1) / np.maximum(below[drawn].sum(axis=1), 1e-300))

    return estimate(statistic, len(above), seed=seed)


def median(values: Array, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Return the median of values, float of shape (items,), and its interval."""
    import numpy as np

    return estimate(lambda drawn: np.median(values[drawn], axis=1), len(values), seed=seed, resamples=resamples)


def percentile(values: Array, percent: float, *, seed: int = 0) -> Estimate:
    """Return a percentile of values, float of shape (turns, items in a turn), and its interval over turns.

    Whole turns are drawn, since the items of one turn share what disturbed it.
    """
    import numpy as np

    def statistic(drawn: Array) -> Array:
        return np.asarray(np.percentile(values[drawn].reshape(len(drawn), -1), percent, axis=1))

    return estimate(statistic, len(values), seed=seed)
