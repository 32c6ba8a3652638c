"""Findings as they might come: any names, any figures, intervals that are the wrong way round, budgets of all kinds."""

from __future__ import annotations

from hypothesis import strategies as st

from skerry.build.artifact import Step
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import (
    Baseline,
    Candidate,
    Discarded,
    Environment,
    Failed,
    Findings,
    Measured,
    Origin,
    TextsUsed,
)
from skerry.build.halving import front, ladder, order
from skerry.build.relaxation import near_misses
from skerry.build.verdict import verdict
from skerry.spec.budget import Budget, Quality
from skerry.spec.units import Duration, Energy, Size

METRIC = "agreement@10"
NASTY = (
    "</script><script>alert(1)</script>", '" onload="x', "<!--", "]]>", "&amp;", "a\x1b[31m\x00\u202e", "--- no: [x",
    "````", "é\u0301 \U0001f600", "x" * 300, "a\nb\r\tc", "",
)  # fmt: skip
TEXT = st.one_of(st.text(max_size=8), st.sampled_from(NASTY))
NUMBER = st.sampled_from([0.0, 1e-300, 0.01, 1.0, 3.0, 1e6, 1e300]) | st.floats(0, 100)
ESTIMATE = st.builds(Estimate, NUMBER, NUMBER, NUMBER)
QUALITY = st.builds(Estimate, *[st.floats(-1, 1)] * 3)
FIGURES = st.builds(
    Figures,
    quality=st.fixed_dictionaries({METRIC: QUALITY}) | st.dictionaries(TEXT, QUALITY, max_size=1),
    latency_p50_ms=ESTIMATE, latency_p99_ms=ESTIMATE, speedup=ESTIMATE, items_per_s=NUMBER, load_ms=NUMBER,
    peak_bytes=st.integers(0, 10**12), size_bytes=st.integers(0, 10**12), cpu_ms=st.none() | NUMBER,
    energy_j=st.none() | NUMBER,
)  # fmt: skip
LIMIT = st.sampled_from([0.0, 1e-3, 1.0, 5e7, 1e12])
BUDGETS = st.builds(
    Budget,
    quality=st.none() | st.builds(Quality, metric=st.sampled_from([METRIC, "f1", "</td>"]), min=st.floats(0, 1)),
    latency_p50=st.none() | LIMIT.map(Duration), latency_p99=st.none() | LIMIT.map(Duration),
    memory=st.none() | LIMIT.map(Size), size=st.none() | LIMIT.map(Size), energy=st.none() | LIMIT.map(Energy),
)  # fmt: skip
STEP = st.builds(Step, technique=TEXT, version=st.just(1), settings=st.dictionaries(TEXT, TEXT, max_size=1))
STEPS = st.lists(STEP, max_size=2).map(tuple)
FAILED = st.builds(Failed, kind=st.sampled_from(["refused", "failed", "crashed", "out of memory"]), reason=TEXT)
DISCARDED = st.builds(Discarded, reason=TEXT, by=st.sampled_from(["prediction", "time"]))
ENVIRONMENT = st.builds(
    Environment, machine=TEXT, device=TEXT, versions=st.dictionaries(TEXT, TEXT, max_size=1), seed=st.integers(0, 9),
    allowed_s=st.none() | NUMBER, spent_s=NUMBER, finished=TEXT,
    phases=st.dictionaries(TEXT, NUMBER, max_size=1),
    texts=st.lists(
        st.builds(
            TextsUsed, split=st.sampled_from(["calibrate", "select", "report"]), origin=TEXT,
            count=st.integers(0, 10**6), digest=TEXT,
        ), max_size=2,
    ).map(tuple),
    commands=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip

ORIGIN = st.builds(
    Origin, source=TEXT, digest=TEXT, task=TEXT | st.just("embedding"), licence=TEXT, base_model=TEXT
)  # fmt: skip
BASELINE = st.builds(Baseline, name=TEXT, runtime=TEXT, figures=FIGURES)


@st.composite
def _findings(draw: st.DrawFn) -> Findings:
    names = draw(st.lists(TEXT, max_size=5, unique=True))
    budget = draw(BUDGETS)
    outcomes = draw(st.lists(FIGURES | FAILED | DISCARDED, min_size=len(names), max_size=len(names)))
    figures = {name: each for name, each in zip(names, outcomes, strict=True) if isinstance(each, Figures)}
    verdicts = {name: verdict(budget, each) for name, each in figures.items()}
    chosen = order(figures, budget, METRIC)[0] if figures and draw(st.booleans()) else None
    predicted = draw(st.sampled_from([(), ("latency_p50_ms", "peak_bytes"), ("quality",)]))
    return Findings(
        name=draw(TEXT), metric=METRIC, lower_is_better=draw(st.booleans()),
        origin=draw(ORIGIN), baseline=draw(BASELINE),
        candidates=tuple(
            Candidate(
                name=name, runtime=draw(TEXT), threads=draw(st.integers(1, 8)), steps=draw(STEPS),
                outcome=Measured(figures=each, lines=verdicts[name], rung=2, predicted=predicted)
                if isinstance(each, Figures) else each,
            )
            for name, each in zip(names, outcomes, strict=True)
        ),
        chosen=chosen, front=tuple(front(figures, METRIC)),
        ladder=tuple(ladder(figures, chosen, METRIC)) if chosen is not None else (),
        near_misses=near_misses(verdicts), environment=draw(ENVIRONMENT),
    )  # fmt: skip


FINDINGS = _findings()
