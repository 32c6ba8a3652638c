"""The objective: who may be compared with whom, and by how much one is at least as fast. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bench.measuring import Samples
from skerry.build import bootstrap


class Standing(NamedTuple):
    """One on the field: its quality, and what it took in each turn; the turns of all are the same."""

    name: str
    quality: float
    taken: Samples

    def speed(self, other: Standing) -> Samples:
        """Return, turn by turn, how many times as fast this one was as the other."""
        return other.taken.over(self.taken)


class Comparison(NamedTuple):
    """One beside all those who answer no worse: turn by turn against the one it comes off worst beside."""

    hardest: str
    speed: Samples
    lower: float
    against: dict[str, float]


def lower_bound(ratios: Samples) -> float:
    """Return the lower end of the 95 % interval of the median (percentile bootstrap over turns, seeded)."""
    import numpy as np

    return bootstrap.median(np.array(ratios.values)).low


def rivals(mine: Standing, others: Iterable[Standing]) -> list[Standing]:
    """Return those who answer no worse; one that is better by a hair counts, one that is worse by a hair not."""
    return [other for other in others if other.quality >= mine.quality]


def compared(mine: Standing, others: Sequence[Standing]) -> Comparison | None:
    """Hold one against everybody of no lower quality, and return the one beside whom it comes off worst.

    That one is found by the lower bound itself, so that it makes no difference which peer happened to be the fastest
    in this run. ``None`` when nobody answers as well.
    """
    found = [(lower_bound(mine.speed(other)), other) for other in rivals(mine, others)]
    if not found:
        return None
    lower, hardest = min(found, key=lambda pair: (pair[0], pair[1].name))
    against = {other.name: mine.speed(other).median for _, other in found}
    return Comparison(hardest.name, mine.speed(hardest), lower, against)


def fastest(standings: Sequence[Standing]) -> Standing:
    """Return the one with the least median; the first of several alike."""
    return min(standings, key=lambda one: one.taken.median)


def unbeaten(mine: Sequence[Standing], peers: Sequence[Standing], *, share: float = 0.98) -> list[str]:
    """Return the peers that none of ours is at least as good and as fast as.

    As fast is whose lower bound of the speed against the peer is at least ``share``: a tie cannot be measured as 1.
    """

    def beats(own: Standing, peer: Standing) -> bool:
        return own.quality >= peer.quality and lower_bound(own.speed(peer)) >= share

    return [peer.name for peer in peers if not any(beats(own, peer) for own in mine)]


def standings(quality: Mapping[str, float], taken: Mapping[str, Samples]) -> dict[str, Standing]:
    """Return the standing of everybody who has both a quality and times."""
    return {name: Standing(name, quality[name], taken[name]) for name in taken if name in quality}
