"""The conservation law, under bursts, slow sinks, exceptions, expiry and shutdown at random moments."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skerry.spec.pipeline import Queue
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from tests.run.parts import Batch, Call, Collect, Items, Pairs, engine, flaky, numbered, sink, source, stage

QUEUES = st.builds(
    Queue,
    items=st.integers(1, 40),
    bytes=st.sampled_from([Size(30), Size(1e6)]),
    ttl=st.sampled_from([None, Duration(0.002)]),
    policy=st.sampled_from(["block", "drop_oldest", "drop_newest", "latest"]),
)
POLICIES = st.sampled_from(["drop", "retry", "dead_letter"])


@st.composite
def stages(draw: st.DrawFn, number: int) -> Any:
    """One stage of any kind, after any of the nodes before it."""
    before = ["a", "b", *(f"s{earlier}" for earlier in range(number))]
    after = draw(st.lists(st.sampled_from(before), min_size=1, max_size=2, unique=True))
    rates = {"fail": draw(st.sampled_from([0.0, 0.2])), "drop": draw(st.sampled_from([0.0, 0.3])), "split": 0.1}
    kind = draw(st.sampled_from(["plain", "batch", "workers", "pairs"]))
    function = flaky(number, **rates)
    common: dict[str, Any] = {"after": after, "on_error": draw(POLICIES), "retries": 1}
    common["queue"] = draw(st.none() | QUEUES)
    if kind == "pairs":
        return stage(f"s{number}", Pairs(draw(st.integers(1, 5)), draw(st.sampled_from([0.0, 0.005]))), **common)
    if kind == "workers":
        return stage(f"s{number}", lambda: Call(function), workers=draw(st.integers(1, 3)), **common)
    return stage(f"s{number}", Batch(function) if kind == "batch" else Call(function), **common)


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(1, 4))
    made = [draw(stages(number)) for number in range(count)]
    names = ["a", "b", *(node.id for node in made)]
    taken = {before for node in made for before in node.settings.after}
    loose = [name for name in names if name not in taken]
    bursts = random.Random(draw(st.integers(0, 9)))
    pauses = {bursts.randrange(200): 0.003 for _ in range(3)}
    sinks = [
        sink("x", Collect(blocking=draw(st.booleans()), delay_s=draw(st.sampled_from([0.0, 0.001])))),
        sink(
            "y",
            Collect(
                bad=lambda record: random.random() < 0.1,
                down=(lambda writes: writes % 3 == 1) if draw(st.booleans()) else None,
            ),
            after=draw(st.sampled_from(names)),
            queue=draw(st.none() | QUEUES),
        ),
    ]
    return {
        "nodes": [
            source("a", Items(numbered(draw(st.integers(0, 200))), live=draw(st.booleans()), pauses=pauses)),
            source("b", Items(numbered(draw(st.integers(0, 100))), live=draw(st.booleans()))),
            *made,
            *sinks,
        ],
        "loose": loose,
        "deadline_ns": draw(st.sampled_from([0, 3_000_000])),
        "stop_after": draw(st.none() | st.floats(0.0, 0.05)),
        "timing": draw(st.sampled_from(["adaptive", "every", "sampled"])),
    }


@given(case=pipelines())
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_record_meets_exactly_one_fate(tmp_path: Path, case: dict[str, Any]) -> None:
    (tmp_path / "positions.json").unlink(missing_ok=True)
    letters = Collect()
    made = engine(
        tmp_path, *case["nodes"], dead_letter=letters, drain_s=1.0, sync_s=0.005,
        deadline_ns=case["deadline_ns"], timing=case["timing"],
    )  # fmt: skip
    watching = threading.Event()

    def watch() -> None:
        """Look on while it runs: a summary may be asked for at any time."""
        while not watching.wait(0.002):
            made.summary()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # The engine itself raises ConservationError when a place does not balance at the end.
        summary = made.run(duration_s=case["stop_after"])
    finally:
        watching.set()
        watcher.join()
    assert summary.in_flight == 0
    assert summary.imbalance() == {}
    assert all(counts.in_flight == 0 for counts in summary.stages)
    total = summary.items_out + summary.filtered + summary.absorbed + summary.dropped + summary.expired + summary.failed
    assert summary.items_in + summary.emitted == total


def test_losing_a_record_is_noticed(tmp_path: Path) -> None:
    import pytest

    from skerry.spec.errors import ConservationError

    class Swallowing(Items):
        """Offers a record behind the engine's back and so breaks the count of the source."""

        def run(self, emit: Any, stop: Any) -> None:
            super().run(emit, stop)
            engine_under_test._wiring.sources["in"].issued += 1  # type: ignore[union-attr]

    def same(record: Record) -> Record:
        return record

    engine_under_test = engine(
        tmp_path, source("in", Swallowing(numbered(3))), stage("a", Call(same)), sink("out", Collect())
    )  # fmt: skip
    with pytest.raises(ConservationError, match="pipeline \\+1"):
        engine_under_test.run()
