"""The search with an outlook: what is given up is neither made nor measured, and nothing that could have won."""

from __future__ import annotations

from typing import Any

import pytest

from skerry.build.artifact import Artifact
from skerry.build.findings import Discarded, Measured
from skerry.spec.budget import Budget
from skerry.spec.units import Duration
from tests.build.test_search import Make, Shrinking, Trier, make, origin


class Outlook:
    """Predicts the size that a form's last setting asks for to be its latency in units of 10 µs."""

    def __init__(self, most: float, off: float = 1.0) -> None:
        self.most = most
        self.off = off
        self.learned: list[str] = []

    def learn(self, artifact: Artifact) -> None:
        self.learned.append(artifact.name())

    def hopeless(self, artifact: Artifact, threads: int = 1) -> Discarded | None:
        predicted = artifact.steps[-1].settings["size"] * self.off if artifact.steps else 0
        return Discarded(reason=f"predicted {predicted}") if predicted > 1.5 * self.most else None


__all__ = ["make", "origin"]  # fixtures

SIZES = [900, 700, 500, 300]


def test_trials_and_making_are_saved_and_the_winner_is_the_same(make: Make) -> None:
    def searched(outlook: Outlook | None) -> tuple[Any, Trier, Shrinking]:
        trier, shrink = Trier(), Shrinking("shrink", "quantize", SIZES)
        budget = Budget(latency_p50=Duration.parse("4ms"))
        found = make(Shrinking("export", "convert", [1000]), shrink, budget=budget, outlook=outlook).run(trier)
        return found, trier, shrink

    plain, all_trials, _ = searched(None)
    shorter, trials, shrink = searched(Outlook(400))
    assert shorter.chosen == plain.chosen == "export(size=1000) → shrink(size=300)"
    assert len(trials.calls) < len(all_trials.calls)
    given_up = {each.name for each in shorter.candidates if isinstance(each.outcome, Discarded)}
    keeps = {each.name for each in plain.candidates if isinstance(each.outcome, Measured) and each.outcome.keeps_budget}
    assert given_up
    assert not given_up & keeps
    assert not any(name in shrink.applied for name in given_up)  # where the cache was empty, none was made


def test_what_is_given_up_says_why(make: Make) -> None:
    found = make(
        Shrinking("export", "convert", [1000]), Shrinking("shrink", "quantize", SIZES), outlook=Outlook(400)
    ).run(Trier())
    outcomes = {each.name: each.outcome for each in found.candidates}
    assert outcomes["export(size=1000) → shrink(size=900)"] == Discarded(reason="predicted 900.0", by="prediction")


def test_a_form_that_is_given_up_may_still_lead_to_a_good_one(make: Make) -> None:
    outlook = Outlook(400)
    export = Shrinking("export", "convert", [1000])
    found = make(export, Shrinking("shrink", "quantize", [300]), outlook=outlook).run(Trier())
    assert export.applied  # hopeless by itself, and what the others are made of
    assert found.chosen == "export(size=1000) → shrink(size=300)"
    assert "export(size=1000)" in outlook.learned
    assert isinstance(next(each for each in found.candidates if each.name == "export(size=1000)").outcome, Discarded)


@pytest.mark.parametrize("threads", [(1, 2)])
def test_each_number_of_threads_is_judged_by_itself(make: Make, threads: tuple[int, ...]) -> None:
    class Threaded(Outlook):
        def hopeless(self, artifact: Artifact, threads: int = 1) -> Discarded | None:
            return Discarded(reason="too slow") if threads == 1 else None

    found = make(Shrinking("export", "convert", [1000]), threads=threads, outlook=Threaded(0)).run(Trier())
    assert set(found.artifacts) == {"export(size=1000) × 2 threads"}
