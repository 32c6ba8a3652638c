"""Samples taken in turns."""

from __future__ import annotations

import gc
import math
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.measuring import Samples, collector_paused, interleaved, percentile, timed

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)


def test_candidates_run_in_turns_and_the_first_rounds_are_thrown_away() -> None:
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return float(len(order))

    samples = interleaved({name: lambda name=name: measure(name) for name in "abc"}, repeats=2, warm_up=1)
    assert "".join(order) == "abcbcacab"
    assert samples["a"].values == (6.0, 8.0)


def test_a_disturbance_of_a_whole_round_cancels() -> None:
    ours, theirs = Samples((1.0, 10.0, 2.0)), Samples((2.0, 20.0, 4.0))
    assert ours.over(theirs).values == (0.5, 0.5, 0.5)
    assert theirs.minus(ours).scaled(2.0).values == (2.0, 20.0, 4.0)


def test_samples_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="paired"):
        Samples((1.0,)).over(Samples((1.0, 2.0)))


def test_no_values_are_not_a_number() -> None:
    assert math.isnan(Samples(()).median) and math.isnan(Samples(()).spread)
    assert math.isnan(percentile([], 50))


@given(NUMBERS, st.floats(0, 100))
def test_a_percentile_lies_within_the_values(values: list[float], share: float) -> None:
    assert min(values) <= percentile(values, share) <= max(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_quartiles_agree_with_the_standard_library(values: list[float]) -> None:
    first, _, third = quantiles(values, n=4, method="inclusive")
    assert Samples(tuple(values)).spread == pytest.approx(third - first, abs=1e-6)


def test_the_collector_is_left_as_it_was_found() -> None:
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_timing_is_per_call() -> None:
    calls: list[None] = []
    timing = timed(lambda: calls.append(None), count=7)
    assert len(calls) == 7 and timing.wall_s >= 0.0 and timing.cpu_s >= 0.0
