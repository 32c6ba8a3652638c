"""Who goes on to a longer trial, what the front and the ladder are, and how figures stand against a budget."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.build.figures import Estimate, Figures
from skerry.build.halving import RUNGS, affordable, choice, front, ladder, order, survivors
from skerry.build.relaxation import near_misses
from skerry.build.verdict import total_excess, verdict
from skerry.spec.budget import Budget, Quality
from skerry.spec.units import Duration, Size

METRIC = "agreement@10"


def figures(quality: float, latency_ms: float, size: int = 10, peak: int = 10) -> Figures:
    exact = Estimate.exact
    return Figures(
        quality={METRIC: exact(quality)}, latency_p50_ms=exact(latency_ms), latency_p99_ms=exact(2 * latency_ms),
        speedup=exact(10.0 / latency_ms), size_bytes=size, peak_bytes=peak,
    )  # fmt: skip


RESULTS = {
    "fp32": figures(1.0, 10.0),
    "int8": figures(0.9, 4.0),
    "worse": figures(0.85, 5.0),
    "tiny": figures(0.6, 1.0),
}
BUDGET = Budget(quality=Quality(min=0.88))


def test_the_fastest_that_keeps_the_budget_is_the_best() -> None:
    assert order(RESULTS, BUDGET, METRIC) == ["int8", "fp32", "worse", "tiny"]
    assert order(RESULTS, Budget(), METRIC) == ["tiny", "int8", "worse", "fp32"]


def test_the_fastest_is_not_chosen_when_its_quality_may_be_luck() -> None:
    lucky = msgspec.structs.replace(figures(0.9, 3.0), quality={METRIC: Estimate(0.9, 0.85, 0.95)})
    sure = msgspec.structs.replace(figures(0.89, 4.0), quality={METRIC: Estimate(0.89, 0.881, 0.9)})
    surer = msgspec.structs.replace(figures(0.95, 5.0), quality={METRIC: Estimate(0.95, 0.94, 0.96)})
    results = {"lucky": lucky, "sure": sure, "surer": surer}
    assert order(results, BUDGET, METRIC)[0] == "lucky"
    assert choice(results, BUDGET, METRIC) == "sure"
    assert choice({"lucky": lucky, "luckier": figures(0.6, 1.0)}, BUDGET, METRIC) == "lucky"
    assert choice(results, Budget(), METRIC) == "lucky"


def test_the_front_holds_what_nothing_beats() -> None:
    assert front(RESULTS, METRIC) == ["fp32", "int8", "tiny"]
    assert ladder(RESULTS, "int8", METRIC) == ["int8", "tiny"]


def test_a_third_and_the_front_go_on() -> None:
    assert survivors(RESULTS, BUDGET, METRIC) == ["int8", "fp32", "tiny"]
    assert survivors(RESULTS, BUDGET, METRIC, at_most=1) == ["int8"]
    assert survivors({}, BUDGET, METRIC) == []


def test_every_limit_is_held_against_its_figure() -> None:
    budget = Budget(
        quality=Quality(min=0.95), latency_p50=Duration(0.002), latency_p99=Duration(0.1), memory=Size(20), size=Size(5)
    )  # fmt: skip
    lines = {line.limit: line for line in verdict(budget, RESULTS["int8"])}
    assert not lines["quality (agreement@10)"].holds
    assert lines["latency_p50"].excess == 1.0
    assert lines["latency_p99"].holds
    assert lines["memory"].holds
    assert lines["size"].excess == 1.0
    assert verdict(Budget(quality=Quality(metric="f1", min=0.5)), RESULTS["int8"])[0].excess == 1.0


def test_the_rungs_fit_the_time() -> None:
    for seconds in (0.0, 30.0, 600.0, 7200.0):
        counts = affordable(seconds, RUNGS)
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] >= 1
    assert affordable(600, RUNGS)[0] > affordable(60, RUNGS)[0]


POINTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=4),
    st.builds(figures, st.floats(0, 1), st.floats(0.1, 100)),
    min_size=1,
    max_size=20,
)


@given(POINTS)
def test_nothing_on_the_front_is_beaten(results: dict[str, Figures]) -> None:
    kept = front(results, METRIC)
    for name in kept:
        for other in results.values():
            better = other.quality[METRIC].value > results[name].quality[METRIC].value
            faster = other.speedup.value > results[name].speedup.value
            assert not (better and faster)
    assert kept


@given(POINTS, st.floats(0, 1))
def test_the_best_always_goes_on_and_the_order_does_not_depend_on_the_input(
    results: dict[str, Figures], least: float
) -> None:
    budget = Budget(quality=Quality(min=least))
    ranked = order(results, budget, METRIC)
    assert survivors(results, budget, METRIC)[0] == ranked[0]
    assert order(dict(reversed(results.items())), budget, METRIC) == ranked
    excesses = [total_excess(verdict(budget, results[name])) for name in ranked]
    assert excesses == sorted(excesses)


PERPLEXITY = Budget(quality=Quality(metric="perplexity", max=30))


def wordy(perplexity: float, latency_ms: float) -> Figures:
    exact = Estimate.exact
    return Figures(
        quality={"perplexity": exact(perplexity)}, latency_p50_ms=exact(latency_ms), latency_p99_ms=exact(latency_ms),
        speedup=exact(10.0 / latency_ms),
    )  # fmt: skip


WORDY = {"fp32": wordy(20, 10), "int8": wordy(22, 4), "worse": wordy(28, 5), "tiny": wordy(60, 1)}


def test_less_is_better_where_mistakes_are_counted() -> None:
    assert order(WORDY, PERPLEXITY, "perplexity") == ["int8", "worse", "fp32", "tiny"]
    assert choice(WORDY, PERPLEXITY, "perplexity") == "int8"
    assert front(WORDY, "perplexity", lower=True) == ["fp32", "int8", "tiny"]
    assert ladder(WORDY, "int8", "perplexity", lower=True) == ["int8", "tiny"]
    assert survivors(WORDY, PERPLEXITY, "perplexity") == ["int8", "worse", "fp32", "tiny"]
    line = verdict(PERPLEXITY, WORDY["tiny"])[0]
    assert (line.excess, line.at_least) == (1.0, False)
    (miss,) = near_misses({"tiny": (line,)})
    assert miss.relaxations[0].written == "60"


def test_a_limit_below_zero_is_missed_by_more_the_farther_away() -> None:
    metric = "mine:likelihood"
    scores = {"good": -0.4, "near": -0.6, "far": -2.0}
    results = {
        name: msgspec.structs.replace(figures(1.0, 5.0), quality={metric: Estimate.exact(score)})
        for name, score in scores.items()
    }
    for sign, budget in (
        (1, Budget(quality=Quality(metric=metric, min=-0.5))), (-1, Budget(quality=Quality(metric=metric, max=-0.5))),
    ):  # fmt: skip
        excesses = [verdict(budget, each)[0].excess for each in results.values()]
        assert excesses == pytest.approx([0.0, 0.2, 3.0] if sign > 0 else [0.2, 0.0, 0.0])
    assert order(results, Budget(quality=Quality(metric=metric, min=-0.5)), metric) == ["good", "near", "far"]


@given(POINTS)
def test_a_front_of_mistakes_is_that_of_what_was_right(results: dict[str, Figures]) -> None:
    def turned(one: Figures) -> Figures:
        found = one.quality[METRIC].value
        return msgspec.structs.replace(one, quality={METRIC: Estimate.exact(-found)})

    assert front({name: turned(one) for name, one in results.items()}, METRIC, lower=True) == front(results, METRIC)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": "perplexity", "min": 3}, "less is better: give `max`"),
        ({"metric": "cosine", "max": 0.1}, "more is better: give `min`"),
        ({"metric": "wer", "min": 0.1, "max": 0.2}, "one limit, `max`"),
        ({"metric": "agreement@10"}, "one limit, `min`"),
    ],
)
def test_the_wrong_limit_is_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=re.escape(said)):
        msgspec.convert(given, Quality)
    assert msgspec.convert({"metric": "mine:errors", "max": 3}, Quality).lower_is_better
