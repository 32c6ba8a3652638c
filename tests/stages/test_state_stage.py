"""State: what is counted and remembered, also across restarts and kills."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest

from skerry.run.stages.state import OTHER, StateStage
from skerry.spec.errors import StageError
from skerry.testing.stages import context, decode_options, open_stage, records

COUNT = {"count": "seen", "key": "label"}


def count(stage: Any, *labels: Any) -> list[int]:
    return [stage.process(record).fields["seen"] for record in records([{"label": label} for label in labels])]


def test_it_counts_by_key_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    stage = open_stage(StateStage, COUNT, tmp_path)
    assert count(stage, "a", "b", "a", True, 1) == [1, 1, 2, 1, 1]
    stage.close()
    again = open_stage(StateStage, COUNT, tmp_path)
    assert count(again, "a", "b", "c") == [3, 2, 1]
    again.close()


def test_it_remembers_values_and_gives_the_one_before(tmp_path: Path) -> None:
    options = {"get": {"before": "last"}, "set": {"last": "x"}, "count": "total", "by": "x", "into": "sum"}
    stage = open_stage(StateStage, options, tmp_path)
    answers = [stage.process(record).fields for record in records([{"x": 2}, {"x": 3}])]
    assert [(fields["before"], fields["sum"]) for fields in answers] == [(None, 2), (2, 5)]
    stage.close()
    again = open_stage(StateStage, options, tmp_path)
    assert again.process(records([{"x": 0}])[0]).fields["before"] == 3
    again.close()


def test_keys_beyond_the_limit_are_counted_together(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {**COUNT, "max_keys": 2}, tmp_path)
    assert count(stage, "a", "b", "c", "d", "a") == [1, 1, 1, 2, 2]
    stage.close()
    again = open_stage(StateStage, {**COUNT, "max_keys": 2}, tmp_path)
    assert count(again, "e", OTHER, "b") == [3, 4, 2]
    again.close()


def test_a_failing_record_counts_nothing(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {**COUNT, "set": {"last": "x"}}, tmp_path)
    for fields in (
        {"label": "a"},
        {"label": "a", "x": object()},
        {"label": "a", "x": "y" * 100_000},
        {"label": [], "x": 1},
    ):
        with pytest.raises(StageError):
            stage.process(records([fields])[0])
    assert stage.process(records([{"label": "a", "x": 1}])[0]).fields["seen"] == 1
    stage.close()


def test_a_tick_makes_it_durable(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {**COUNT, "commit": "200ms"}, tmp_path)
    assert stage.tick_s == 0.2
    count(stage, "a")
    assert list(stage.tick(0)) == []
    wal = tmp_path / "state" / "stage" / "state.sqlite-wal"
    assert b"seen" in wal.read_bytes()
    stage.close()


CHILD = """
import sys
from pathlib import Path
from skerry.run.stages.state import StateStage
from skerry.testing.stages import open_stage, records
stage = open_stage(StateStage, {"count": "seen", "commit": "0s"}, Path(sys.argv[1]))
while True:
    print(stage.process(records([{}])[0]).fields["seen"], flush=True)
"""


def test_what_was_answered_survives_kill_nine(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGKILL)
        seen += [int(line) for line in child.stdout if line.endswith("\n")]
    assert seen == list(range(1, len(seen) + 1))
    stage = open_stage(StateStage, {"count": "seen"}, tmp_path)
    after = stage.process(records([{}])[0]).fields["seen"]
    stage.close()
    assert after in {seen[-1] + 1, seen[-1] + 2}, "at most the one that was committed but not yet printed is more"


def test_two_runs_cannot_share_it(tmp_path: Path) -> None:
    stage = open_stage(StateStage, COUNT, tmp_path)
    count(stage, "a")
    stage.tick(0)
    other = StateStage(decode_options(StateStage, COUNT))
    with pytest.raises(StageError, match="another run"):
        other.open(context(tmp_path))
    stage.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made = context(tmp_path)
    (made.state / "state.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StageError, match=r"state.sqlite cannot be read[\s\S]*move the file away"):
        StateStage(decode_options(StateStage, COUNT)).open(made)


def test_a_disk_that_refuses_is_an_error_and_nothing_is_forgotten(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {"set": {"last": "x"}, "commit": "1h"}, tmp_path)
    database = stage._database
    database.execute("PRAGMA max_page_count = 3")
    stage.process(records([{"x": "y" * 60_000}])[0])
    with pytest.raises(StageError, match="cannot be made durable"):
        stage.tick(0)
    database.execute("PRAGMA max_page_count = 100000")
    stage.close()
    again = open_stage(StateStage, {"get": {"x": "last"}}, tmp_path)
    assert again.process(records([{}])[0]).fields["x"] == "y" * 60_000
    again.close()


def test_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {**COUNT, "by": "x", "set": {"last": "x"}, "get": {"before": "last"}}, tmp_path)
    several = records([{"label": numpy.int64(3), "x": numpy.float32(0.5)}] * 2)
    fields = [stage.process(record).fields for record in several]
    assert [(one["seen"], one["before"]) for one in fields] == [(0.5, None), (1.0, 0.5)]
    for bad in (math.nan, math.inf, True, "1"):
        with pytest.raises(StageError, match="expected: a finite number"):
            stage.process(records([{"label": "a", "x": bad}])[0])
    stage.close()
    open_stage(StateStage, COUNT, tmp_path).close()


def test_several_threads_count_every_record(tmp_path: Path) -> None:
    stage = open_stage(StateStage, {"count": "seen"}, tmp_path)
    several = records([{}] * 400)

    def work(part: int) -> None:
        for record in several[part::4]:
            stage.process(record)
            stage.tick(0)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stage.close()
    assert sorted(record.fields["seen"] for record in several) == list(range(1, 401))


def test_options_that_do_nothing_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_options(StateStage, {"key": "label"})
