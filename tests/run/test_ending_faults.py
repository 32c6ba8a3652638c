"""Faults that a review found at the end of a run, in the conductor and in stages in processes, each with its test."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.run import process as process_module
from skerry.run.assembly import assemble
from skerry.run.conductor import Conductor
from skerry.run.process import ProcessStage
from skerry.spec.errors import EngineError, SpecError, StageError
from skerry.spec.pipeline import Duty, Ladder, Queue
from skerry.spec.ports import Context, Options
from skerry.spec.profile import Vitals
from skerry.spec.reading import read_project
from skerry.spec.record import HELD, Merged, Record
from skerry.spec.units import Duration, Share
from tests.run.parts import LOG, Batch, Call, Collect, Items, engine, numbered, sink, source, stage


def same(record: Record) -> Record:
    return record


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """Run ``work`` in a thread of its own, so that a deadlock fails the test in place of hanging it."""
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert done, "it never ended"
    return done[0]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)


# The end


def test_the_error_of_a_run_is_not_hidden_by_its_balance(tmp_path: Path) -> None:
    """A stage that hangs beyond the drain after another one stopped the run."""
    free = threading.Event()

    def hang(record: Record) -> Any:
        free.wait(20)
        return record

    def fail(record: Record) -> Any:
        raise ValueError("the true reason")

    made = engine(
        tmp_path,
        source("in", Items(numbered(3), live=True)),
        stage("a", Call(hang)),
        stage("b", Call(fail), after="in", on_error="stop"),
        sink("out", Collect(), after=["a", "b"]),
        drain_s=0.2,
    )
    try:
        with pytest.raises(StageError, match="the true reason"):
            made.run()
    finally:
        free.set()


def test_an_interrupt_takes_the_work_away_before_anything_is_closed(tmp_path: Path) -> None:
    log: list[str] = []

    class Slow(Call):
        def close(self) -> None:
            log.append("closed")

    def process(record: Record) -> Any:
        log.append("begin")
        time.sleep(0.2)
        log.append("end")
        return record

    made = engine(
        tmp_path, source("in", Items(numbered(50), live=True)), stage("a", Slow(process)), sink("out", Collect())
    )
    wait = made.stopping.wait

    def interrupted(timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread() and log:
            raise KeyboardInterrupt
        return wait(timeout)

    made.stopping.wait = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        made.run()
    time.sleep(0.5)
    assert log[-1] == "closed"
    assert not [thread for thread in threading.enumerate() if thread.name in {"skerry-a", "skerry-in", "skerry-out"}]


def test_stopping_is_safe_wherever_a_signal_comes(tmp_path: Path) -> None:
    made = engine(tmp_path, source("in", Items(numbered(1))), sink("out", Collect()))

    def interrupted_at(line: int) -> bool:
        made = engine(tmp_path, source("in", Items(numbered(1))), sink("out", Collect()))
        count = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if event == "line":
                count += 1
                if count == line:
                    sys.settrace(None)
                    made.stop()  # as a signal handler would, in the midst of whatever the thread does
            return trace

        sys.settrace(trace)
        try:
            made.stopping.wait(0.01)
        finally:
            sys.settrace(None)
        return True

    before = sys.gettrace()
    try:
        for line in range(1, 40):
            within(5, partial(interrupted_at, line))
    finally:
        sys.settrace(before)
    made.abort()
    assert made.stopping.is_set()


def test_no_count_is_ever_shown_below_zero(tmp_path: Path) -> None:
    """The pipeline goes on between any two counters that a summary reads."""
    made = engine(
        tmp_path,
        source("in", Items(numbered(1_000_000), live=True)),
        stage("a", Call(lambda record: record if record.fields["n"] % 3 else None)),
        stage("b", Call(lambda record: [record, record] if record.fields["n"] % 2 else None)),
        sink("out", Collect(), queue=Queue(items=4, policy="drop_oldest")),
    )
    below: list[Any] = []

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(("accounts.py", "sourcing.py")):
            return None
        time.sleep(0.0002)
        return trace

    def look() -> None:
        sys.settrace(trace)
        try:
            for _ in range(5):
                summary = made.summary()
                for counts in [summary, *summary.stages]:
                    shown = [counts.items_in, counts.items_out, counts.in_flight]
                    below.extend([getattr(counts, "id", "all"), shown] for count in shown if count < 0)
        finally:
            sys.settrace(None)
            made.stop()

    watcher = threading.Thread(target=look)
    watcher.start()
    made.run()
    watcher.join()
    assert below == []


def test_what_a_stage_multiplied_while_the_counters_were_read_is_not_taken_from_what_went_out(tmp_path: Path) -> None:
    read, multiplied = threading.Event(), threading.Event()

    def wait_to_be_read(record: Record) -> Record:
        if record.fields["n"] == 0:
            watcher.start()
            assert read.wait(20)
        return record

    def twice(record: Record) -> list[Record]:
        if record.fields["n"] == 99:
            multiplied.set()
        return [record, record]

    made = engine(
        tmp_path,
        source("in", Items(numbered(100))),
        stage("a", Call(wait_to_be_read)),
        stage("b", Call(twice)),
        sink("out", Collect()),
    )
    shown: list[Any] = []

    def trace(frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith("accounts.py"):
            return None
        if "delivered" in frame.f_locals:
            read.set()
            assert multiplied.wait(20)
        return trace

    def look() -> None:
        sys.settrace(trace)
        try:
            shown.extend([counts.items_in, counts.items_out, counts.in_flight] for counts in made.summary().stages)
        finally:
            sys.settrace(None)

    watcher = threading.Thread(target=look)
    made.run()
    watcher.join()
    assert shown
    assert min(min(counts) for counts in shown) >= 0, shown


def test_the_time_awake_ends_with_the_run(tmp_path: Path) -> None:
    made = engine(tmp_path, source("in", Items(numbered(1))), sink("out", Collect()))
    made.run()
    time.sleep(0.05)
    assert made.summary().awake_s <= made.summary().wall_s + 0.01


# Ladder and duty


class Models:
    last_rung = 3

    def __init__(self) -> None:
        self.rung = 0

    def step_to(self, rung: int) -> None:
        self.rung = rung

    def load(self) -> None: ...

    def unload(self) -> None: ...

    def states(self) -> dict[str, Any]:
        return {}


def test_a_duty_cycle_that_ends_while_it_goes_to_sleep_lets_everybody_go() -> None:
    asleep = threading.Event()

    class Slow(Models):
        def unload(self) -> None:
            asleep.set()
            time.sleep(0.3)

    made = Conductor(LOG, duty=Duty(awake=Duration(0.01)), models=Slow())
    made.start(lambda: (0, 0))
    assert asleep.wait(5)
    made.stop()
    assert within(5, lambda: [made.admit(True)]) == [False]


@pytest.mark.parametrize("broken", ["vitals", "models"])
def test_the_ladder_outlives_what_it_asks(broken: str) -> None:
    calls = iter(range(1000))

    def vitals() -> Vitals:
        if broken == "vitals" and next(calls) == 0:
            raise OSError("sensor")
        return Vitals(memory_pressure=1.0)

    class Odd(Models):
        def step_to(self, rung: int) -> None:
            if broken == "models" and next(calls) == 0:
                raise RuntimeError("library")
            super().step_to(rung)

    models = Odd()
    ladder = Ladder(patience=Duration(0.0), every=Duration(0.01))
    made = Conductor(LOG, ladder=ladder, models=models, vitals=vitals)
    made.start(lambda: (0, 0))
    try:
        ends = time.monotonic() + 5
        while models.rung < 3 and time.monotonic() < ends:
            time.sleep(0.01)
    finally:
        made.stop()
    assert models.rung == 3


def test_records_that_expire_while_none_comes_in_are_missed_deadlines() -> None:
    missed = iter(range(0, 10_000, 5))
    models = Models()
    ladder = Ladder(patience=Duration(0.0), every=Duration(0.01), missed_deadlines=Share(0.5))
    made = Conductor(LOG, ladder=ladder, models=models)
    made.start(lambda: (next(missed), 100))
    try:
        ends = time.monotonic() + 5
        while models.rung < 3 and time.monotonic() < ends:
            time.sleep(0.01)
    finally:
        made.stop()
    assert models.rung == 3


@pytest.mark.parametrize("make", [Call, Batch])
def test_a_gate_wakes_for_what_it_lets_through_and_nothing_else(tmp_path: Path, make: Any) -> None:
    """One that works on batches is a gate too, and an empty list lets nothing through."""
    asleep = threading.Event()
    awake: list[bool] = []
    seen: list[int] = []

    class Slow(Items):
        def run(self, emit: Any, stop: Any) -> None:
            while not conductor.is_asleep:
                if stop.wait(0.01):
                    return
            asleep.set()
            emit({"n": 0})
            until(lambda: seen == [0])
            awake.append(not conductor.is_asleep)
            emit({"n": 1})
            until(lambda: not conductor.is_asleep)
            awake.append(True)

    def gate(record: Record) -> Any:
        seen.append(record.fields["n"])
        return record if record.fields["n"] else []

    conductor = Conductor(LOG, duty=Duty(awake=Duration(0.5), gate="g"))
    made = engine(
        tmp_path,
        source("in", Slow([], live=True)),
        stage("g", make(gate)),
        sink("out", Collect()),
        conductor=conductor,
    )
    made.run()
    assert asleep.is_set()
    assert awake == [False, True]


# Stages in processes


class Unloadable:
    """Can be pickled, and never read again."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


class Odd:
    """Does what the field ``do`` says; importable by the process."""

    Options = Options

    def __init__(self, options: Any) -> None:
        pass

    def open(self, context: Context) -> None:
        pass

    def process(self, record: Record) -> Any:
        fields = record.fields
        match fields.get("do"):
            case "lock":
                fields["lock"] = threading.Lock()
            case "unloadable":
                fields["odd"] = Unloadable()
            case "append":
                fields["list"].append(1)
                fields["mapping"]["new"] = 1
            case "in place":
                fields["array"] += 1
            case "double":
                fields["array"] = fields["array"] * 2
            case "sleep":
                time.sleep(30)
        return record

    def close(self) -> None:
        pass


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(name="work", home=tmp_path, state=tmp_path, stop=threading.Event(), log=LOG)


@pytest.fixture
def worker(context: Context) -> Iterator[ProcessStage]:
    made = ProcessStage(Odd, Options())
    made.open(context)
    yield made
    made.close()


@pytest.mark.parametrize(
    "bad", [{"odd": threading.Lock()}, {"odd": Unloadable()}, {"do": "lock"}, {"do": "unloadable"}]
)
def test_what_cannot_travel_fails_its_record_alone(worker: ProcessStage, bad: dict[str, Any]) -> None:
    records = [Record({"n": number, **(bad if number in {2, 5} else {})}) for number in range(9)]
    answers = worker.process_batch(records)
    assert [isinstance(answer, Exception) for answer in answers] == [number in {2, 5} for number in range(9)]
    assert [answer.fields["n"] for answer in answers if isinstance(answer, Record)] == [0, 1, 3, 4, 6, 7, 8]
    after = worker.process_batch([Record({"n": 10}), Record({"n": 11})])
    assert [answer.fields["n"] for answer in after] == [10, 11]  # type: ignore[union-attr]
    assert worker.restarts == 0


def test_large_records_both_ways_do_not_block_each_other(worker: ProcessStage) -> None:
    records = [Record({"do": "double", "array": np.full(3_000_000, number, np.uint8)}) for number in range(6)]
    answers = within(60, lambda: worker.process_batch(records))
    assert [int(answer.fields["array"][0]) for answer in answers] == [0, 2, 4, 6, 8, 10]


def test_a_list_that_is_changed_in_place_comes_back_changed(worker: ProcessStage) -> None:
    answer = worker.process(Record({"do": "append", "list": [0], "mapping": {}}))
    assert isinstance(answer, Record)
    assert answer.fields["list"] == [0, 1]
    assert answer.fields["mapping"] == {"new": 1}


def test_an_array_that_is_changed_in_place_is_not_silently_forgotten(worker: ProcessStage) -> None:
    with pytest.raises(ValueError, match="read-only"):
        worker.process(Record({"do": "in place", "array": np.zeros(100)}))


def test_a_process_that_died_while_idle_costs_no_record(worker: ProcessStage) -> None:
    assert worker._process is not None
    worker._process.kill()
    worker._process.join(5)
    answers = worker.process_batch([Record({"n": 0}), Record({"n": 1})])
    assert [isinstance(answer, Record) for answer in answers] == [True, True]
    assert worker.restarts == 1


def test_closing_a_busy_stage_starts_no_other_process(worker: ProcessStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "_CLOSE_S", 0.2)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            errors.extend(
                answer for answer in worker.process_batch([Record({"do": "sleep"})]) if isinstance(answer, Exception)
            )
        except Exception as error:  # noqa: BLE001 -- looked at below
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    time.sleep(0.3)
    worker.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(errors[0], StageError)
    assert worker._process is None
    assert worker.restarts == 0


def test_a_process_that_cannot_be_started_leaves_no_memory(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing.context

    names: list[str] = []

    class Watched(shared_memory.SharedMemory):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            names.append(self.name)

    def fail(self: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr("skerry.run.ring.SharedMemory", Watched)
    monkeypatch.setattr(multiprocessing.context.ForkServerProcess, "start", fail)
    made = ProcessStage(Odd, Options())
    with pytest.raises(StageError, match="no more processes"):
        made.open(context)
    made.close()
    assert names
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(names[0])


def test_a_record_kept_and_sent_with_a_merged_one_is_on_its_way_still(tmp_path: Path) -> None:
    """A stage may send a window on together with the record that closed it."""
    held: list[Record] = []

    def process(record: Record) -> Any:
        if record.fields["n"] % 3 < 2:
            held.append(record)
            return HELD
        window = Merged(held[0].with_fields({"n": "window"}), len(held))
        held.clear()
        return [window, record]

    out, items = Collect(), Items(numbered(6))
    made = engine(tmp_path, source("in", items), stage("a", Call(process)), sink("out", out))
    summary = made.run()
    assert out.numbers() == ["window", 2, "window", 5]
    assert (summary.items_in, summary.items_out, summary.absorbed, summary.emitted) == (6, 4, 2, 0)


def test_a_thread_that_died_is_the_error_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skerry.run.chain import Chain

    def break_down(self: Chain, *rest: Any) -> None:
        raise RuntimeError("a fault of the engine")

    monkeypatch.setattr(Chain, "_branch", break_down)
    made = engine(
        tmp_path,
        source("in", Items(numbered(3), live=True)),
        stage("a", Call(lambda record: None)),
        sink("out", Collect()),
    )
    with pytest.raises(EngineError, match="a fault of the engine"):
        made.run()


def test_no_node_may_have_the_name_of_the_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        "skerry: 1\nname: x\nsource: file://in.jsonl\nsinks:\n- {to: 'jsonl://out.jsonl', id: dead_letter}\n"
        "dead_letter: jsonl://dead.jsonl\n"
    )
    with pytest.raises(SpecError, match="dead_letter"):
        assemble(read_project(tmp_path), log=LOG)
