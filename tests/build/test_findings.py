"""What a search hands to its reports: what it refuses, its order, its JSON, and what to relax."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.build import wording
from skerry.build.documents import documents
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import (
    Baseline,
    Candidate,
    Failed,
    Findings,
    Measured,
    failures,
    outcome_of,
    ranked,
    read_json,
    write_json,
)
from skerry.build.halving import order
from skerry.build.relaxation import near_misses, written
from skerry.build.verdict import total_excess, verdict
from skerry.spec.budget import Budget, Quality
from skerry.spec.units import Duration, Size
from tests.build.findings_strategy import FINDINGS
from tests.build.sample_findings import BUDGET, HOPELESS, METRIC, sample


def test_the_chosen_one_comes_first_and_the_others_in_the_order_of_the_search() -> None:
    found = sample()
    figures = {each.name: each.measured.figures for each in ranked(found)}
    assert [each.name for each in ranked(found)] == order(figures, BUDGET, METRIC)
    assert ranked(found)[0].chosen
    assert [each.name for each in ranked(found) if each.ladder_step == 0] == [found.chosen]
    assert len(failures(found)) == 4


def test_a_trial_that_met_a_busy_machine_does_not_change_the_order() -> None:
    found = sample()

    def slowed(each: Candidate) -> Candidate:
        if not isinstance(each.outcome, Measured) or each.name != ranked(found)[1].name:
            return each
        figures = msgspec.structs.replace(each.outcome.figures, latency_p50_ms=Estimate.exact(1e4))
        return msgspec.structs.replace(each, outcome=msgspec.structs.replace(each.outcome, figures=figures))

    changed = msgspec.structs.replace(found, candidates=tuple(map(slowed, found.candidates)))
    assert changed != found
    assert [each.name for each in ranked(changed)] == [each.name for each in ranked(found)]


@pytest.mark.parametrize("change", [{"chosen": "nobody"}, {"front": ("nobody",)}, {"ladder": ("tensorrt-fp16",)}])
def test_names_that_were_not_measured_are_refused(change: dict[str, object]) -> None:
    found = sample()
    with pytest.raises(ValueError, match="no measured candidate"):
        msgspec.structs.replace(found, **change)


def test_two_candidates_of_one_name_are_refused() -> None:
    found = sample()
    with pytest.raises(ValueError, match="same name"):
        msgspec.structs.replace(found, candidates=found.candidates + found.candidates[:1])
    broken = write_json(found).replace(b'"name": "litert-int8"', b'"name": "litert-fp32"')
    with pytest.raises(msgspec.ValidationError, match="same name"):
        read_json(broken)


def test_all_documents_are_made_and_are_the_same_for_the_same_findings() -> None:
    made = documents(sample())
    assert set(made) == {"report.json", "report.html", "README.md"}
    assert made == documents(sample())
    assert read_json(made["report.json"]) == sample()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FINDINGS)
def test_json_says_all(found: Findings) -> None:
    assert read_json(write_json(found)) == found


@pytest.mark.parametrize("strange", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_a_failure(strange: float) -> None:
    figures = msgspec.structs.replace(sample().baseline.figures, quality={METRIC: Estimate(strange, 0.0, 1.0)})
    outcome = outcome_of(figures, BUDGET, rung=2)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.rung) == ("wrong answers", 2)
    assert METRIC in outcome.reason
    with pytest.raises(ValueError, match="no finite number"):
        Measured(figures=figures)
    with pytest.raises(ValueError, match="no finite number"):
        Baseline(name="a", runtime="b", figures=figures)


def test_what_keeps_the_budget_leaves_nothing_to_relax() -> None:
    assert sample().near_misses == ()
    assert sample(HOPELESS).near_misses


def test_each_near_miss_is_another_choice_and_the_smallest_comes_first() -> None:
    found = sample(HOPELESS)
    choices = [frozenset(each.limit for each in miss.relaxations) for miss in found.near_misses]
    assert len(set(choices)) == len(choices)
    totals = [sum(each.share for each in miss.relaxations) for miss in found.near_misses]
    assert totals == sorted(totals)


def test_what_was_not_measured_can_only_be_left_out() -> None:
    figures = Figures(latency_p50_ms=Estimate.exact(1), latency_p99_ms=Estimate.exact(1), speedup=Estimate.exact(1))
    misses = near_misses({"a": verdict(Budget(quality=Quality(metric="f1", min=0.5)), figures)})
    assert misses[0].relaxations[0].needed is None
    assert misses[0].relaxations[0].written == ""


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(
        st.floats(0, 1), st.floats(1e-3, 1e5), st.integers(1, 10**11), st.integers(1, 10**11)
    ), min_size=1, max_size=8)
)  # fmt: skip
def test_whoever_follows_the_advice_gets_a_budget_that_is_kept(rows: dict[str, tuple[float, float, int, int]]) -> None:
    budget = Budget(
        quality=Quality(metric=METRIC, min=0.9), latency_p50=Duration(0.002), memory=Size(80e6), size=Size(25e6)
    )
    figures = {
        name: Figures(
            quality={METRIC: Estimate.exact(quality)}, latency_p50_ms=Estimate.exact(latency),
            latency_p99_ms=Estimate.exact(latency), speedup=Estimate.exact(1), peak_bytes=peak, size_bytes=size,
        )
        for name, (quality, latency, peak, size) in rows.items()
    }  # fmt: skip
    for miss in near_misses({name: verdict(budget, each) for name, each in figures.items()}):
        relaxed = budget
        for each in miss.relaxations:
            if each.limit.startswith("quality"):
                relaxed = msgspec.structs.replace(relaxed, quality=Quality(metric=METRIC, min=float(each.written)))
            else:
                kind = Duration if each.limit.startswith("latency") else Size
                relaxed = msgspec.structs.replace(relaxed, **{each.limit: kind.parse(each.written)})
        assert total_excess(verdict(relaxed, figures[miss.candidate])) == 0


@given(st.floats(1e-12, 1e6), st.floats(1, 1e15))
def test_a_written_limit_is_hardly_more_than_needed(seconds: float, octets: float) -> None:
    assert seconds <= Duration.parse(written("latency_p99", seconds)) <= seconds * 1.021
    assert octets <= Size.parse(written("memory", octets)) <= octets * 1.021


@given(st.floats(1e-300, 1e300))
def test_a_written_quality_keeps_what_it_is_written_for(quality: float) -> None:
    limit = "quality (perplexity)"
    assert quality <= float(written(limit, quality)) <= quality * 1.011
    assert quality >= float(written(limit, quality, at_least=True)) >= quality / 1.011
    assert float(written(limit, -quality, at_least=True)) <= -quality <= float(written(limit, -quality))
    assert len(written(limit, quality)) < 12


def test_a_perplexity_gone_astray_is_told_in_few_digits() -> None:
    budget = Budget(quality=Quality(metric="perplexity", max=30))
    figures = msgspec.structs.replace(sample().baseline.figures, quality={"perplexity": Estimate.exact(2.7e43)})
    (miss,) = near_misses({"astray": verdict(budget, figures)})
    assert "perplexity from 30.000 to 2.71e+43" in wording.advice(miss)
    assert wording.share(2.7e43) == "2.7e+43"
    assert (wording.share(0.0), wording.share(0.00021), wording.share(-0.5)) == ("0.000", "0.00021", "-0.500")
