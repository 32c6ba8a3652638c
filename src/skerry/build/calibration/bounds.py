"""Bounds: what a sample says with certainty about the mean it was drawn from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
VARIANCE_AT_FIRST = 0.05
"""What bets take the variance of a loss to be before any was seen: a local answer differs from the cloud's in about
one case of twenty where it is sure at all. A wrong guess costs power, never validity."""
WEIGHT_AT_FIRST = 10.0
"""How many losses that guess counts for."""
LARGEST_BET = 0.95
"""Share of the capital that a bet may lose at once: with all of it, a single bad loss would end the game."""


def betting_log_capital(losses: Floats, epsilon: float, delta: float) -> float:
    """Return the logarithm of the most that a gambler against "the mean loss is above epsilon" ever held, from 1 on.

    Where the mean loss is at least ``epsilon``, the chance that this ever reaches ``log(1 / delta)`` is at most
    ``delta`` (Ville's inequality). The bets are those for a horizon of n with the variance seen so far, of Waudby-Smith
    and Ramdas: Estimating means of bounded random variables by betting (2024), section 3 and appendix B.

    Parameters
    ----------
    losses:
        Numbers from -1 to 1 of shape (n,), in an order that does not depend on them.
    epsilon, delta:
        The mean that is doubted, above 0 and below 1, and one minus the certainty.
    """
    count = len(losses)
    if not count:
        return 0.0
    steps = np.arange(1, count + 1)
    means = np.cumsum(losses) / (steps + WEIGHT_AT_FIRST)
    spent = VARIANCE_AT_FIRST * WEIGHT_AT_FIRST + np.cumsum((losses - means) ** 2)
    variances = np.concatenate([[VARIANCE_AT_FIRST], (spent / (steps + WEIGHT_AT_FIRST))[:-1]])
    bets = np.minimum(np.sqrt(2 * math.log(1 / delta) / (count * variances)), LARGEST_BET / (1 - epsilon))
    return max(0.0, float(np.cumsum(np.log1p(bets * (epsilon - losses))).max()))


def betting_upper_bound(losses: Floats, delta: float, *, steps: int = 20) -> float:
    """Return the least epsilon that :func:`betting_log_capital` rejects, to ``2**-steps``; 1 where it rejects none.

    Each epsilon is tested at ``delta`` by itself, so that this is the bound at one threshold that was fixed before.
    """
    low, high, wanted = 0.0, 1.0, math.log(1 / delta)
    for _ in range(steps):
        middle = (low + high) / 2
        if betting_log_capital(losses, middle, delta) >= wanted:
            high = middle
        else:
            low = middle
    return high


def binomial_tail(successes: int, count: int, rate: float) -> float:
    """Return the chance of at most ``successes`` in ``count`` tries that succeed at ``rate``, exactly.

    >>> round(binomial_tail(0, 10, 0.1), 6)
    0.348678
    """
    if successes >= count or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    logs = [_log_chance(number, count, rate) for number in range(successes + 1)]
    top = max(logs)
    return min(1.0, math.exp(top) * math.fsum(math.exp(log - top) for log in logs))


def _log_chance(number: int, count: int, rate: float) -> float:
    ways = math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
    return ways + number * math.log(rate) + (count - number) * math.log1p(-rate)


def binomial_upper_bound(successes: int, count: int, delta: float, *, steps: int = 40) -> float:
    """Return the Clopper-Pearson upper bound of a rate: with chance ``1 - delta`` the true one is not above it."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if binomial_tail(successes, count, middle) > delta:
            low = middle
        else:
            high = middle
    return high
