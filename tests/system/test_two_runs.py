"""Two runs of one project at once: the second is refused, whatever became of the first."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from skerry.run.lock import StateLock
from skerry.spec.errors import StateBusyError

from .conftest import Skerry, Start, Write
from .parts import rows, size, wait_for

ENDLESS = "name: one\nsource: timer://5ms\nsinks: [jsonl://out.jsonl]\n"


def test_the_second_run_is_refused_and_names_the_first(
    start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(ENDLESS)
    first = start("run", path, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    for target in (path, tmp_path):
        skerry("run", target, "--json").refuses(
            83, f"this pipeline runs already, as process {first.process.pid}", ".skerry/one/state", "hint: "
        )
    assert skerry("check", path).code == 0
    first.signal(signal.SIGTERM)
    done = first.end()
    assert done.code == 0, done.stderr
    done.balances()
    assert len(rows(tmp_path / "out.jsonl")) == done.found["items_out"]
    assert skerry("run", path, "--max-items", "1", "--json").code == 0


def test_another_file_of_the_same_name_is_refused_and_one_of_another_name_runs(
    start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(ENDLESS)
    start("run", path, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    (tmp_path / "twin.yaml").write_text(path.read_text())
    (tmp_path / "other.yaml").write_text(path.read_text().replace("one", "two").replace("out.jsonl", "other.jsonl"))
    skerry("run", "twin.yaml", "--json").refuses(83, "name")
    assert skerry("run", "other.yaml", "--max-items", "3", "--json").code == 0


def test_two_pipelines_that_write_one_file_do_not_mix_their_lines(
    start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(ENDLESS)
    start("run", path, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    (tmp_path / "other.yaml").write_text(
        path.read_text().replace("one", "two").replace("jsonl]", "jsonl]\ndrain: 200ms")
    )
    done = skerry("run", "other.yaml", "--max-items", "3", "--json")
    assert "another process writes to" in done.stderr
    done.balances()
    assert (done.found["items_out"], done.found["failed"] + done.found["dropped"]) == (0, 3)


def test_a_killed_run_does_not_lock_out_the_next(start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    """Nor does a worker process of it that is still ending."""
    path = pipeline(ENDLESS + "stages: [{pass: {process: true}}]\n")
    first = start("run", path, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    done = skerry("run", path, "--max-items", "1", "--json")
    assert done.code == 0, done.stderr


def test_of_several_that_start_at_once_one_runs(start: Start, pipeline: Write) -> None:
    path = pipeline(ENDLESS)
    runs = [start("run", path, "--json") for _ in range(4)]
    wait_for(lambda: sum(run.process.poll() is not None for run in runs) == 3)
    (winner,) = (run for run in runs if run.process.poll() is None)
    for run in runs:
        if run is not winner:
            run.end().refuses(83, "runs already, as ")
    winner.signal(signal.SIGTERM)
    assert winner.end().code in {0, 128 + signal.SIGTERM}


def test_the_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    lock = StateLock(tmp_path / "a" / "state")
    assert (lock.folder / "lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(StateBusyError, match=f"process {os.getpid()}"):
        StateLock(lock.folder)
    lock.release()
    lock.release()
    StateLock(lock.folder).release()


def test_a_lock_that_nobody_keeps_is_given_back(tmp_path: Path) -> None:
    StateLock(tmp_path)
    StateLock(tmp_path).release()
