"""The engine: fusing, fan-in and fan-out, policies, batches, workers, deadlines, supervision, draining."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.run.expression import Expression
from skerry.spec.errors import DrainTimeoutError, SourceUnavailableError, SpecError, StageError
from skerry.spec.pipeline import Queue
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size
from tests.run.parts import Batch, Call, Collect, Items, Pairs, engine, flaky, numbered, sink, source, stage


def same(record: Record) -> Record:
    return record


def slowly(seconds: float) -> Any:
    def process(record: Record) -> Record:
        time.sleep(seconds)
        return record

    return process


def by_id(summary: Any) -> dict[str, Any]:
    return {entry.id: entry for entry in summary.stages}


def test_a_pull_source_and_its_stages_share_one_thread(tmp_path: Path) -> None:
    threads: set[int] = set()

    def note(record: Record) -> Record:
        threads.add(threading.get_ident())
        return record

    out = Collect(blocking=False)
    made = engine(
        tmp_path, source("in", Items(numbered(50))), stage("a", Call(note)), stage("b", Call(note)), sink("out", out)
    )
    assert [segment.nodes for segment in made.plan.segments] == [("in", "a", "b", "out")]
    summary = made.run()
    assert len(threads) == 1
    assert summary.items_out == 50
    assert out.numbers() == list(range(50))


def test_a_frame_is_never_copied(tmp_path: Path) -> None:
    frame = np.zeros((480, 640, 3), np.uint8)
    seen: list[Any] = []

    def look(record: Record) -> Record:
        seen.append(record.fields["frame"])
        return record

    outs = [Collect(), Collect(blocking=False)]
    nodes = [stage(f"s{number}", Call(look)) for number in range(5)]
    made = engine(
        tmp_path, source("in", Items([{"frame": frame}], live=True)), *nodes, sink("x", outs[0]), sink("y", outs[1])
    )
    made.run()
    assert len(seen) == 5
    assert all(found is frame for found in seen)
    assert all(out.got[0].fields["frame"] is frame for out in outs)
    assert outs[0].got[0].fields is not outs[1].got[0].fields


def test_fan_in_and_fan_out_count_every_record_once(tmp_path: Path) -> None:
    left, right = Collect(), Collect(blocking=False)
    made = engine(
        tmp_path,
        source("a", Items(numbered(100), live=True)),
        source("b", Items(numbered(40))),
        stage("join", Call(same)),
        stage("even", Call(lambda record: record if record.fields["n"] % 2 == 0 else None), after="join"),
        stage("all", Call(same), after="join"),
        sink("left", left, after="even"),
        sink("right", right, after="all"),
    )
    summary = made.run()
    assert (summary.items_in, summary.items_out, summary.filtered, summary.emitted) == (140, 140, 0, 0)
    assert len(left.got) == 70
    assert len(right.got) == 140


def test_a_record_that_no_branch_delivers_takes_the_gravest_fate(tmp_path: Path) -> None:
    def fail(record: Record) -> Record:
        raise ValueError

    made = engine(
        tmp_path,
        source("in", Items(numbered(10))),
        stage("top", Call(same)),
        stage("fails", Call(fail), after="top"),
        stage("filters", Call(lambda record: None), after="top"),
        sink("out", Collect(), after=["fails", "filters"]),
    )
    summary = made.run()
    assert (summary.failed, summary.filtered, summary.items_out) == (10, 0, 0)


def test_batches_are_what_is_queued_and_answers_keep_their_order(tmp_path: Path) -> None:
    batched, out = Batch(same, max_batch=16), Collect()
    made = engine(tmp_path, source("in", Items(numbered(500), live=True)), stage("batch", batched), sink("out", out))
    made.run()
    assert out.numbers() == list(range(500))
    assert sum(batched.sizes) == 500
    assert max(batched.sizes) <= 16


def test_one_bad_record_does_not_spoil_its_batch(tmp_path: Path) -> None:
    def picky(record: Record) -> Record:
        if record.fields["n"] == 7:
            raise ValueError("seven")
        return record

    out = Collect()
    made = engine(
        tmp_path, source("in", Items(numbered(20), live=True)), stage("batch", Batch(picky)), sink("out", out)
    )
    summary = made.run()
    assert out.numbers() == [number for number in range(20) if number != 7]
    assert by_id(summary)["batch"].reasons == {"failed": {"ValueError": 1}}


def test_workers_have_instances_of_their_own_and_lose_nothing(tmp_path: Path) -> None:
    made_stages: list[Call] = []

    def make() -> Call:
        made_stages.append(Call(slowly(0.001)))
        return made_stages[-1]

    out = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(200))),
        stage("work", make, workers=4),
        stage("then", Call(same)),
        sink("out", out),
    )
    summary = made.run()
    assert sum(call.opened for call in made_stages) == 4
    assert sum(call.closed for call in made_stages) >= 4
    assert sorted(out.numbers()) == list(range(200))
    assert by_id(summary)["work"].items_in == 200


def test_windows_absorb_and_their_rest_comes_out_at_the_end(tmp_path: Path) -> None:
    out = Collect()
    made = engine(tmp_path, source("in", Items(numbered(11))), stage("pairs", Pairs(4)), sink("out", out))
    summary = made.run()
    assert out.numbers() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert (summary.items_in, summary.items_out, summary.absorbed, summary.emitted) == (11, 3, 8, 0)


def test_a_window_ticks_while_its_source_is_silent(tmp_path: Path) -> None:
    out = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(3), pauses={2: 0.4})),
        stage("pairs", Pairs(10, tick_s=0.1)),
        sink("out", out),
    )
    assert made.plan.live_sources == ("in",)
    made.run()
    assert out.numbers() == [[0, 1], [2]]


def test_what_a_stage_multiplies_is_counted_as_emitted(tmp_path: Path) -> None:
    def triple(record: Record) -> Any:
        return [record, record.with_fields({"n": -1}), record.with_fields({"n": -2})]

    out = Collect()
    summary = engine(tmp_path, source("in", Items(numbered(10))), stage("triple", Call(triple)), sink("out", out)).run()
    assert (summary.items_in, summary.emitted, summary.items_out) == (10, 20, 30)
    assert by_id(summary)["triple"].emitted == 20


def test_when_lets_other_records_pass_unchanged(tmp_path: Path) -> None:
    def mark(record: Record) -> Record:
        record.fields["marked"] = True
        return record

    out = Collect()
    when = Expression("n > 2")
    for made_stage in (Call(mark), Batch(mark)):
        out.got.clear()
        engine(tmp_path, source("in", Items(numbered(5))), stage("mark", made_stage, when=when), sink("out", out)).run()
        assert ["marked" in record.fields for record in out.got] == [False, False, False, True, True]
        (tmp_path / "positions.json").unlink()


def test_late_records_expire(tmp_path: Path) -> None:
    made = engine(
        tmp_path,
        source("in", Items(numbered(20), live=True)),
        stage("slow", Call(slowly(0.02))),
        sink("out", Collect()),
        deadline_ns=50_000_000,
    )
    summary = made.run()
    assert summary.expired > 0
    assert summary.items_in == 20 == summary.items_out + summary.expired


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
def test_a_full_queue_drops_by_its_policy(tmp_path: Path, policy: Any) -> None:
    out = Collect()
    gate = threading.Event()

    def wait(record: Record) -> Record:
        gate.wait(5)
        return record

    class Opening(Items):
        def run(self, emit: Any, stop: Any) -> None:
            super().run(emit, stop)
            gate.set()

    made = engine(
        tmp_path,
        source("in", Opening(numbered(300), live=True)),
        stage("slow", Call(wait), queue=Queue(items=10, policy=policy)),
        sink("out", out),
    )
    summary = made.run()
    assert summary.dropped == 300 - len(out.got) > 0
    if policy == "drop_newest":
        assert out.numbers()[0] == 0
    else:
        assert out.numbers()[-1] == 299


def test_a_queue_is_bounded_by_bytes_and_by_time(tmp_path: Path) -> None:
    out = Collect()
    queue = Queue(bytes=Size(50), policy="drop_oldest", ttl=Duration(0.05))
    gate = threading.Event()

    def wait(record: Record) -> Record:
        gate.wait(0.3)
        return record

    made = engine(
        tmp_path,
        source("in", Items(numbered(100), live=True)),
        stage("slow", Call(wait), queue=queue),
        sink("out", out),
    )
    summary = made.run()
    reasons = by_id(summary)["slow"].reasons
    assert reasons["dropped"]["queue full"] > 0
    assert summary.items_out + summary.dropped + summary.expired == 100


def test_a_failing_stage_retries_and_then_succeeds(tmp_path: Path) -> None:
    tries: dict[int, int] = {}

    def third_time(record: Record) -> Record:
        number = record.fields["n"]
        tries[number] = tries.get(number, 0) + 1
        if tries[number] < 3:
            raise OSError("not yet")
        return record

    out = Collect()
    summary = engine(
        tmp_path, source("in", Items(numbered(3))), stage("try", Call(third_time), on_error="retry"), sink("out", out)
    ).run()
    assert out.numbers() == [0, 1, 2]
    assert summary.failed == 0


def test_failures_reach_the_dead_letter(tmp_path: Path) -> None:
    letters, out = Collect(), Collect()

    def picky(record: Record) -> Record:
        if record.fields["n"] % 2:
            raise ValueError("odd")
        return record

    made = engine(
        tmp_path,
        source("in", Items(numbered(10))),
        stage("picky", Call(picky), on_error="dead_letter"),
        sink("out", out),
        dead_letter=letters,
    )
    summary = made.run()
    assert summary.failed == 5 == len(letters.got)
    assert letters.got[0].fields == {"n": 1, "_stage": "picky", "_error": "ValueError: odd"}


def test_what_was_tried_again_in_vain_reaches_the_dead_letter_too(tmp_path: Path) -> None:
    letters = Collect()

    def picky(record: Record) -> Record:
        if record.fields["n"] == 3:
            raise ValueError("three")
        return record

    summary = engine(
        tmp_path, source("in", Items(numbered(6))), stage("picky", Call(picky), on_error="retry", retries=1),
        sink("inline", Collect(blocking=False, bad=lambda record: record.fields["n"] == 1), after="picky"),
        sink("queued", Collect(bad=lambda record: record.fields["n"] == 2), after="picky"), dead_letter=letters,
    ).run()  # fmt: skip
    told = {(letter.fields["_stage"], letter.fields["n"]) for letter in letters.got}
    assert told == {("picky", 3), ("inline", 1), ("queued", 2)}
    # Copies count by the best of their fates, and the others of 1 and 2 arrived.
    assert summary.failed == 1


def test_what_a_sink_that_is_down_leaves_for_the_next_run_is_no_dead_letter(tmp_path: Path) -> None:
    letters = Collect()
    engine(
        tmp_path, source("in", Items(numbered(3))), sink("out", Collect(down=lambda writes: True)),
        dead_letter=letters, drain_s=0.2,
    ).run()  # fmt: skip
    assert not letters.got


def test_a_stage_may_stop_the_run(tmp_path: Path) -> None:
    def third(record: Record) -> Record:
        if record.fields["n"] == 3:
            raise ValueError("three")
        return record

    made = engine(
        tmp_path,
        source("in", Items(numbered(100))),
        stage("fatal", Call(third), on_error="stop"),
        sink("out", Collect()),
    )
    with pytest.raises(StageError, match="three"):
        made.run()
    assert made.summary().status == "failed"
    assert made.summary().failed == 1


def test_a_stage_that_fails_many_times_in_a_row_is_opened_anew(tmp_path: Path) -> None:
    class Sick(Call):
        def open(self, context: Any) -> None:
            super().open(context)
            self.well = self.opened > 1

        def __init__(self) -> None:
            super().__init__(self.answer)
            self.well = False

        def answer(self, record: Record) -> Record:
            if not self.well:
                raise RuntimeError("sick")
            return record

    sick = Sick()
    summary = engine(tmp_path, source("in", Items(numbered(30))), stage("sick", sick), sink("out", Collect())).run()
    assert summary.failed == 8
    assert by_id(summary)["sick"].restarts == 1


def test_a_source_that_breaks_goes_on_where_it_was(tmp_path: Path) -> None:
    class Breaking(Items):
        broken = False

        def run(self, emit: Any, stop: Any) -> None:
            for number in range(self._start, len(self.items)):
                if number == 5 and not self.broken:
                    self.broken = True
                    raise OSError("unplugged")
                emit(dict(self.items[number]), position=number + 1)

    out = Collect()
    for live in (False, True):
        out.got.clear()
        folder = tmp_path / str(live)
        folder.mkdir()
        summary = engine(folder, source("in", Breaking(numbered(10), live=live)), sink("out", out)).run()
        assert out.numbers() == list(range(10))
        assert by_id(summary)["in"].restarts == 1


def test_a_source_that_never_comes_up_says_so(tmp_path: Path) -> None:
    class Missing(Items):
        def open(self, context: Any, position: Any) -> None:
            raise SourceUnavailableError("there is no such thing")

    made = engine(tmp_path, source("in", Missing([])), sink("out", Collect()))
    with pytest.raises(SourceUnavailableError, match="never came up: there is no such thing"):
        made.run(duration_s=0.3)
    given_up = engine(tmp_path, source("in", Missing([]), within=Duration(0.05)), sink("out", Collect()))
    with pytest.raises(SourceUnavailableError):
        given_up.run()


def test_positions_are_committed_only_when_everything_before_is_settled(tmp_path: Path) -> None:
    items = Items(numbered(100), live=True)
    engine(
        tmp_path, source("in", items), stage("work", lambda: Call(slowly(0.0005)), workers=3), sink("out", Collect())
    ).run()
    assert items.committed == 100
    again = Collect()
    summary = engine(tmp_path, source("in", Items(numbered(120))), sink("out", again)).run()
    assert again.numbers() == list(range(100, 120))
    assert summary.items_in == 20


def test_a_sink_that_is_down_for_a_while_loses_nothing_and_stalls_nobody(tmp_path: Path) -> None:
    sick, healthy = Collect(down=lambda writes: writes < 4), Collect()
    summary = engine(tmp_path, source("in", Items(numbered(200))), sink("sick", sick), sink("healthy", healthy)).run()
    assert sick.numbers() == healthy.numbers() == list(range(200))
    assert summary.items_out == 200


def test_a_sink_that_stays_down_fails_its_records_and_only_its_own(tmp_path: Path) -> None:
    dead, healthy = Collect(down=lambda writes: True), Collect()
    queue = Queue(items=16)
    summary = engine(
        tmp_path,
        source("in", Items(numbered(300))),
        sink("dead", dead, queue=queue),
        sink("healthy", healthy),
        drain_s=0.2,
    ).run()
    assert healthy.numbers() == list(range(300))
    assert summary.items_out == 300
    assert by_id(summary)["dead"].failed == 300
    reasons = by_id(summary)["dead"].reasons["failed"]
    assert sum(reasons.values()) == 300
    assert set(reasons) <= {"sink down", "sink down at the end"}


def test_a_sink_that_is_wrong_as_written_ends_the_run(tmp_path: Path) -> None:
    class Wrong(Collect):
        def open(self, context: Any) -> None:
            raise SpecError("plain text on a network")

    made = engine(tmp_path, source("in", Items(numbered(3))), sink("wrong", Wrong()), drain_s=0.1)
    with pytest.raises(SpecError, match="plain text"):
        made.run()


def test_one_record_that_a_sink_refuses_fails_alone(tmp_path: Path) -> None:
    out = Collect(bad=lambda record: record.fields["n"] == 42)
    summary = engine(tmp_path, source("in", Items(numbered(100))), sink("out", out)).run()
    assert out.numbers() == [number for number in range(100) if number != 42]
    assert summary.failed == 1


def test_only_the_chosen_fields_reach_a_sink(tmp_path: Path) -> None:
    outs = [Collect(), Collect(blocking=False)]
    items = Items([{"n": 1, "secret": 2}])
    engine(
        tmp_path, source("in", items), *(sink(f"o{index}", out, fields=["n"]) for index, out in enumerate(outs))
    ).run()
    assert [out.got[0].fields for out in outs] == [{"n": 1}, {"n": 1}]


def test_stopping_drains_what_was_read(tmp_path: Path) -> None:
    out = Collect()
    made = engine(
        tmp_path,
        source("in", Items(numbered(100_000), live=True)),
        stage("work", Call(slowly(0.0002))),
        sink("out", out),
    )
    threading.Timer(0.2, made.stop).start()
    summary = made.run()
    assert 0 < summary.items_in < 100_000
    assert summary.items_in == summary.items_out == len(out.got)


def test_what_does_not_fit_the_drain_is_dropped_and_counted(tmp_path: Path) -> None:
    made = engine(
        tmp_path, source("in", Items(numbered(500), live=True)), stage("slow", Call(slowly(0.05))),
        sink("out", Collect()), drain_s=0.2,
    )  # fmt: skip
    summary = made.run(duration_s=0.2)
    assert by_id(summary)["slow"].reasons["dropped"]["shutdown"] > 0
    again = Collect()
    engine(tmp_path, source("in", Items(numbered(500))), sink("out", again)).run()
    assert again.numbers() == list(range(summary.items_out, 500))


def test_a_stage_that_never_answers_is_named(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(record: Record) -> Record:
        release.wait(20)
        return record

    made = engine(
        tmp_path,
        source("in", Items(numbered(3), live=True)),
        stage("hangs", Call(hang)),
        sink("out", Collect()),
        drain_s=0.1,
    )
    with pytest.raises(DrainTimeoutError, match="hangs"):
        made.run(duration_s=0.1)
    release.set()


def test_a_run_can_be_limited_in_items(tmp_path: Path) -> None:
    out = Collect()
    summary = engine(tmp_path, source("in", Items(numbered(1000), live=True)), sink("out", out)).run(max_items=37)
    assert summary.items_in == 37 == len(out.got)


@pytest.mark.parametrize("timing", ["adaptive", "every", "sampled"])
def test_timing_does_not_change_the_counts(tmp_path: Path, timing: Any) -> None:
    out = Collect()
    nodes = [
        source("in", Items(numbered(1000))),
        stage("a", Call(flaky(1, fail=0.1, drop=0.1, split=0.1))),
        stage("b", Call(same)),
        sink("out", out),
    ]
    summary = engine(tmp_path, *nodes, timing=timing).run()
    assert summary.items_out == len(out.got)
    assert by_id(summary)["b"].latency_ms.p50 is not None
