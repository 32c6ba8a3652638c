"""What a search knows before it measures: the model as it was given may fail, too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from skerry.build.artifact import Artifact
from skerry.build.contender import Failure
from skerry.build.figures import Estimate
from skerry.build.halving import RUNGS
from skerry.build.latency.prospects import PlannedTrials
from skerry.build.trial import Measured


class Remembered:
    """Trials whose figures are known already."""

    def __init__(self, quality: float) -> None:
        one = Estimate.exact(1.0)
        self._figures = Measured(
            quality={"mine:score": Estimate.exact(quality)}, latency_p50_ms=one, latency_p99_ms=one, speedup=one
        )

    def run(self, candidate: Artifact, rung: object, *, threads: int = 1, starts: int = 1) -> Measured:
        return self._figures

    def baseline(self, rung: object, *, starts: int = 1) -> Measured:
        return self._figures


@pytest.mark.parametrize("quality", [math.nan, math.inf, 0.5])
def test_a_baseline_whose_quality_is_no_number_fails_with_a_reason(quality: float, tmp_path: Path) -> None:
    trials: Any = Remembered(quality)
    baseline = Artifact(form="onnx", folder=tmp_path, file="m.onnx", files=("m.onnx",), source="given")
    answer = PlannedTrials(trials, baseline, None, None).baseline(RUNGS[0])
    if math.isfinite(quality):
        assert not isinstance(answer, Failure)
    else:
        assert answer == Failure(kind="error", reason="mine:score is no finite number")
