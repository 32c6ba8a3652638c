"""Back-off: how long to wait after failures, so that a fleet does not come back all at once.

Source: "Exponential Backoff And Jitter", M. Brooker, AWS Architecture Blog, 2015, the formula named full jitter.
"""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[], float]
"""Returns a random number of [0, 1)."""

_MOST_DOUBLINGS = 60  # beyond, a float of seconds is no time any more


def full_jitter(failures: int, first_s: float, longest_s: float, draw: Draw) -> float:
    """Return the seconds to wait after ``failures`` failures in a row: uniform in [0, min(longest, first * 2^(n-1))).

    >>> full_jitter(3, 1.0, 300.0, lambda: 0.5)
    2.0
    """
    if failures < 1:
        return 0.0
    return draw() * min(longest_s, first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS))
