"""Windows and resampling: what they make of records, and that their books are right whatever comes in."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.run.aggregate import aggregate
from skerry.run.stages.resample import ResampleStage
from skerry.run.stages.window import WindowStage
from skerry.spec.errors import StageError
from skerry.spec.record import HELD, Merged, Record
from skerry.testing.stages import SECOND, Ledger, decode_options, open_stage, records, run


def at(*pairs: tuple[float, float]) -> list[Record]:
    """Return records with the value ``x``, read at ``t`` seconds."""
    return [
        Record({"x": value, "t": moment}, source="test", sequence=number, read_ns=round(moment * SECOND))
        for number, (moment, value) in enumerate(pairs, start=1)
    ]


def fields_of(stage: Any, several: list[Record]) -> list[dict[str, Any]]:
    ledger = Ledger()
    found = [record.fields for record in run(stage, several, ledger)]
    assert ledger.held == 0
    return found


def test_tumbling_by_count(tmp_path: Path) -> None:
    stage = open_stage(WindowStage, {"fields": ["x"], "items": 2}, tmp_path)
    first, second, third = records([{"x": 1.0}, {"x": 3.0}, {"x": 5.0}])
    assert stage.process(first) is HELD
    [emission] = stage.process(second)
    assert isinstance(emission, Merged)
    assert emission.items == 2
    assert emission.record.sequence == 2
    fields = emission.record.fields
    assert (fields["x_mean"], fields["x_min"], fields["x_max"], fields["x_std"]) == (2, 1, 3, 1)
    assert (fields["window_items"], fields["window_complete"]) == (2, True)
    assert stage.process(third) is HELD
    [rest] = stage.flush()
    assert (rest.items, rest.record.fields["window_complete"]) == (1, False)


def test_sliding_by_count_settles_each_record_once(tmp_path: Path) -> None:
    options = {"fields": {"x": ["list"]}, "items": 3, "every_items": 1}
    stage = open_stage(WindowStage, options, tmp_path)
    answers = [stage.process(record) for record in records([{"x": float(n)} for n in range(5)])]
    assert answers[:2] == [HELD, HELD]
    assert [answer[0].items for answer in answers[2:]] == [3, 1, 1]
    assert answers[4][0].record.fields["x_list"] == [2.0, 3.0, 4.0]
    assert list(stage.flush()) == []


def test_tumbling_by_arrival_closes_on_the_next_record_or_the_tick(tmp_path: Path) -> None:
    stage = open_stage(WindowStage, {"fields": {"x": ["sum", "count"]}, "span": "10s"}, tmp_path)
    assert 0 < stage.tick_s <= 0.25
    one, two, three = at((1, 1.0), (9.9, 2.0), (10.0, 4.0))
    assert stage.process(one) is HELD
    assert stage.process(two) is HELD
    assert list(stage.tick(9 * SECOND)) == []
    [closed] = stage.process(three)
    assert (closed.items, closed.record.fields["x_sum"]) == (2, 3.0)
    assert (closed.record.fields["window_start"], closed.record.fields["window_end"]) == (0.0, 10.0)
    [ticked] = stage.tick(20 * SECOND)
    assert (ticked.items, ticked.record.fields["x_sum"]) == (1, 4.0)
    late = at((19.5, 1.0))[0]
    assert stage.process(late) is HELD, "a record that waited in a queue is counted into the window that is open"


def test_a_merged_record_is_as_old_as_its_window_is_closed(tmp_path: Path) -> None:
    stage = open_stage(WindowStage, {"fields": ["x"], "span": "10s"}, tmp_path)
    stage.process(Record({"x": 1.0}, read_ns=SECOND, deadline_ns=SECOND + 200))
    [closed] = stage.tick(15 * SECOND)
    assert (closed.record.read_ns, closed.record.deadline_ns) == (15 * SECOND, 15 * SECOND + 200)
    stage.process(Record({"x": 1.0}, read_ns=16 * SECOND, deadline_ns=16 * SECOND + 200))
    assert stage.flush()[0].record.deadline_ns == 0


def test_sliding_by_event_time(tmp_path: Path) -> None:
    options = {"fields": {"x": ["list"]}, "span": "4s", "every": "2s", "time": "t"}
    stage = open_stage(WindowStage, options, tmp_path)
    found = fields_of(stage, at((0, 0.0), (1, 1.0), (3, 3.0), (5, 5.0), (20, 20.0)))
    assert [fields["x_list"] for fields in found] == [[0.0, 1.0], [0.0, 1.0, 3.0], [3.0, 5.0], [5.0], [20.0]]
    assert found[1]["window_start"] == 0.0


def test_out_of_order_records_wait_for_lateness_and_then_follow_the_policy(tmp_path: Path) -> None:
    options = {"fields": {"x": ["list"]}, "span": "10s", "time": "t", "lateness": "5s"}
    stage = open_stage(WindowStage, options, tmp_path)
    found = fields_of(stage, at((1, 1.0), (12, 12.0), (8, 8.0), (15, 15.0), (2, 2.0)))
    assert [fields["x_list"] for fields in found] == [[1.0, 8.0], [12.0, 15.0]]
    merging = open_stage(WindowStage, {**options, "late": "merge"}, tmp_path)
    found = fields_of(merging, at((1, 1.0), (12, 12.0), (15, 15.0), (2, 2.0)))
    assert [fields["x_list"] for fields in found] == [[1.0], [2.0, 12.0, 15.0]]


def test_an_idle_window_by_event_time_is_sent_on(tmp_path: Path) -> None:
    options = {"fields": ["x"], "span": "10s", "time": "t", "idle": "30s"}
    stage = open_stage(WindowStage, options, tmp_path)
    stage.process(at((1, 1.0))[0])
    assert list(stage.tick(30 * SECOND)) == []
    assert [emission.items for emission in stage.tick(31 * SECOND)] == [1]


def test_keys_are_kept_apart_and_bounded(tmp_path: Path) -> None:
    options = {"fields": {"x": ["list"]}, "items": 2, "key": "k", "max_keys": 2}
    stage = open_stage(WindowStage, options, tmp_path)
    several = records([{"k": key, "x": float(n)} for n, key in enumerate("abcab")])
    found = fields_of(stage, several)
    assert [(fields["k"], fields["x_list"], fields["window_complete"]) for fields in found] == [
        ("a", [0.0], False),
        ("b", [1.0], False),
        ("c", [2.0], False),
        ("a", [3.0], False),
        ("b", [4.0], False),
    ]


def test_a_window_that_grows_too_large_is_sent_on_early(tmp_path: Path) -> None:
    stage = open_stage(WindowStage, {"fields": {"x": ["count"]}, "span": "1h", "max_items": 3}, tmp_path)
    found = fields_of(stage, at(*[(1 + n / 10, 0.0) for n in range(7)]))
    assert [fields["x_count"] for fields in found] == [3, 3, 1]


def test_no_measurement_is_left_out_and_any_type_can_be_last(tmp_path: Path) -> None:
    options = {"fields": {"x": ["mean", "count"], "label": ["last", "list"]}, "items": 3}
    stage = open_stage(WindowStage, options, tmp_path)
    [fields] = fields_of(stage, records([{"x": x, "label": str(x)} for x in (1, math.nan, 3)]))
    assert (fields["x_mean"], fields["x_count"], fields["label_last"]) == (2, 2, "3")
    [fields] = fields_of(stage, records([{"x": math.inf, "label": ""}] * 3))
    assert fields["x_mean"] is None


def test_a_refused_record_is_not_held(tmp_path: Path) -> None:
    stage = open_stage(WindowStage, {"fields": ["x"], "items": 2}, tmp_path)
    with pytest.raises(StageError, match="expected: a number"):
        stage.process(records([{"x": "1"}])[0])
    assert list(stage.flush()) == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_aggregates_are_what_they_say(values: list[float]) -> None:
    times = [float(n) for n in range(len(values))]
    assert aggregate("mean", values, times) == pytest.approx(statistics.fmean(values))
    assert aggregate("std", values, times) == pytest.approx(statistics.pstdev(values), rel=1e-6, abs=1e-3)
    assert aggregate("p50", values, times) == pytest.approx(statistics.median(values))
    assert aggregate("rms", values, times) == pytest.approx(math.sqrt(aggregate("energy", values, times) / len(values)))
    assert min(values) <= aggregate("p95", values, times) <= max(values)
    assert aggregate("slope", [2 * time + 1 for time in times], times) == pytest.approx(2.0 if len(times) > 1 else 0.0)


def test_an_aggregate_beyond_floating_point_is_infinite_and_no_error() -> None:
    for kind in ("mean", "std", "energy", "rms", "sum", "slope"):
        assert aggregate(kind, [1e308, -1e308, 1e308, 1.7e308], [0.0, 1.0, 2.0, 3.0]) is not None


moments = st.lists(
    st.tuples(st.floats(0, 200), st.sampled_from("abc"), st.booleans()).map(
        lambda drawn: {"t": drawn[0], "k": drawn[1], "x": 1.0, "ticks": drawn[2]}
    ),
    max_size=60,
)
window_options = st.one_of(
    st.fixed_dictionaries({"items": st.integers(3, 6), "every_items": st.integers(1, 3)}),
    st.fixed_dictionaries(
        {
            "span": st.sampled_from(["3s", "10s"]),
            "every": st.sampled_from(["1s", "3s", "2500ms"]),
            "time": st.sampled_from([None, "t"]),
            "late": st.sampled_from(["filter", "merge"]),
            "lateness": st.sampled_from(["0s", "4s"]),
            "idle": st.sampled_from([None, "1s"]),
            "max_items": st.sampled_from([2, 1000]),
        }
    ),
)


@settings(max_examples=150, deadline=None)
@given(moments, window_options, st.sampled_from([None, "k"]), st.sampled_from([1, 2, 100]))
def test_every_record_is_in_a_window_once(
    drawn: list[dict[str, Any]], options: dict[str, Any], key: str | None, max_keys: int
) -> None:
    raw = {"fields": {"x": ["count"]}, "key": key, "max_keys": max_keys, **options}
    stage, ledger = WindowStage(decode_options(WindowStage, raw)), Ledger()
    for number, fields in enumerate(drawn):
        ledger.answer(stage.process(Record(dict(fields), read_ns=number * SECOND)))
        if fields["ticks"]:
            ledger.sent(stage.tick(number * SECOND + SECOND // 2))
        assert 0 <= ledger.held <= len(drawn)
    ledger.sent(stage.flush())
    assert ledger.held == 0
    if options.get("late", "merge") == "merge" or options.get("time") is None:
        assert ledger.filtered == 0


def test_resample_between_samples(tmp_path: Path) -> None:
    stage = open_stage(ResampleStage, {"fields": ["x"], "every": "1s", "time": "t"}, tmp_path)
    found = fields_of(stage, at((0.5, 0.0), (2.5, 2.0), (2.6, 2.0), (3.0, 9.0)))
    assert [(fields["t"], fields["x"]) for fields in found] == [(1.0, 0.5), (2.0, 1.5), (3.0, 9.0)]


def test_resample_counts_surplus_points_as_emitted(tmp_path: Path) -> None:
    stage, ledger = open_stage(ResampleStage, {"fields": ["x"], "every": "1s", "time": "t"}, tmp_path), Ledger()
    run(stage, at((0, 0.0), (5, 5.0)), ledger)
    assert (ledger.taken, ledger.out, ledger.emitted) == (2, 2, 4)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("previous", [(1.0, 1.0), (2.0, 1.0), (3.0, 5.0), (4.0, 7.0)]),
        ("mean", [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), (4.0, 6.0)]),
    ],
)
def test_resample_holds_or_averages(tmp_path: Path, method: str, expected: list[tuple[float, float]]) -> None:
    stage = open_stage(ResampleStage, {"fields": ["x"], "every": "1s", "time": "t", "method": method}, tmp_path)
    found = fields_of(stage, at((0.2, 0.0), (0.8, 1.0), (3.0, 5.0), (3.5, 7.0)))
    assert [(fields["t"], fields["x"]) for fields in found] == expected


def test_resample_begins_anew_after_a_gap(tmp_path: Path) -> None:
    stage = open_stage(ResampleStage, {"fields": ["x"], "every": "1s", "time": "t", "max_gap": "5s"}, tmp_path)
    found = fields_of(stage, at((0.5, 0.0), (1.5, 1.0), (1e9, 7.0), (1e9 + 1, 8.0)))
    assert [(fields["t"], fields["x"]) for fields in found] == [(1.0, 0.5), (1e9, 7.0), (1e9 + 1, 8.0)]


@settings(max_examples=150, deadline=None)
@given(
    moments,
    st.sampled_from(["linear", "previous", "mean"]),
    st.sampled_from(["1s", "7s"]),
    st.sampled_from([None, "t"]),
    st.sampled_from([None, "k"]),
    st.sampled_from([None, "30s"]),
)
def test_resample_loses_nothing(
    drawn: list[dict[str, Any]], method: str, every: str, time: str | None, key: str | None, max_gap: str | None
) -> None:
    raw = {
        "fields": ["x"],
        "method": method,
        "every": every,
        "time": time,
        "key": key,
        "max_gap": max_gap,
        "max_keys": 2,
    }
    stage, ledger = ResampleStage(decode_options(ResampleStage, raw)), Ledger()
    out = run(stage, [Record(dict(fields), read_ns=n * SECOND) for n, fields in enumerate(drawn)], ledger)
    assert ledger.held == 0
    assert all(record.fields["x"] == pytest.approx(1.0) for record in out)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (WindowStage, {"fields": ["x"]}),
        (WindowStage, {"fields": ["x"], "items": 2, "span": "1s"}),
        (WindowStage, {"fields": ["x"], "items": 2, "every_items": 3}),
        (WindowStage, {"fields": ["x"], "span": "1s", "every": "2s"}),
        (WindowStage, {"fields": ["x"], "items": 2, "every": "1s"}),
        (WindowStage, {"fields": {"x": ["median"]}, "items": 2}),
        (ResampleStage, {"fields": ["x"], "every": "0s"}),
        (ResampleStage, {"fields": [], "every": "1s"}),
    ],
)
def test_impossible_windows_are_refused(kind: Any, options: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_options(kind, options)
