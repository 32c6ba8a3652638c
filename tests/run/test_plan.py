"""The plan: what is fused, and where it is cut. Histograms: percentiles within their promise."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skerry.run.histogram import bin_of, merged, middle_of, new_bins, percentiles, quantile_ns
from skerry.run.plan import Plan, Trait, make_plan
from skerry.spec.graph import connect


def plan(stages: dict[str, Any], *, live: bool = False, sources: tuple[str, ...] = ("in",)) -> Plan:
    """Plan a pipeline whose stages are given as ``name: (after, trait keywords)``, with a blocking sink."""
    graph = connect(sources, [(name, after) for name, (after, _) in stages.items()], [("out", None)], str)
    traits = {name: Trait(role="source", live=live) for name in sources}
    traits |= {name: Trait(role="stage", **keys) for name, (_, keys) in stages.items()}
    return make_plan(graph, {**traits, "out": Trait(role="sink", cut=True)})


def shape(found: Plan) -> list[tuple[tuple[str, ...], int]]:
    return [(segment.nodes, segment.workers) for segment in found.segments]


def test_everything_is_fused_by_default() -> None:
    assert shape(plan({"a": (None, {}), "b": (None, {})})) == [(("in", "a", "b"), 1), (("out",), 1)]


def test_a_live_source_is_cut_off() -> None:
    found = plan({"a": (None, {}), "b": (None, {})}, live=True)
    assert found.live_sources == ("in",)
    assert shape(found) == [(("a", "b"), 1), (("out",), 1)]


def test_batches_and_workers_are_cut_and_what_follows_is_fused_or_cut_again() -> None:
    assert shape(plan({"a": (None, {}), "b": (None, {"cut": True}), "c": (None, {})})) == [
        (("in", "a"), 1),
        (("b", "c"), 1),
        (("out",), 1),
    ]
    assert shape(plan({"a": (None, {"cut": True, "workers": 3}), "b": (None, {})})) == [
        (("in",), 1),
        (("a",), 3),
        (("b",), 1),
        (("out",), 1),
    ]


def test_a_fan_in_is_cut_and_a_fan_out_is_not() -> None:
    found = plan({"a": (None, {}), "b": (("a",), {}), "c": (("a",), {}), "d": (("b", "c"), {})})
    assert shape(found) == [(("in", "a", "b", "c"), 1), (("d",), 1), (("out",), 1)]


def test_a_stage_with_a_clock_makes_its_source_live() -> None:
    assert plan({"a": (None, {"ticking": True})}).live_sources == ("in",)


@given(st.integers(1, 10**15))
def test_a_bin_is_right_within_its_promise(value: int) -> None:
    assert abs(middle_of(bin_of(value)) - value) <= max(9, 0.0626 * value)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_percentiles_come_in_order_and_within_the_range(values: list[int]) -> None:
    bins = new_bins()
    for value in values:
        bins[bin_of(value)] += 1
    half, most = quantile_ns(bins, 0.5), quantile_ns(bins, 0.99)
    assert half is not None
    assert most is not None
    assert half <= most
    assert 0.93 * min(values) - 10 <= half <= 1.07 * max(values) + 10
    assert merged([bins, bins]) == [2 * count for count in bins]


def test_nothing_measured_is_said_so() -> None:
    assert percentiles(new_bins()).p50 is None
