"""The statistics of a threshold: what is vouched for holds, what is too little is refused with a number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.build.calibration.bounds import (
    betting_log_capital,
    betting_upper_bound,
    binomial_tail,
    binomial_upper_bound,
    signed_refuses,
    signed_tail,
)
from skerry.build.calibration.threshold import certify, grid, needed_count
from skerry.spec.errors import CalibrationError, TooFewError

EPSILON, DELTA = 0.02, 0.1


def population(seed: int, count: int = 6000) -> tuple[Any, Any]:
    """Return scores, and signed losses that grow rarer with the score."""
    chance = np.random.default_rng(seed)
    scores = chance.uniform(size=count)
    worse = chance.uniform(size=count) < 0.25 * (1 - scores) ** 2
    better = ~worse & (chance.uniform(size=count) < 0.04 * (1 - scores))
    return scores, worse.astype(float) - better.astype(float)


def test_the_grid_falls_from_nearly_one_to_nothing() -> None:
    found = grid()
    assert found[0] > 0.99999 and found[-1] == 0.0
    assert (np.diff(found) < 0).all()


def test_a_threshold_keeps_its_promise_in_nine_of_ten_samples() -> None:
    scores, losses = population(0)
    chance = np.random.default_rng(1)
    broken = 0
    for _ in range(60):
        chosen = chance.integers(0, len(scores), 800)
        found = certify(scores[chosen], losses[chosen], epsilon=EPSILON, delta=DELTA)
        broken += float(np.where(scores >= found.threshold, losses, 0.0).mean()) > EPSILON
    assert broken <= 6


def test_disagreement_is_bounded_exactly() -> None:
    scores, losses = population(2)
    found = certify(scores[:1000], (losses[:1000] != 0).astype(float), epsilon=0.05, delta=DELTA, kind="disagreement")
    assert found.loss < found.bound <= 0.05
    assert found.bound == pytest.approx(binomial_upper_bound(round(found.loss * 1000), 1000, DELTA))


def test_the_evidence_tells_the_whole_curve() -> None:
    scores, losses = population(3)
    found = certify(scores[:2000], losses[:2000], epsilon=EPSILON, delta=DELTA)
    held = [point for point in found.curve if point.held]
    assert held and held[-1].threshold == found.threshold
    assert [point.held for point in found.curve] == sorted((point.held for point in found.curve), reverse=True)
    assert found.count == 2000 and 0 < found.local_share < 1


def test_the_order_of_the_file_does_not_matter_much() -> None:
    scores, losses = population(4, 2000)
    by_loss = np.argsort(losses, kind="stable")
    found = certify(scores[by_loss], losses[by_loss], epsilon=EPSILON, delta=DELTA)
    plain = certify(scores, losses, epsilon=EPSILON, delta=DELTA)
    assert abs(found.local_share - plain.local_share) < 0.1


def test_a_sorted_file_keeps_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses at the end of the file, true loss epsilon: no fixed order may turn that into luck."""
    monkeypatch.setattr("skerry.build.calibration.threshold.needed_count", lambda *_, **__: None)  # takes its time
    chance, broken = np.random.default_rng(11), 0
    for _ in range(150):
        scores = 1 - 1e-9 * chance.uniform(size=500)  # all of them pass the first threshold of the grid
        losses = np.sort((chance.uniform(size=500) < EPSILON).astype(float))
        try:
            certify(scores, losses, epsilon=EPSILON, delta=DELTA, kind="distance")
            broken += 1
        except CalibrationError:
            pass
    assert broken <= 0.1 * 150 + 3 * math.sqrt(0.09 * 150)


def test_the_test_is_chosen_by_the_kind_and_not_by_the_sample() -> None:
    with pytest.raises(CalibrationError, match="neither 0 nor 1"):
        certify([0.5, 0.5], [0.0, 0.4], epsilon=EPSILON, delta=DELTA, kind="disagreement")
    zeros = np.zeros(115)
    assert certify(zeros, zeros, epsilon=EPSILON, delta=DELTA, kind="disagreement").threshold == 0
    with pytest.raises(TooFewError):  # what was binary by chance gets the bound for any number
        certify(zeros, zeros, epsilon=EPSILON, delta=DELTA, kind="distance")


@pytest.mark.parametrize(("kind", "least"), [("disagreement", 114), ("signed", 168)])
def test_too_few_texts_are_told_how_many_more_it_takes(kind: Any, least: int) -> None:
    scores, losses = np.full(60, 0.9), np.zeros(60)
    with pytest.raises(TooFewError) as caught:
        certify(scores, losses, epsilon=EPSILON, delta=DELTA, kind=kind)
    assert caught.value.expected == f"{least - 60} more"
    enough = certify(np.full(least, 0.9), np.zeros(least), epsilon=EPSILON, delta=DELTA, kind=kind)
    assert enough.local_share == 1.0 and enough.threshold == 0.0


def test_no_texts_at_all_are_too_few() -> None:
    with pytest.raises(TooFewError, match="0 texts"):
        certify([], [], epsilon=EPSILON, delta=DELTA)


def test_a_local_side_that_is_wrong_where_it_is_surest_needs_no_more_texts() -> None:
    scores = np.full(400, 0.999999)
    with pytest.raises(CalibrationError, match="surest") as caught:
        certify(scores, np.ones(400), epsilon=EPSILON, delta=DELTA)
    assert not isinstance(caught.value, TooFewError)


@pytest.mark.parametrize(
    ("scores", "losses"), [([0.1, 0.2], [0.0]), ([math.nan], [0.0]), ([0.5], [2.0]), ([0.5], [math.nan])]
)
def test_numbers_that_are_none_are_refused(scores: list[float], losses: list[float]) -> None:
    with pytest.raises(CalibrationError):
        certify(scores, losses, epsilon=EPSILON, delta=DELTA)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_demands_that_cannot_be_tested_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(CalibrationError):
        certify([0.5], [0.0], epsilon=epsilon, delta=delta)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_as_many_texts_as_were_asked_for_are_enough(count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    scores = chance.uniform(0.5, 1.0, count)
    needed = needed_count(scores, np.zeros(count), epsilon=EPSILON, delta=DELTA)
    assert needed is not None and needed >= count
    assert certify(np.resize(scores, needed), np.zeros(needed), epsilon=EPSILON, delta=DELTA).local_share > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.001, 0.999))
def test_the_binomial_tail_is_exact(successes: int, count: int, rate: float) -> None:
    summed = sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(min(successes, count) + 1))
    assert binomial_tail(successes, count, rate) == pytest.approx(summed, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=200), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_capital_is_finite_and_the_bound_is_above_what_was_seen(
    losses: list[float], epsilon: float, delta: float
) -> None:
    array = np.array(losses)
    assert 0 <= betting_log_capital(array, epsilon, delta) < math.inf
    assert 0 <= betting_upper_bound(array, delta) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.floats(0.001, 0.4), st.floats(0.001, 0.4), st.integers(-26, 26))
def test_the_signed_tail_is_exact(count: int, worse: float, better: float, total: int) -> None:
    chances = np.ones(1)
    for _ in range(count):
        chances = np.convolve(chances, [better, 1 - worse - better, worse])
    summed = sum(chance for place, chance in enumerate(chances) if place - count <= total)
    assert signed_tail(total, count, worse, better) == pytest.approx(summed, abs=1e-9)


@pytest.mark.parametrize("better", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("count", [200, 2000])
def test_a_true_loss_of_epsilon_is_refused_at_most_as_often_as_allowed(count: int, better: float) -> None:
    worse = better + EPSILON
    wrong = 0.0
    chance = np.random.default_rng(3)
    drawn = chance.multinomial(count, [worse, better, 1 - worse - better], size=1000)
    for (one, other, _), times in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        wrong += times * signed_refuses(int(one), int(other), count, EPSILON, DELTA)
    assert wrong / 1000 <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 1000)


@settings(max_examples=60, deadline=None)
@given(st.integers(150, 3000), st.floats(0.001, 0.1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 3))
def test_more_spread_makes_the_lower_tail_heavier(
    count: int, epsilon: float, one: float, other: float, down: float
) -> None:
    low, high = sorted((epsilon + one * (0.5 - epsilon), epsilon + other * (0.5 - epsilon)))
    total = math.floor((count - 1) * epsilon - 2 - down * math.sqrt(count * low))
    tails = [signed_tail(total, count, (spread + epsilon) / 2, (spread - epsilon) / 2) for spread in (low, high)]
    assert tails[0] <= tails[1] + 1e-9


def test_capital_grows_rarely_against_a_mean_that_is_there() -> None:
    chance = np.random.default_rng(7)
    samples = (chance.choice([1.0, -1.0, 0.0], 500, p=[0.06, 0.04, 0.9]) for _ in range(300))
    ruined = sum(betting_log_capital(sample, 0.02, DELTA) >= math.log(1 / DELTA) for sample in samples)
    assert ruined <= 0.1 * 300
