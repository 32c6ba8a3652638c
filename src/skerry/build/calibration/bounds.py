"""Bounds: what a sample says with certainty about the mean it was drawn from."""

from __future__ import annotations

import functools
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

SPREAD_DOUBT = 0.05
"""Share of ``delta`` that is spent on how often both sides differ: what is left is for how often that costs."""
_WIDE, _FAR = 20.0, 60.0  # standard deviations and steps beyond which no chance is left that a float could hold


def signed_refuses(worse: int, better: int, count: int, epsilon: float, delta: float) -> bool:
    """Tell whether "the mean of losses that are -1, 0 or 1 is above epsilon" is refused at ``delta``, by an exact test.

    The statistic is the sum of the losses. Its chances depend on how often a loss is not 0, which nobody knows; they
    are worked out at an upper bound of that, whose doubt is part of ``delta`` (Berger, Boos: P values maximized over a
    confidence set for the nuisance parameter, 1994). That is the worst case: as long as at most every second loss is
    not 0, the sum plus n is one of independent Bernoulli tries, so that it has one peak, within 1 of its mean (Darroch,
    1964), and below the peak more spread makes every lower tail heavier. Where that does not hold, nothing is refused.

    Parameters
    ----------
    worse, better, count:
        How many losses are 1, how many are -1, and how many there are.
    """
    doubt, total = SPREAD_DOUBT * delta, worse - better
    spread = max(binomial_upper_bound(worse + better, count, doubt), epsilon) if count else 1.0
    if spread > 0.5 or total > (count - 1) * epsilon - 2:
        return False
    return signed_tail(total, count, (spread + epsilon) / 2, (spread - epsilon) / 2) + doubt <= delta


def signed_tail(total: int, count: int, worse: float, better: float) -> float:
    """Return the chance that ``count`` losses, 1 at the rate ``worse`` and -1 at ``better``, sum to at most ``total``.

    The chances of all sums come from the characteristic function by one Fourier transform, around their mean.
    """
    middle, deviation = round(count * (worse - better)), math.sqrt(count * (worse + better))
    size = 1 << math.ceil(math.log2(2 * (_WIDE * deviation + _FAR)))
    first = middle - size // 2
    if not first <= total < first + size:
        return float(total >= first)
    angles = 2 * np.pi * np.arange(size // 2 + 1) / size
    one = 1 - worse - better + worse * np.exp(1j * angles) + better * np.exp(-1j * angles)
    chances = np.fft.irfft(np.conj(one**count * np.exp(-1j * angles * first)), size)
    return float(np.clip(chances[: total - first + 1].sum(), 0.0, 1.0))


def signed_upper_bound(worse: int, better: int, count: int, delta: float, *, steps: int = 20) -> float:
    """Return the least epsilon that :func:`signed_refuses` refuses, to ``2**-steps``; 1 where it refuses none."""
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if signed_refuses(worse, better, count, middle, delta):
            high = middle
        else:
            low = middle
    return high


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
    numbers, ways = np.arange(successes + 1), _log_factorials(count)
    logs = ways[count] - ways[numbers] - ways[count - numbers]
    logs += numbers * math.log(rate) + (count - numbers) * math.log1p(-rate)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


@functools.lru_cache(4)
def _log_factorials(count: int) -> Floats:
    """Return the logarithms of 0! to count!."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


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
