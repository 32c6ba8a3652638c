"""What a search knows before it measures: what was calibrated, and that the model as it was given may fail, too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from skerry.build import toolchain
from skerry.build.artifact import Artifact
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.figures import Estimate
from skerry.build.halving import RUNGS
from skerry.build.latency import calibration
from skerry.build.latency.prospects import PlannedTrials
from skerry.build.progress import Progress
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


def test_another_toolchain_asks_for_another_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: set[str] = set()
    monkeypatch.setattr(toolchain, "find", lambda name: name if name in installed else None)
    monkeypatch.setattr(calibration, "_measured", lambda *_: calibration.reference())  # which would take minutes
    cache = Cache(tmp_path)
    assert calibration.calibrated(cache) is None
    assert calibration.calibrate(cache, Progress(None), frozenset()) == calibration.reference()
    assert calibration.calibrated(cache) == calibration.reference()
    installed.add("torch")  # which makes no form of an encoder that rates are measured of
    assert calibration.calibrated(cache) is not None
    installed.add("litert")
    assert calibration.calibrated(cache) is None
