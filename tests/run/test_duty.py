"""The duty cycle: sleeping when nothing comes, waking by timer, event and gate."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skerry.run.conductor import Conductor
from skerry.run.duty import DutyState, next_duty
from skerry.spec.pipeline import Duty
from skerry.spec.record import Record
from skerry.spec.units import Duration
from tests.run.parts import Call, Collect, Items, engine, numbered, sink, source, stage

DUTY = Duty(awake=Duration(5), every=Duration(60))


def test_it_sleeps_after_a_quiet_time_and_wakes_by_timer() -> None:
    state = DutyState()
    state = next_duty(state, DUTY, now_s=4, last_item_s=0, called=False)
    assert state.awake
    state = next_duty(state, DUTY, now_s=6, last_item_s=2, called=False)
    assert state.awake
    state = next_duty(state, DUTY, now_s=7, last_item_s=2, called=False)
    assert not state.awake
    assert next_duty(state, DUTY, now_s=66, last_item_s=2, called=False) == state
    state = next_duty(state, DUTY, now_s=67, last_item_s=2, called=False)
    assert state.awake
    assert state.wakes == 1
    assert state.total_awake(70) == 10


def test_a_call_wakes_at_once_and_keeps_awake() -> None:
    asleep = DutyState(awake=False, since=10)
    assert next_duty(asleep, DUTY, now_s=11, last_item_s=0, called=True).awake
    awake = DutyState(since=0)
    assert next_duty(awake, DUTY, now_s=100, last_item_s=0, called=True).awake


@given(st.lists(st.tuples(st.floats(0.01, 50), st.booleans(), st.booleans()), max_size=50))
def test_time_awake_is_never_more_than_the_time_that_passed(events: list[tuple[float, bool, bool]]) -> None:
    state, now, last = DutyState(), 0.0, 0.0
    for gap, item, called in events:
        now += gap
        last = now if item and state.awake else last
        state = next_duty(state, DUTY, now_s=now, last_item_s=last, called=called)
        assert 0 <= state.total_awake(now) <= now + 1e-9


class Models:
    """Counts how often it was loaded and unloaded."""

    last_rung = 0

    def __init__(self) -> None:
        self.calls: list[str] = []

    def step_to(self, rung: int) -> None:
        self.calls.append(f"rung {rung}")

    def load(self) -> None:
        self.calls.append("load")

    def unload(self) -> None:
        self.calls.append("unload")

    def states(self) -> dict[str, Any]:
        return {}


def until(condition: Any, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)


def test_a_pipeline_sleeps_unloads_and_wakes_by_an_event(tmp_path: Path) -> None:
    models, event = Models(), tmp_path / "wake"
    duty = Duty(awake=Duration(0.1), event="wake")
    conductor = Conductor(logging.getLogger("test"), duty=duty, models=models, home=tmp_path)
    out = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(2), live=True, pauses={1: 0.4})),
        stage("a", Call(lambda record: record)),
        sink("out", out),
        conductor=conductor,
    )
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(made.run()))
    thread.start()
    until(lambda: made.summary().status == "asleep")
    assert models.calls == ["unload"]
    time.sleep(0.5)
    assert out.numbers() == [0]  # the second item waits at the door
    event.touch()
    until(lambda: len(out.got) == 2)
    assert models.calls[:2] == ["unload", "load"]
    thread.join(10)
    assert done[0].items_out == 2
    assert done[0].awake_s < done[0].wall_s


def test_what_the_gate_lets_through_wakes_the_pipeline(tmp_path: Path) -> None:
    models = Models()
    conductor = Conductor(
        logging.getLogger("test"), duty=Duty(awake=Duration(0.1), gate="gate"), models=models, home=tmp_path
    )
    out = Collect()

    def loud(record: Record) -> Record | None:
        return record if record.fields["n"] == 3 else None

    made = engine(
        tmp_path,
        source("in", Items(numbered(4), live=True, pauses={1: 0.5})),
        stage("gate", Call(loud)),
        stage("rest", Call(lambda record: record)),
        sink("out", out),
        conductor=conductor,
    )
    summary = made.run()
    assert out.numbers() == [3]
    assert models.calls == ["unload", "load"]
    assert summary.filtered == 3


def test_the_ladder_moves_the_models(tmp_path: Path) -> None:
    from skerry.spec.pipeline import Ladder
    from skerry.spec.profile import Vitals

    class Steps(Models):
        last_rung = 1

    models = Steps()
    ladder = Ladder(patience=Duration(0), recovery=Duration(0), every=Duration(0.02))
    hot = threading.Event()
    hot.set()
    conductor = Conductor(
        logging.getLogger("test"), ladder=ladder, models=models,
        vitals=lambda: Vitals(hottest_c=99.0 if hot.is_set() else 30.0),
    )  # fmt: skip
    conductor.start(lambda: (0, 0))
    until(lambda: conductor.rung == 1)
    hot.clear()
    until(lambda: conductor.rung == 0)
    conductor.stop()
    assert models.calls == ["rung 1", "rung 0"]
