"""Faults that a review of the engine found: what goes wrong in plugins must cost one record, and never the truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skerry.run.progress import Progress
from skerry.spec.errors import SinkUnavailableError, SourceError
from skerry.spec.pipeline import Queue
from skerry.spec.record import Merged, Record
from skerry.spec.units import Size
from tests.run.parts import Batch, Call, Collect, Items, Pairs, engine, numbered, sink, source, stage


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


# What stages may answer


@pytest.mark.parametrize("timing", ["every", "adaptive", "sampled"])
@pytest.mark.parametrize(
    "wrong", ["text", ("a", "tuple"), ["text"], [1, 2], ValueError("returned"), 3, [Merged("text", 1)]]  # type: ignore[arg-type]
)  # fmt: skip
def test_a_wrong_answer_fails_its_record_alone(tmp_path: Path, timing: Any, wrong: Any) -> None:
    out = Collect()

    def answers(record: Record) -> Any:
        return wrong if record.fields["n"] == 1 else record

    made = engine(
        tmp_path, source("in", Items(numbered(3))), stage("a", Call(answers)), sink("out", out), timing=timing
    )
    summary = made.run()
    assert out.numbers() == [0, 2]
    assert summary.failed == 1


@pytest.mark.parametrize("wrong", ["text", ["text"], ValueError("returned")])
def test_a_retry_may_mend_a_wrong_answer(tmp_path: Path, wrong: Any) -> None:
    out = Collect()
    answers = iter([wrong, "again", None, None])

    def process(record: Record) -> Any:
        return next(answers) or record

    made = engine(
        tmp_path, source("in", Items(numbered(2))), stage("a", Call(process), on_error="retry"), sink("out", out)
    )
    made.run()
    assert out.numbers() == [0, 1]


@pytest.mark.parametrize("wrong", ["text", ["text"], ValueError("as told")])
def test_a_wrong_answer_in_a_batch_fails_its_record_alone(tmp_path: Path, wrong: Any) -> None:
    out = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(20))),
        stage("a", Batch(lambda record: wrong if record.fields["n"] == 3 else record)),
        sink("out", out),
    )
    summary = made.run()
    assert out.numbers() == [number for number in range(20) if number != 3]
    assert summary.failed == 1


@pytest.mark.parametrize("due", [None, 7, ["text"], [None]])
def test_a_window_that_sends_nonsense_ends_nothing(tmp_path: Path, due: Any) -> None:
    class Odd(Pairs):
        def flush(self) -> Any:
            return due

    out = Collect()
    made = engine(tmp_path, source("in", Items(numbered(3))), stage("w", Odd(2)), sink("out", out))
    summary = made.run()
    assert out.numbers() == [[0, 1]]
    assert summary.imbalance() == {}


def test_the_parts_of_a_split_record_keep_their_order(tmp_path: Path) -> None:
    out = Collect()

    def split(record: Record) -> Any:
        return [record.with_fields({"n": f"{record.fields['n']}{letter}"}) for letter in "abc"]

    engine(tmp_path, source("in", Items(numbered(2))), stage("a", Call(split)), sink("out", out)).run()
    assert out.numbers() == ["0a", "0b", "0c", "1a", "1b", "1c"]


def test_a_stage_may_answer_with_a_record_of_its_own_making(tmp_path: Path) -> None:
    items, out = Items(numbered(5)), Collect()
    made = engine(
        tmp_path,
        source("in", items),
        stage("a", Call(lambda record: Record({"n": record.fields["n"]}))),
        stage("b", Call(lambda record: Record({"n": record.fields["n"]})), after="in"),
        sink("out", out, after=["a", "b"]),
    )
    summary = made.run()
    assert summary.items_out == 5
    assert items.committed == 5


def test_fields_that_are_no_mapping_fail_their_record_alone(tmp_path: Path) -> None:
    outs = Collect(), Collect()

    def process(record: Record) -> Any:
        return record.with_fields([1]) if record.fields["n"] == 1 else record  # type: ignore[arg-type]

    made = engine(
        tmp_path, source("in", Items(numbered(3))), stage("a", Call(process)), sink("x", outs[0]), sink("y", outs[1])
    )
    summary = made.run()
    assert [out.numbers() for out in outs] == [[0, 2], [0, 2]]
    assert summary.failed == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("make", [Call, Batch])
def test_what_is_no_exception_fails_its_record_alone(tmp_path: Path, kind: Any, make: Any) -> None:
    out = Collect()

    def process(record: Record) -> Any:
        if record.fields["n"] == 1:
            raise kind
        return record

    made = engine(tmp_path, source("in", Items(numbered(3))), stage("a", make(process)), sink("out", out))
    summary = made.run()
    assert out.numbers() == [0, 2]
    assert summary.stages[1].reasons == {"failed": {kind.__name__: 1}}


def test_an_error_that_cannot_be_put_into_words_fails_its_record_alone(tmp_path: Path) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def process(record: Record) -> Any:
        raise MuteError

    letters = Collect()
    made = engine(
        tmp_path, source("in", Items(numbered(2))), stage("a", Call(process), on_error="dead_letter"),
        sink("out", Collect()), dead_letter=letters,
    )  # fmt: skip
    assert made.run().failed == 2
    assert len(letters.got) == 2


def test_without_retries_the_error_is_the_stages_own(tmp_path: Path) -> None:
    def process(record: Record) -> Any:
        raise ValueError("the true reason")

    made = engine(
        tmp_path, source("in", Items(numbered(1))), stage("a", Call(process), on_error="retry", retries=0),
        sink("out", Collect()),
    )  # fmt: skip
    assert made.run().stages[1].reasons == {"failed": {"ValueError": 1}}


def test_failures_between_answers_are_not_in_a_row(tmp_path: Path) -> None:
    def process(record: Record) -> Any:
        if record.fields["n"] % 2 == 0:
            raise ValueError("every second one")
        return record

    work = Call(process)
    made = engine(
        tmp_path, source("in", Items(numbered(64))), stage("a", work), sink("out", Collect()), timing="sampled"
    )
    made.run()
    assert work.opened == 1


def test_a_tick_does_not_wait_for_a_whole_handful(tmp_path: Path) -> None:
    ticks: list[int] = []

    class Ticking(Pairs):
        def process(self, record: Record) -> Any:
            time.sleep(0.005)
            return super().process(record)

        def tick(self, now_ns: int) -> Any:
            ticks.append(now_ns)
            return super().tick(now_ns)

    made = engine(
        tmp_path, source("in", Items(numbered(40), live=True)), stage("w", Ticking(1000, 0.01)), sink("out", Collect())
    )
    made.run()
    assert len(ticks) > 5


# Positions


class Mixed(Items):
    """Gives every third item a position only."""

    def run(self, emit: Any, stop: Any) -> None:
        for number in range(self._start, len(self.items)):
            emit(dict(self.items[number]), position=number + 1 if number % 3 == 2 else None)


def test_items_without_a_position_do_not_hold_up_the_others(tmp_path: Path) -> None:
    items = Mixed(numbered(9))
    made = engine(tmp_path, source("in", items), sink("out", Collect()))
    made.run()
    assert items.committed == 9


def test_an_item_without_a_position_is_settled_before_a_later_one_is(tmp_path: Path) -> None:
    gate = threading.Event()
    seen: list[Any] = []

    def hold_up(record: Record) -> Any:
        if record.fields["n"] == 3:
            assert gate.wait(20)
        return record

    class Watched(Mixed):
        def run(self, emit: Any, stop: Any) -> None:
            super().run(emit, stop)
            until(lambda: self.committed is not None)
            stop.wait(0.2)
            seen.append(self.committed)
            gate.set()

    items = Watched(numbered(9), live=True)
    made = engine(
        tmp_path, source("in", items), stage("a", lambda: Call(hold_up), workers=2, queue=Queue(items=100)),
        sink("out", Collect()),
    )  # fmt: skip
    made.run()
    assert seen == [3]
    assert items.committed == 9


def test_one_stuck_record_does_not_cost_memory_for_every_other() -> None:
    progress = Progress()
    for number in range(2, 10_000):
        progress.settle(number, number)
    held = sum(len(value) for value in vars(progress).values() if isinstance(value, dict))
    assert held < 10
    progress.settle(1, 1)
    assert progress.position() == 9_999


def test_a_position_that_is_no_json_costs_the_memory_of_it_only(tmp_path: Path) -> None:
    closed: list[str] = []

    class Odd(Items):
        def run(self, emit: Any, stop: Any) -> None:
            for number in range(3):
                emit({"n": number}, position={"file": "\udc80", "set": {number}})

        def close(self) -> None:
            closed.append("source")

    out = Collect()
    work = Call(same)
    summary = engine(tmp_path, source("in", Odd([])), stage("a", work), sink("out", out)).run()
    assert summary.items_out == 3
    assert work.closed == 1
    assert closed == ["source"]


def test_a_commit_that_found_the_source_closed_is_made_up_for(tmp_path: Path) -> None:
    settled = threading.Event()

    class Breaking(Items):
        broken = False

        def run(self, emit: Any, stop: Any) -> None:
            if not self.broken:
                self.broken = True
                emit({"n": 0}, position=1)
                raise SourceError("the link is gone")
            until(lambda: self.committed == 1)

    class Late(Collect):
        def flush(self) -> None:
            super().flush()
            if self.got:
                settled.set()

    items = Breaking([], live=True)
    engine(tmp_path, source("in", items), sink("out", Late()), sync_s=0.01).run()
    assert settled.is_set()
    assert items.committed == 1


def test_refused_items_do_not_use_up_the_quota(tmp_path: Path) -> None:
    class Impatient(Items):
        def run(self, emit: Any, stop: Any) -> None:
            for number in range(10_000):
                while not emit({"n": number}, wait=False):
                    if stop.is_set():
                        return
                    time.sleep(0.001)

    out = Collect()
    made = engine(
        tmp_path, source("in", Impatient([], live=True)), stage("a", Call(same), queue=Queue(items=1)),
        sink("out", out, queue=Queue(items=1)),
    )  # fmt: skip
    summary = made.run(max_items=40)
    assert summary.items_in == 40
    assert out.numbers() == list(range(40))


def test_an_item_that_may_not_wait_is_refused_by_several_branches_too(tmp_path: Path) -> None:
    free = threading.Event()
    answers: list[bool] = []

    class Impatient(Items):
        def run(self, emit: Any, stop: Any) -> None:
            answers.extend(emit({"n": number}, wait=False) for number in range(8))
            free.set()

    def slow(record: Record) -> Any:
        assert free.wait(5), "the source waited"
        return record

    made = engine(
        tmp_path,
        source("in", Impatient([], live=True)),
        stage("a", Call(slow), queue=Queue(items=2)),
        stage("b", Call(same), after="in", queue=Queue(items=100)),
        sink("out", Collect(), after=["a", "b"]),
    )
    summary = made.run()
    assert False in answers
    assert summary.items_in == answers.count(True)
    assert summary.failed == 0


# Sinks


def test_a_sink_that_breaks_in_closing_spoils_nothing(tmp_path: Path) -> None:
    class Odd(Collect):
        def close(self) -> None:
            raise RuntimeError("close")

    tries = iter([True, False])
    out = Odd(down=lambda writes: next(tries, False))
    summary = engine(tmp_path, source("in", Items(numbered(3))), sink("out", out)).run()
    assert summary.status == "done"
    assert out.numbers() == [0, 1, 2]


def test_a_source_that_breaks_in_closing_comes_up_again(tmp_path: Path) -> None:
    class Odd(Items):
        runs = 0

        def run(self, emit: Any, stop: Any) -> None:
            self.runs += 1
            if self.runs == 1:
                raise SourceError("gone")
            super().run(emit, stop)

        def close(self) -> None:
            if self.runs == 1:
                raise RuntimeError("close")

    out = Collect()
    engine(tmp_path, source("in", Odd(numbered(3))), sink("out", out)).run()
    assert out.numbers() == [0, 1, 2]


def test_a_sink_that_is_no_exception_away_from_death_fails_its_record_alone(tmp_path: Path) -> None:
    class Odd(Collect):
        def write(self, records: Any) -> None:
            if any(record.fields["n"] == 1 for record in records):
                raise SystemExit(3)
            super().write(records)

    out = Odd()
    summary = engine(tmp_path, source("in", Items(numbered(3))), sink("out", out)).run()
    assert out.numbers() == [0, 2]
    assert summary.failed == 1


def test_a_sink_whose_flush_never_works_uses_up_its_retries(tmp_path: Path) -> None:
    class Unsure(Collect):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1
            raise SinkUnavailableError("the disk is gone")

    out = Unsure()
    summary = engine(tmp_path, source("in", Items(numbered(3))), sink("out", out, retries=2), drain_s=20.0).run()
    assert summary.failed == 3
    assert out.flushes < 10


def test_a_sink_that_is_down_holds_nobody_up_over_bytes(tmp_path: Path) -> None:
    out = Collect(down=lambda writes: True)
    other = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(500), live=True)),
        sink("out", out, queue=Queue(bytes=Size(25))),
        sink("other", other),
        drain_s=3.0,
    )
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    ends = time.monotonic() + 20
    while len(other.got) < 5 and time.monotonic() < ends:
        time.sleep(0.01)
    made.abort()
    thread.join(20)
    assert len(other.got) >= 5


def test_what_a_stopped_run_could_not_write_is_read_again(tmp_path: Path) -> None:
    down = Collect(down=lambda writes: writes > 0)
    with pytest.raises(SinkUnavailableError):
        engine(tmp_path, source("in", Items(numbered(20))), sink("out", down, on_error="stop")).run()
    out = Collect()
    engine(tmp_path, source("in", Items(numbered(20))), sink("out", out)).run()
    assert out.numbers() == list(range(20))


def test_a_failed_record_is_settled_only_when_its_letter_is_durable(tmp_path: Path) -> None:
    flushing, seen = threading.Event(), []

    class Slow(Collect):
        def flush(self) -> None:
            if self._unsynced and not flushing.is_set():
                flushing.set()
                time.sleep(0.3)
                seen.append(items.committed)
            super().flush()

    def process(record: Record) -> Any:
        raise ValueError("bad")

    items, letters = Items(numbered(3)), Slow()
    made = engine(
        tmp_path, source("in", items), stage("a", Call(process), on_error="dead_letter"), sink("out", Collect()),
        dead_letter=letters,
    )  # fmt: skip
    summary = made.run()
    assert seen == [None]
    assert len(letters.got) == 3
    assert items.committed == 3
    assert summary.failed == 3


def test_a_letter_that_was_not_written_is_read_again(tmp_path: Path) -> None:
    def process(record: Record) -> Any:
        raise ValueError("bad")

    items = Items(numbered(3))
    made = engine(
        tmp_path, source("in", items), stage("a", Call(process), on_error="dead_letter"), sink("out", Collect()),
        dead_letter=Collect(down=lambda writes: True), drain_s=0.2,
    )  # fmt: skip
    summary = made.run()
    assert summary.failed + summary.dropped == 3
    assert items.committed is None
