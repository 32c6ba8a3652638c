"""A threshold: from which score on local answers may stand, with the certainty that was asked for.

Learn then Test (Angelopoulos, Bates, Candès, Jordan, Lei: Learn then Test, 2021): every threshold is a hypothesis
"local answers from this score on lose more than epsilon", and they are tested in a fixed sequence, the most careful
first, until one cannot be refused. The chance that any true one is refused is then at most delta, whatever the losses
look like and however many thresholds there are.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from skerry.build.calibration.bounds import (
    Floats,
    betting_log_capital,
    betting_upper_bound,
    binomial_tail,
    binomial_upper_bound,
    signed_refuses,
    signed_upper_bound,
)
from skerry.spec.errors import CalibrationError, TooFewError

Kind = Literal["signed", "disagreement", "distance"]
"""``signed``: what the local answer loses beyond the cloud's, by the right answers, from -1 to 1. ``disagreement``:
1 where the two differ, 0 where they agree; no right answers are needed. ``distance``: how far they are apart, 0 to 1.
The kind decides the test before any loss was seen: one that is picked by the sample may err twice as often."""
STEEPEST, STEPS = 12.0, 960
MOST_TIMES = 200
"""Times the sample that is there: who needs more is told that no sample will do."""


def grid() -> Floats:
    """Return the thresholds that are tested, the most careful first: fixed beforehand, dense near 0 and near 1.

    They are evenly spaced in the logarithm of the odds, as scores near certainty differ by factors; 0, which lets every
    local answer stand, is the last.
    """
    odds = np.linspace(STEEPEST, -STEEPEST, STEPS + 1)
    return np.append(1.0 / (1.0 + np.exp(-odds)), 0.0)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold of the curve: the share of local answers, their mean loss (over all texts), and the verdict."""

    threshold: float
    local_share: float
    loss: float
    held: bool


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold and what vouches for it.

    Parameters
    ----------
    threshold:
        Answers with at least this score stand; the others are worth asking the cloud for.
    local_share, loss:
        Of the sample: the share of answers that stand, and their mean loss.
    bound:
        The upper bound of the loss at this threshold alone, at the same certainty.
    kind, count:
        What loss was measured, on how many texts.
    curve:
        Every threshold that was tested and lets another share of answers stand.
    """

    threshold: float
    local_share: float
    loss: float
    bound: float
    kind: Kind
    count: int
    curve: tuple[Point, ...]


def certify(
    scores: npt.ArrayLike, losses: npt.ArrayLike, *, epsilon: float, delta: float, kind: Kind = "signed"
) -> Certified:
    """Return the least threshold whose loss is at most ``epsilon`` with chance ``1 - delta``.

    Parameters
    ----------
    scores:
        How sure the local side was of each text, 0 to 1, of shape (n,).
    losses:
        What its answer lost against the cloud's, of shape (n,); see :data:`Kind`.

    Raises
    ------
    TooFewError
        No threshold that lets a local answer stand can be vouched for yet; says how many more texts are needed.
    CalibrationError
        None ever could: the local side is wrong too often even where it is surest. Or the numbers are none.
    """
    score, loss = np.asarray(scores, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    _check(score, loss, epsilon, delta, kind)
    order = _drawn(score, loss)
    score, loss = score[order], loss[order]
    points = _tested(score, loss, epsilon, delta, kind)
    best = next((point for point in reversed(points) if point.held), None)
    if best is None or best.local_share == 0:
        raise _too_few(score, loss, epsilon, delta, kind)
    stands = np.where(score >= best.threshold, loss, 0.0)
    return Certified(
        threshold=best.threshold, local_share=best.local_share, loss=best.loss,
        bound=_bound(stands, delta, kind), kind=kind, count=len(score), curve=_thinned(points),
    )  # fmt: skip


def _drawn(score: Floats, loss: Floats) -> npt.NDArray[np.int64]:
    """Return an order that does not tell of the losses, as files are sorted by what they are about.

    It is drawn anew for each sample, and the same one for the same sample: one fixed order would be a lucky one for
    some way of sorting, and break the promise there every third time.
    """
    told = hashlib.sha256(np.ascontiguousarray([score, loss]).tobytes()).digest()
    return np.random.default_rng(list(told)).permutation(len(score))


def _check(score: Floats, loss: Floats, epsilon: float, delta: float, kind: Kind) -> None:
    if score.shape != loss.shape or score.ndim != 1:
        raise CalibrationError(f"{score.shape} scores and {loss.shape} losses", expected="one of each for every text")
    if not (np.isfinite(score).all() and np.isfinite(loss).all() and (np.abs(loss) <= 1).all()):
        raise CalibrationError("scores and losses are not all finite", expected="losses from -1 to 1")
    if kind == "disagreement" and not np.isin(loss, (0.0, 1.0)).all():
        raise CalibrationError("a disagreement is neither 0 nor 1", expected="the kind `distance`")
    if kind == "signed" and not np.isin(loss, (-1.0, 0.0, 1.0)).all():
        raise CalibrationError("a signed loss is neither -1, 0 nor 1", expected="labels that are right or wrong")
    if not (0 < epsilon < 1 and 0 < delta < 1):
        raise CalibrationError(
            f"a loss of {epsilon:g} at a certainty of {1 - delta:g} cannot be tested",
            expected="both above 0 and below 1",
        )


def _tested(score: Floats, loss: Floats, epsilon: float, delta: float, kind: Kind) -> list[Point]:
    """Test the thresholds in turn; the first that is not held ends the sequence, and the rest are told as not held."""
    points: list[Point] = []
    going = True
    for threshold in grid():
        stands = score >= threshold
        losses = np.where(stands, loss, 0.0)
        going = going and _holds(losses, epsilon, delta, kind)
        points.append(Point(
            threshold=float(threshold), local_share=float(stands.mean()) if len(score) else 0.0,
            loss=float(losses.mean()) if len(score) else 0.0, held=going,
        ))  # fmt: skip
    return points


def _holds(losses: Floats, epsilon: float, delta: float, kind: Kind) -> bool:
    """Tell whether "the mean loss is above epsilon" is refused at ``delta``."""
    if kind == "signed":
        return _refuses(int((losses > 0).sum()), int((losses < 0).sum()), len(losses), epsilon, delta)
    if kind == "disagreement":
        return binomial_tail(int(losses.sum()), len(losses), epsilon) <= delta
    return betting_log_capital(losses, epsilon, delta) >= math.log(1 / delta)


_refuses = functools.lru_cache(4096)(signed_refuses)  # neighbours on the grid often let the same answers stand


def _bound(losses: Floats, delta: float, kind: Kind) -> float:
    if kind == "signed":
        return signed_upper_bound(int((losses > 0).sum()), int((losses < 0).sum()), len(losses), delta)
    if kind == "disagreement":
        return binomial_upper_bound(int(losses.sum()), len(losses), delta)
    return betting_upper_bound(losses, delta)


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    """Leave out points that let the same answers stand as the one before: the lower threshold of the two is kept."""
    last = {round(point.local_share, 9): point for point in points if point.held}
    rest = {round(point.local_share, 9): point for point in reversed(points) if not point.held}
    return (*last.values(), *reversed(rest.values()))


def _too_few(score: Floats, loss: Floats, epsilon: float, delta: float, kind: Kind) -> CalibrationError:
    """Say how many more texts like these it would take, or that no number would do."""
    count = len(score)
    needed = needed_count(score, loss, epsilon=epsilon, delta=delta, kind=kind)
    if needed is None:
        return CalibrationError(
            f"local answers lose more than {epsilon:.3g} even where they are surest",
            expected="a local side that is right where it is sure",
            hint="build a better local model, or allow more with `max_quality_loss`; more texts would not help",
        )
    return TooFewError(
        f"{count} text{'' if count == 1 else 's'} are too few to vouch for a loss of at most {epsilon:.3g} "
        f"with a certainty of {1 - delta:.3g}",
        expected=f"{needed - count} more",
        hint="add texts like those that the pipeline will see to the calibration data",
    )


def needed_count(
    scores: npt.ArrayLike, losses: npt.ArrayLike, *, epsilon: float, delta: float, kind: Kind = "signed"
) -> int | None:
    """Return how many texts like these it takes to vouch for some local answers; ``None`` where no number will do.

    The sample is repeated until a threshold is held: an estimate that takes the sample for the truth.
    """
    score, loss = np.asarray(scores, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if not len(score):
        score, loss = np.ones(1), np.zeros(1)

    def enough(count: int) -> bool:
        return _vouches(np.resize(score, count), np.resize(loss, count), epsilon, delta, kind)

    most = max(1000, len(score)) * MOST_TIMES
    high = len(score)
    while not enough(high):
        if high >= most:
            return None
        high = min(most, 2 * high)
    low = max(len(score), high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _vouches(score: Floats, loss: Floats, epsilon: float, delta: float, kind: Kind) -> bool:
    """Tell whether any threshold that lets a local answer stand is held in the sequence."""
    top = float(score.max())
    for threshold in grid():
        if not _holds(np.where(score >= threshold, loss, 0.0), epsilon, delta, kind):
            return False
        if top >= threshold:
            return True
    return False
