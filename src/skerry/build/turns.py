"""Turns: how long the baseline and a candidate took on the same texts, one after the other, and what that says. Pure.

A turn is a few texts that the baseline answers and then the candidate. What disturbs a machine lasts longer than a
turn, so it meets both, and their ratio within a turn is far steadier than either of their times.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.build import bootstrap
from skerry.build.exchange import Times
from skerry.build.figures import Estimate
from skerry.spec.ports import Array

LENGTHS = (8, 16, 32, 64, 128, 256, 512)
"""Tokens: a text belongs to the first that it fits into."""

LEAST_ITEMS = 5
"""Fewer times of one length are not worth a line."""


class LengthFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on texts of up to ``tokens`` tokens, and more than the length before."""

    tokens: int
    items: int
    latency_p50_ms: Estimate
    speedup: Estimate


class Turns:
    """Times in milliseconds, gathered turn by turn; every turn has the same number of texts."""

    def __init__(self) -> None:
        self._places: list[Sequence[int]] = []
        self._baseline: list[Times] = []
        self._candidate: list[Times] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, places: Sequence[int], baseline: Times, candidate: Times) -> None:
        """Add a turn: the places of its texts, and the times of both on them, in the same order."""
        self._places.append(places)
        self._baseline.append(baseline)
        self._candidate.append(candidate)

    @property
    def cpu_ms(self) -> float:
        """The candidate's processor time in all turns, the leads included."""
        return sum(times.cpu_ms for times in self._candidate)

    @property
    def preempted(self) -> float:
        """The share of turns in which another process took a core from the baseline or from the candidate."""
        pairs = zip(self._baseline, self._candidate, strict=True)
        return sum(bool(one.preempted or other.preempted) for one, other in pairs) / max(1, len(self))

    def speedup(self, *, seed: int = 0, resamples: int = bootstrap.RESAMPLES) -> Estimate:
        """Return the baseline's time divided by the candidate's: the median of the turns, since some are disturbed."""
        baseline, candidate = self._times()
        return bootstrap.median(baseline.sum(axis=1) / candidate.sum(axis=1), seed=seed, resamples=resamples)

    def cpu_speedup(self, *, seed: int = 0) -> Estimate:
        """Return the baseline's processor time divided by the candidate's, the median of the turns.

        On a machine that does other work too it is steadier than the time that passed. It tells nothing of what more
        threads gain.
        """
        import numpy as np

        baseline, candidate = (
            np.maximum([times.cpu_ms for times in side], 1e-6) for side in (self._baseline, self._candidate)
        )  # fmt: skip
        return bootstrap.median(baseline / candidate, seed=seed)

    def is_tight(self, tightness: float, *, seed: int = 0) -> bool:
        """Return whether the interval of the speedup reaches no further than ``tightness`` of it to either side."""
        speedup = self.speedup(seed=seed, resamples=200)
        return max(speedup.high - speedup.value, speedup.value - speedup.low) <= tightness * speedup.value

    def latency(self, percent: float, *, seed: int = 0) -> Estimate:
        """Return a percentile of the candidate's times of single texts, in milliseconds."""
        return bootstrap.percentile(self._times()[1], percent, seed=seed)

    def lengths(self, tokens: Sequence[int], *, seed: int = 0) -> tuple[LengthFigures, ...]:
        """Return the figures of each length that the texts have; ``tokens`` are those of the text at each place."""
        import numpy as np

        baseline, candidate = (times.ravel() for times in self._times())
        lengths = np.array([tokens[place] for turn in self._places for place in turn])
        found = []
        for low, high in zip((0, *LENGTHS), LENGTHS, strict=False):
            chosen = (lengths > low) & (lengths <= high)
            items = int(chosen.sum())
            if items >= LEAST_ITEMS:
                mine, other = candidate[chosen], baseline[chosen]
                found.append(
                    LengthFigures(
                        tokens=high, items=items, latency_p50_ms=bootstrap.median(mine, seed=seed),
                        speedup=bootstrap.median(other / mine, seed=seed),
                    )
                )  # fmt: skip
        return tuple(found)

    def _times(self) -> tuple[Array, Array]:
        """Return both times as float64 of shape (turns, texts of a turn); none is 0, however coarse the clock."""
        import numpy as np

        baseline, candidate = (
            np.maximum([times.milliseconds for times in side], 1e-6) for side in (self._baseline, self._candidate)
        )  # fmt: skip
        return baseline, candidate
