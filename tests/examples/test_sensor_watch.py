"""The example sensor-watch: as it is, and with limits that it must reach."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from tests.examples.conftest import Copy, Running, edit, read_lines

Start = Callable[..., Running]


def stages(found: dict[str, object]) -> dict[str, dict[str, int]]:
    return {stage["id"]: stage for stage in found["stages"]}  # type: ignore[attr-defined, index, misc]


def test_it_runs_as_it_is(copy: Copy, start: Start) -> None:
    example = copy("sensor-watch")
    found = start("-m", "skerry", "run", example, "--for", "3s", "--json").result()
    assert found["items_in"] > 0 and found["absorbed"] > 0 and found["failed"] == 0
    windows = read_lines(example / "out" / "windows.jsonl")
    assert len(windows) == stages(found)["watch"]["items_out"] > 0
    assert {"cpu_percent_mean", "memory_percent_slope", "anomaly", "alarm", "time"} <= set(windows[0])


def test_an_alarm_reaches_the_action_and_the_database(copy: Copy, start: Start) -> None:
    example = copy("sensor-watch")
    edit(
        example / "pipeline.yaml",
        ("sys:?every=200ms", "sys:?every=20ms&count=100"),
        ("span: 2s", "items: 4"),
        ("every: 500ms", "every_items: 2"),
        ("warm_up: 20", "warm_up: 5"),
        ("on: 6", "on: 0.001"),  # the least deviation is an alarm
        ("off: 3", "off: 0.0001"),
    )
    found = start("-m", "skerry", "run", example, "--json").result()
    assert found["items_in"] == 100
    with closing(sqlite3.connect(example / "out" / "alarms.db")) as database:
        alarms = database.execute("SELECT alarm, anomaly, anomaly_field FROM alarms ORDER BY skerry_id").fetchall()
    assert len(alarms) == stages(found)["switched"]["items_out"] > 0
    assert alarms[0][0] and alarms[0][1] > 0.001 and alarms[0][2].split("_")[0] in {"cpu", "memory"}
    told = (example / "out" / "alarms.log").read_text(encoding="utf-8").splitlines()
    assert told and "deviations from usual" in told[0]
