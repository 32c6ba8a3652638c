"""Running mean and variance of a stream, in constant memory."""

from __future__ import annotations

import math


class Moments:
    """Mean and population variance, either of all values so far or weighted towards the recent ones.

    The update is that of T. Finch, "Incremental calculation of weighted mean and variance" (2009). With the weight 1/n
    it is Welford's (1962), so that the first values, before ``1/n`` falls to ``floor``, are all weighted alike.

    Parameters
    ----------
    floor:
        The least weight of a new value, 0 to 1: 0 weighs all values alike, see :func:`weight_of_half_life`.
    """

    __slots__ = ("count", "floor", "mean", "variance")

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = floor
        self.count = 0
        self.mean = 0.0
        self.variance = 0.0

    def update(self, value: float) -> None:
        """Take in a finite value."""
        self.count += 1
        weight = max(1.0 / self.count, self.floor)
        difference = value - self.mean
        step = weight * difference
        self.mean += step
        self.variance = (1.0 - weight) * (self.variance + difference * step)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)

    def score(self, value: float) -> float:
        """Return how many standard deviations ``value`` is from the mean.

        A spread too small for floating point counts as the least that it can resolve, so the result is finite.
        """
        least = max(abs(self.mean), abs(value)) * 1e-9
        return (value - self.mean) / max(self.deviation, least, 1e-12)


def weight_of_half_life(values: float | None) -> float:
    """Return the weight of a new value for which an old one counts half after ``values`` more; 0 for ``None``."""
    return 0.0 if values is None else 1.0 - 0.5 ** (1.0 / values)
