"""What people see of a run: figures, events, plain lines and the live view, which must fit its terminal."""

from __future__ import annotations

import io
import itertools
import logging
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.cli import figures
from skerry.cli.changes import changes
from skerry.cli.closing import without_password
from skerry.cli.live import EventStream, LiveView, Load, Picture, screen
from skerry.cli.reporter import EventLog, PlainReporter
from skerry.spec.summary import ModelState, Percentiles, QueueState, RunSummary, StageSummary

ESCAPE = "\x1b"


def stage(name: str, **changed: Any) -> StageSummary:
    return StageSummary(**{"id": name, "kind": name, "role": "stage", "state": "running", **changed})


def test_short_counts_stay_short() -> None:
    assert [figures.short(n) for n in (0, 950, 999.6, 12_345, 1_234_567, 10**10, 10**12)] == [
        "0", "950", "1k", "12.3k", "1.23M", "10G", "1T"
    ]  # fmt: skip


@given(st.floats(min_value=0, max_value=9.9e11, allow_nan=False))
def test_short_counts_never_exceed_five_characters(number: float) -> None:
    assert len(figures.short(number)) <= 5


def test_figures_carry_units() -> None:
    assert figures.milliseconds(None) == "–"
    assert [figures.milliseconds(ms) for ms in (0.003, 1.2, 4500)] == ["3 µs", "1.2 ms", "4.5 s"]
    assert [figures.size(n) for n in (812, 64e6, 3e9)] == ["812 B", "64.0 MB", "3.0 GB"]
    assert [figures.clock(s) for s in (12, 75, 10812)] == ["00:12", "01:15", "3:00:12"]
    assert [figures.rate(r) for r in (0, 0.25, 7.1, 1024)] == ["0/s", "0.25/s", "7.1/s", "1,024/s"]


def test_an_answer_cannot_move_the_cursor() -> None:
    line = figures.answer({"text": "a\x1b[2Jb\nc\u202e", "score": 0.51234})
    assert ESCAPE not in line
    assert "\n" not in line
    assert line.startswith("text=a [2Jb c ")
    assert line.endswith("score=0.5123")


def test_an_array_is_its_shape() -> None:
    numpy = pytest.importorskip("numpy")
    assert figures.answer({"frame": numpy.zeros((480, 640, 3))}) == "frame=[480×640×3]"


def test_passwords_are_not_shown() -> None:
    assert without_password("mqtt://me:hush@host:1883/a?qos=1") == "mqtt://me:***@host:1883/a?qos=1"
    assert without_password("mqtt://host/a") == "mqtt://host/a"


def test_changes_tell_what_happened_once() -> None:
    before = RunSummary(
        pipeline="p", models={"m": ModelState(variant="fp32", runtime="r")},
        stages=[stage("in", role="source"), stage("out", role="sink")],
    )  # fmt: skip
    after = RunSummary(
        pipeline="p", rung=1, models={"m": ModelState(variant="int8", runtime="r")},
        stages=[
            stage("in", role="source", state="done"),
            stage("out", role="sink", state="waiting", restarts=1, failed=2, reasons={"failed": {"refused": 2}}),
        ],
    )  # fmt: skip
    assert changes(before, after) == [
        "stepped down to a cheaper variant: rung 0 → 1",
        "model m: fp32 → int8 (r)",
        "in has ended",
        "out is down and tries to come up",
        "out broke and was opened anew (1× so far)",
        "out: the first failed for refused (2 so far)",
    ]
    assert changes(after, after) == []


def test_sleeping_and_coming_up_again_are_told() -> None:
    awake, asleep = RunSummary(pipeline="p"), RunSummary(pipeline="p", status="asleep")
    assert changes(awake, asleep) == ["asleep until something wakes it"]
    assert changes(asleep, awake) == ["awake"]
    down = RunSummary(pipeline="p", stages=[stage("out", state="waiting")])
    assert changes(down, RunSummary(pipeline="p", stages=[stage("out")])) == ["out is up again"]


def test_what_restarts_all_the_time_is_told_ever_less_often() -> None:
    runs = [RunSummary(pipeline="p", stages=[stage("s", restarts=n)]) for n in range(101)]
    told = [line for before, after in itertools.pairwise(runs) for line in changes(before, after)]
    assert len(told) == 7


def test_a_plain_line_comes_every_five_seconds_of_the_run() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream)
    for tick in range(25):
        reporter.show(RunSummary(pipeline="p", wall_s=tick / 2, items_in=tick * 50, items_out=tick * 50, dropped=tick))
    assert stream.getvalue().splitlines() == [
        "[00:05] 102/s, in 500, out 500, dropped 10",
        "[00:10] 102/s, in 1,000, out 1,000, dropped 20",
    ]


def test_a_log_line_that_repeats_is_counted_instead() -> None:
    said: list[str] = []
    log = EventLog(said.append)
    times = [0.0, 1.0, 2.0, 11.0]
    for second in times:
        record = logging.makeLogRecord({"msg": "it\nfailed", "levelno": logging.WARNING, "levelname": "WARNING"})
        record.created = second
        log.emit(record)
    assert said == ["warning: it failed", "warning: it failed (and 2 times before)"]


def test_printed_lines_become_events() -> None:
    said: list[str] = []
    stream = EventStream(said.append)
    print("one\ntw", end="", file=stream)  # type: ignore[call-overload]
    print("o", file=stream)  # type: ignore[call-overload]
    assert said == ["one", "two"]


def drawn(picture: Picture, width: int, height: int) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, height=height, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(screen(picture, width, height))
    return captured.get().splitlines()


BUSY = RunSummary(
    pipeline="log-triage", release="sha256:0123456789abcdef", items_in=1_234_567, items_out=1_200_000, dropped=45,
    wall_s=75, rung=1, in_flight=9, latency_ms=Percentiles(4.2, 31.5),
    models={"minilm": ModelState(variant="int8-per-channel", runtime="onnxruntime", swaps=1)},
    stages=[
        stage("tail-in", role="source", items_in=1_234_567),
        stage(
            "classify", items_in=1_234_567, dropped=45, reasons={"dropped": {"queue full": 45}},
            latency_ms=Percentiles(7.1, 12.4),
            queue=QueueState(items=900, bytes=1, max_items=1024, max_bytes=10**6, policy="drop_oldest"),
        ),
        stage("mqtt-out", role="sink", state="waiting", restarts=3),
    ],
    last=[{"label": "failure", "score": 0.9312, "text": "nginx has died " * 9}] * 8,
)  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_live_view_shows_what_matters(width: int, height: int) -> None:
    load = Load(cpu=0.63, memory=0.41, rss_bytes=10**8, temperature_c=61, power_w=4.2, battery=0.8)
    text = "\n".join(
        drawn(
            Picture(summary=BUSY, rates=[900.0, 1000.0], load=load, events=["it broke"], footer="Ctrl-C"), width, height
        )
    )
    for wanted in (
        "log-triage", "● running", "01:15", "0123456789ab", "1,000/s", "p50 4.2 ms", "p99 31.5 ms", "12.4 ms", "████░",
        "queue full", "waiting", "int8-per-channel on onnxruntime", "rung 1", "63%", "100.0 MB", "61 °C", "4.2 W",
        "battery 80%", "label=failure", "it broke", "Ctrl-C",
    ):  # fmt: skip
        assert wanted in text, wanted


@given(
    width=st.integers(60, 200),
    height=st.integers(18, 60),
    stages=st.integers(0, 30),
    events=st.integers(0, 20),
    answers=st.integers(0, 8),
    models=st.integers(0, 5),
)
def test_the_live_view_fits_any_terminal(
    width: int, height: int, stages: int, events: int, answers: int, models: int
) -> None:
    busy = StageSummary(
        id="a-stage-with-a-long-name-" * 3, kind="x", role="stage", items_in=10**12, dropped=10**11,
        reasons={"dropped": {"a long reason " * 9: 10**11}}, latency_ms=Percentiles(1.0, 123456.0), restarts=9,
        queue=QueueState(items=10**9, bytes=1, max_items=10**9, max_bytes=9, policy="block"), state="waiting",
    )  # fmt: skip
    summary = RunSummary(
        pipeline="name" * 40, items_in=10**12, dropped=10**11, failed=10**9, last=[{"text": "日本語 " * 90}] * answers,
        stages=[msgspec.structs.replace(busy, id=f"{number}-{busy.id}") for number in range(stages)],
        models={f"model-{number}" * 9: ModelState(variant="v" * 90, runtime="r") for number in range(models)},
    )  # fmt: skip
    picture = Picture(summary=summary, rates=[1e9] * 300, events=["an event " * 30] * events, load=Load(power_w=3.0))
    lines = drawn(picture, width, height)
    from rich.cells import cell_len

    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


def test_the_live_view_gives_the_terminal_back_and_tells_the_last_events() -> None:
    stream = io.StringIO()
    view = LiveView(stream)
    view.start()
    view.say("it broke")
    print("from a stage")  # noqa: T201
    view.show(BUSY)
    view.stop()
    view.stop()
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()[-2:]] == [
        "it broke", "from a stage"
    ]  # fmt: skip
