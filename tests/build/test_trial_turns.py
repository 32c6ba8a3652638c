"""Turns and intervals: what times of both say, as values in and values out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build import bootstrap
from skerry.build.exchange import Times
from skerry.build.figures import Estimate
from skerry.build.turns import LENGTHS, Turns

times = st.floats(0.001, 1000.0)


def timed(milliseconds: list[float], preempted: int = 0) -> Times:
    return Times(milliseconds=milliseconds, cpu_ms=sum(milliseconds), preempted=preempted)


def turns_of(pairs: list[tuple[list[float], list[float]]]) -> Turns:
    turns = Turns()
    place = 0
    for baseline, candidate in pairs:
        turns.add(range(place, place + len(baseline)), timed(baseline), timed(candidate))
        place += len(baseline)
    return turns


def test_a_disturbance_that_meets_both_changes_nothing() -> None:
    quiet = [([8.0, 8.0], [2.0, 2.0])] * 20
    noisy = [([8.0 * (1 + turn % 3), 8.0], [2.0 * (1 + turn % 3), 2.0]) for turn in range(20)]
    assert turns_of(quiet).speedup().value == turns_of(noisy).speedup().value == 4


def test_one_outlier_changes_nothing() -> None:
    pairs = [([8.0], [2.0])] * 19 + [([8.0], [900.0])]
    assert turns_of(pairs).speedup().value == 4
    assert turns_of(pairs).latency(50).value == 2


def test_waiting_for_a_core_is_seen_and_costs_no_processor_time() -> None:
    turns = Turns()
    for turn in range(10):
        waited = Times(milliseconds=[2.0 + 50 * (turn % 2)], cpu_ms=2.0, preempted=turn % 2)
        turns.add([turn], Times(milliseconds=[8.0], cpu_ms=8.0), waited)
    assert turns.preempted == 0.5
    assert turns.cpu_speedup() == Estimate.exact(4)
    assert turns.cpu_ms == 20
    assert turns.speedup().low < 1


def test_an_interval_narrows_with_more_turns() -> None:
    draw = np.random.default_rng(0)

    def width(count: int) -> float:
        found = turns_of([([8.0 + draw.normal()], [2.0]) for _ in range(count)]).speedup()
        return found.high - found.low

    assert width(400) < width(16)
    assert turns_of([([4.0], [2.0])] * 8).is_tight(0.0)
    assert not turns_of([([float(1 + turn % 7)], [2.0]) for turn in range(8)]).is_tight(0.03)


@given(st.lists(st.tuples(times, times), min_size=1, max_size=30), times)
def test_the_speedup_does_not_depend_on_the_unit_and_lies_in_its_interval(
    pairs: list[tuple[float, float]], unit: float
) -> None:
    one = turns_of([([mine], [other]) for mine, other in pairs]).speedup()
    two = turns_of([([mine * unit], [other * unit]) for mine, other in pairs]).speedup()
    assert one.low <= one.value <= one.high
    assert two.value == pytest.approx(one.value, rel=1e-6, abs=1e-2)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80))
def test_every_text_belongs_to_one_length(tokens: list[int]) -> None:
    turns = turns_of([([4.0], [2.0]) for _ in tokens])
    found = {one.tokens: one for one in turns.lengths(tokens)}
    for low, high in zip((0, *LENGTHS), LENGTHS, strict=False):
        count = sum(low < length <= high for length in tokens)
        assert (found[high].items if high in found else 0) == (count if count >= 5 else 0)
    assert all(one.speedup.value == 2 and one.latency_p50_ms.value == 2 for one in found.values())


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    assert np.isfinite(turns_of([([0.0], [0.0])] * 3).speedup().value)


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    found = bootstrap.mean(values, seed=2)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05)


def test_a_seed_decides_the_interval() -> None:
    values = np.arange(50.0)
    assert bootstrap.mean(values, seed=1) == bootstrap.mean(values, seed=1) != bootstrap.mean(values, seed=2)


def test_one_item_has_no_interval() -> None:
    assert bootstrap.mean(np.array([3.0])).low == bootstrap.mean(np.array([3.0])).high == 3
