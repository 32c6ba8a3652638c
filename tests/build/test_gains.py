"""What a step gained: against the same candidate without it, or nothing is said."""

from __future__ import annotations

import msgspec
import pytest

from skerry.build.artifact import Step
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import Candidate, Failed, Measured
from skerry.build.gains import with_gains
from skerry.build.table import render

from .sample_findings import sample


def candidate(
    *steps: str, speed: float = 2.0, size: int = 1_000_000, runtime: str = "litert", threads: int = 1
) -> Candidate:
    figures = Figures(
        latency_p50_ms=Estimate.exact(1), latency_p99_ms=Estimate.exact(1), size_bytes=size,
        speedup=Estimate(speed, speed - 0.1, speed + 0.1),
    )  # fmt: skip
    return Candidate(
        name=" → ".join(steps), runtime=runtime, threads=threads, outcome=Measured(figures=figures),
        steps=tuple(Step(technique=name, version=1, settings={"found": len(steps)}) for name in steps),
    )  # fmt: skip


def note(*candidates: Candidate) -> str:
    return with_gains(candidates, {"prune-sparse"})[0].note


@pytest.mark.parametrize(
    ("speed", "size", "said"),
    [
        (2.15, 1_000_100, "gains no speed (2.15×, 2.05 to 2.25, without it 2.00×, 1.90 to 2.10) and no room"),
        (3.0, 1_000_000, "gains speed (3.00×"),
        (1.0, 600_000, "and room (0.6 MB, without it 1.0) on litert here"),
    ],
)
def test_a_gain_is_one_beyond_the_intervals(speed: float, size: int, said: str) -> None:
    one = candidate("prune-sparse", "convert", "round", speed=speed, size=size)
    assert said in note(one, candidate("convert", "round"))


def test_where_nothing_can_be_compared_nothing_is_said() -> None:
    one = candidate("prune-sparse", "convert")
    assert note(one) == ""
    assert note(one, candidate("convert", runtime="onnxruntime"), candidate("convert", threads=2)) == ""
    assert note(one, candidate("other")) == ""
    failed = msgspec.structs.replace(candidate("convert"), outcome=Failed(kind="crashed", reason="SIGSEGV"))
    assert note(one, failed) == "" and note(candidate("convert"), candidate("convert")) == ""


def test_the_table_tells_notes() -> None:
    found = sample()
    first, *others = found.candidates
    noted = msgspec.structs.replace(first, note="prune-sparse gains nothing")
    text = render(msgspec.structs.replace(found, candidates=(noted, *others)))
    assert f"note: {first.name}: prune-sparse gains nothing" in text
