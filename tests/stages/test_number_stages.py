"""The stages that work on numbers one by one: normalize, standardize, anomaly, threshold, hysteresis, debounce."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.run.moments import Moments, weight_of_half_life
from skerry.run.stages.anomaly import AnomalyStage
from skerry.run.stages.debounce import DebounceStage
from skerry.run.stages.hysteresis import HysteresisStage
from skerry.run.stages.normalize import NormalizeStage
from skerry.run.stages.standardize import StandardizeStage
from skerry.run.stages.threshold import ThresholdStage
from skerry.spec.errors import StageError
from skerry.testing.stages import decode_options, open_stage, records


def series(stage: Any, values: Any, name: str = "x") -> list[Any]:
    """Return for each value what became of the record's fields, ``None`` where it was stopped."""
    outcomes = [stage.process(record) for record in records([{name: value} for value in values])]
    return [None if outcome is None else outcome.fields for outcome in outcomes]


def test_normalize_scales_numbers_and_arrays(tmp_path: Path) -> None:
    options = {"ranges": {"x": {"min": 10, "max": 20}}, "to": [-1, 1], "clip": True}
    stage = open_stage(NormalizeStage, options, tmp_path)
    assert [fields["x"] for fields in series(stage, [10, 15.0, numpy.float32(20), 99])] == [-1, 0, 1, 1]
    array = series(stage, [numpy.array([10, 15, 99], numpy.float32)])[0]["x"]
    assert array.dtype == numpy.float32
    assert array.tolist() == [-1, 0, 1]


def test_normalize_makes_vectors_unit_length(tmp_path: Path) -> None:
    stage = open_stage(NormalizeStage, {"unit_length": ["x"], "suffix": "_unit"}, tmp_path)
    given_vector = numpy.array([3, 4], numpy.float32)
    fields = series(stage, [given_vector])[0]
    assert fields["x_unit"] == pytest.approx([0.6, 0.8])
    assert fields["x_unit"].dtype == numpy.float32
    assert fields["x"] is given_vector
    assert series(stage, [[0, 0]])[0]["x_unit"].tolist() == [0, 0]
    with pytest.raises(StageError, match="array or list of numbers"):
        series(stage, [["a", "b"]])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_running_moments_are_those_of_the_whole(values: list[float]) -> None:
    moments = Moments()
    for value in values:
        moments.update(value)
    assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert moments.deviation == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-3)


def test_recent_values_count_more_with_a_half_life() -> None:
    moments = Moments(weight_of_half_life(10))
    for value in [0.0] * 1000 + [1.0] * 10:
        moments.update(value)
    assert moments.mean == pytest.approx(0.5)


def test_standardize_by_given_statistics(tmp_path: Path) -> None:
    stage = open_stage(StandardizeStage, {"fields": {"x": {"mean": 4, "std": 2}}}, tmp_path)
    assert series(stage, [8])[0]["x"] == 2.0
    assert series(stage, [[4, 6]])[0]["x"].tolist() == [0.0, 1.0]


def test_standardize_warms_up_then_answers_by_what_was_before(tmp_path: Path) -> None:
    stage = open_stage(StandardizeStage, {"fields": ["x"], "warm_up": 4}, tmp_path)
    answers = series(stage, [1, 3, 1, 3, 4, math.nan])
    assert answers[:4] == [None] * 4
    assert answers[4]["x"] == pytest.approx(2.0)  # mean 2, deviation 1
    assert math.isnan(answers[5]["x"])
    zero = open_stage(StandardizeStage, {"fields": ["x"], "warm_up": 2, "on_warm_up": "zero"}, tmp_path)
    assert series(zero, [5])[0]["x"] == 0.0


def test_standardize_is_finite_on_a_constant(tmp_path: Path) -> None:
    stage = open_stage(StandardizeStage, {"fields": ["x"], "warm_up": 2}, tmp_path)
    answers = series(stage, [5.0] * 4 + [6.0])
    assert answers[3]["x"] == 0.0
    assert math.isfinite(answers[4]["x"])


@pytest.mark.parametrize("method", ["zscore", "mahalanobis"])
def test_anomaly_scores_an_outlier_far_above_the_usual(tmp_path: Path, method: str) -> None:
    options = {"fields": ["x"], "warm_up": 20, "method": method}
    stage = open_stage(AnomalyStage, options, tmp_path)
    usual = numpy.random.default_rng(7).normal(50, 2, 300)
    scores = [fields["anomaly"] for fields in series(stage, [*usual, 80.0])]
    assert scores[:20] == [0.0] * 20
    assert max(scores[30:-1]) < 6
    assert scores[-1] > 10


def test_anomaly_names_the_field_and_sees_a_strange_combination(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(3).normal(0, 1, (400, 2))
    together = [{"x": float(a), "y": float(a + 0.1 * b)} for a, b in noise]
    strange = {"x": 1.0, "y": -1.0}
    cloud = open_stage(AnomalyStage, {"fields": ["x", "y"], "method": "mahalanobis"}, tmp_path)
    axes = open_stage(AnomalyStage, {"fields": ["x", "y"]}, tmp_path)
    last = {}
    for name, stage in (("cloud", cloud), ("axes", axes)):
        last[name] = [stage.process(record).fields for record in records([*together, strange])][-1]
    assert last["cloud"]["anomaly"] > 5
    assert last["axes"]["anomaly"] < 3
    assert axes.process(records([{"x": 0.0, "y": 90.0}])[0]).fields["anomaly_field"] == "y"


def test_anomaly_does_not_learn_a_fault_until_it_has_become_usual(tmp_path: Path) -> None:
    options = {"fields": ["x"], "warm_up": 10, "learn_below": 5, "relearn": 20, "half_life": 10}
    stage = open_stage(AnomalyStage, options, tmp_path)
    series(stage, [0.0, 1.0] * 20)
    scores = [fields["anomaly"] for fields in series(stage, [100.0] * 100)]
    assert min(scores[:20]) > 50
    assert scores[-1] < 5
    assert series(stage, [math.inf])[0]["anomaly"] == math.inf


def test_threshold_marks_and_filters(tmp_path: Path) -> None:
    stage = open_stage(ThresholdStage, {"field": "x", "above": 80, "below": 10, "label": "odd"}, tmp_path)
    assert [fields["odd"] for fields in series(stage, [80, 81, 10, 9, math.nan])] == [False, True, False, True, False]
    only = open_stage(ThresholdStage, {"field": "x", "above": 1, "only": True}, tmp_path)
    assert [fields is not None for fields in series(only, [1, 2])] == [False, True]


def test_hysteresis_switches_at_two_limits(tmp_path: Path) -> None:
    stage = open_stage(HysteresisStage, {"field": "x", "on": 8, "off": 5}, tmp_path)
    answers = series(stage, [7, 8, 6, math.nan, 5, 7])
    assert [fields["active"] for fields in answers] == [False, True, True, True, False, False]
    assert [fields["changed"] for fields in answers] == [False, True, False, False, True, False]
    low = open_stage(HysteresisStage, {"field": "x", "on": 2, "off": 5, "only_changes": True}, tmp_path)
    assert [fields and fields["active"] for fields in series(low, [4, 2, 4, 5])] == [None, True, None, False]


@given(st.lists(st.floats(0, 10), max_size=60))
def test_hysteresis_is_on_above_and_off_below(values: list[float]) -> None:
    stage = HysteresisStage(decode_options(HysteresisStage, {"field": "x", "on": 7, "off": 3}))
    before = False
    for value, fields in zip(values, series(stage, values), strict=True):
        assert fields["active"] is (value >= 7 or (value > 3 and before))
        assert fields["changed"] is (fields["active"] != before)
        before = fields["active"]


def test_hysteresis_keeps_keys_apart_and_forgets_the_oldest(tmp_path: Path) -> None:
    stage = open_stage(HysteresisStage, {"field": "x", "on": 8, "off": 5, "key": "k", "max_keys": 2}, tmp_path)
    several = records([{"k": key, "x": value} for key, value in [("a", 9), ("b", 6), ("a", 6), ("c", 6), ("b", 6)]])
    assert [stage.process(record).fields["active"] for record in several] == [True, False, True, False, False]


def test_debounce_passes_what_lasts(tmp_path: Path) -> None:
    stage = open_stage(DebounceStage, {"holds": "x > 0", "hold": "2s"}, tmp_path)
    passed = [fields is not None for fields in series(stage, [1, 1, 0, 1, 1, 1, 1])]
    assert passed == [False, False, False, False, False, True, True]
    once = open_stage(DebounceStage, {"holds": "x > 0", "count": 2, "once": True}, tmp_path)
    passed = [fields is not None for fields in series(once, [1, 1, 1, 0, 1, 1])]
    assert passed == [False, True, False, False, False, True]


def test_debounce_goes_by_the_time_in_a_field(tmp_path: Path) -> None:
    stage = open_stage(DebounceStage, {"field": "on", "hold": "1m", "time": "at"}, tmp_path)
    times = ["2026-11-22T08:00:00Z", "2026-11-22T08:00:59+00:00", "2026-11-22T09:01:00+01:00"]
    several = records([{"on": numpy.True_, "at": time} for time in times])
    assert [stage.process(record) is not None for record in several] == [False, False, True]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ThresholdStage, {"field": "x"}),
        (ThresholdStage, {"field": "x", "above": 1, "below": 2}),
        (HysteresisStage, {"field": "x", "on": 1, "off": 1}),
        (DebounceStage, {"field": "x"}),
        (DebounceStage, {"field": "x", "hold": 5}),
        (DebounceStage, {"field": "x", "holds": "x", "count": 1}),
        (NormalizeStage, {"ranges": {"x": {"min": 1, "max": 1}}}),
        (NormalizeStage, {}),
        (StandardizeStage, {"fields": {"x": {"mean": 0, "std": 0}}}),
        (StandardizeStage, {"fields": []}),
        (AnomalyStage, {"fields": []}),
    ],
)
def test_impossible_options_are_refused(kind: Any, options: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_options(kind, options)
