"""Prospects: what a search knows before it measures, and what its measurements mean for a device that is not here."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.build.artifact import Artifact
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.figures import Figures, plain
from skerry.build.findings import FigureName, not_finite
from skerry.build.halving import RUNGS, Rung
from skerry.build.latency.calibration import calibrated, reference
from skerry.build.latency.foresight import MARGIN, UNCALIBRATED_MARGIN, Foresight
from skerry.build.latency.planning import PREDICTED, Plan
from skerry.build.latency.rates import Parts
from skerry.build.measuring import RememberedTrials
from skerry.spec.budget import Budget


def foresight_of(
    budget: Budget, tokens: Sequence[int], cache: Cache, baseline: Artifact, plan: Plan | None = None
) -> Foresight:
    """Return the foresight for a model's forms: by this machine's calibration, else by the rates of another."""
    own = calibrated(cache)
    margin = MARGIN if own is not None else UNCALIBRATED_MARGIN
    return Foresight(budget, tokens, own or reference(), cache, baseline, plan, margin=margin)


def predicted(plan: Plan | None) -> tuple[FigureName, ...]:
    """Return the names of the figures that are reckoned instead of measured."""
    return PREDICTED if plan is not None else ()


class PlannedTrials:
    """Trials whose figures are those that are to be expected on the planned device; without a plan, as measured."""

    def __init__(
        self, trials: RememberedTrials, baseline: Artifact, foresight: Foresight | None, plan: Plan | None
    ) -> None:
        self._trials, self._baseline, self._foresight, self._plan = trials, baseline, foresight, plan

    def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Figures | Failure:
        """Measure a candidate here; see :meth:`skerry.build.trial.Trials.run`."""
        return self._reckoned(candidate, self._trials.run(candidate, rung, threads=threads, starts=starts))

    def baseline(self, rung: Rung, *, starts: int = 1) -> Figures | Failure:
        """Measure the model as it was given; a figure that is no finite number is a failure."""
        answer = self._reckoned(self._baseline, self._trials.baseline(rung, starts=starts))
        if not isinstance(answer, Failure) and (strange := not_finite(plain(answer))):
            return Failure(kind="error", reason=f"{strange} is no finite number")
        return answer

    def correct(self) -> None:
        """Let the foresight know how long the model as it was given takes here: the shortest trial, and remembered."""
        if self._foresight is None:
            return
        answer = self._trials.baseline(RUNGS[0])
        if not isinstance(answer, Failure):
            self._foresight.correct(answer)

    def _reckoned(self, artifact: Artifact, answer: Figures | Failure) -> Figures | Failure:
        if isinstance(answer, Failure) or self._plan is None:
            return answer
        return self._plan.reckoned(plain(answer), self._parts(artifact), self._parts(self._baseline))

    def _parts(self, artifact: Artifact) -> Parts | None:
        return None if self._foresight is None else self._foresight.parts(artifact)


def limited(budget: Budget, plan: Plan | None) -> bool:
    """Tell whether there is anything to be predicted: a limit, or a device."""
    limits = (budget.latency_p50, budget.latency_p99, budget.memory, budget.size)
    return plan is not None or any(each is not None for each in limits)
