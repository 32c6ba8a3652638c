"""Signals, from the first moment on: what was read is worked off or read again, and nothing is left behind."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from .conftest import Skerry, Start, Write
from .parts import rows, size, wait_for, write_build, write_null

LINES = [f"line {number}" for number in range(400)]
SLOW = """
import os, time
def slow(fields):
    if os.path.exists("slow"):
        time.sleep(0.005)
    return fields
"""
TAIL = (
    "name: sig\nsource: tail://a.log?from=start&poll=10ms\nstages: [{use: 'mine:slow'}]\n"
    "sinks: [jsonl://out.jsonl]\nsync: 50ms\ndrain: 30s\n"
)


@pytest.fixture
def slow_tail(pipeline: Write, tmp_path: Path) -> Path:
    """A pipeline that takes about two seconds for its log, as long as the file ``slow`` is there."""
    (tmp_path / "mine.py").write_text(SLOW)
    (tmp_path / "slow").touch()
    (tmp_path / "a.log").write_text("".join(f"{line}\n" for line in LINES))
    return pipeline(TAIL)


def texts(folder: Path) -> list[str]:
    return [row["text"] for row in rows(folder / "out.jsonl")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(
    number: signal.Signals, start: Start, skerry: Skerry, slow_tail: Path, tmp_path: Path
) -> None:
    run = start("run", slow_tail, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    run.signal(number)
    (tmp_path / "slow").unlink()
    done = run.end()
    assert done.code == done.found["exit_code"] == 0, done.stderr
    done.balances()
    assert done.found["items_in"] == done.found["items_out"]
    assert texts(tmp_path) == LINES[: done.found["items_out"]]
    slow_tail.write_text(slow_tail.read_text().replace("poll=10ms", "follow=false"))
    assert skerry("run", slow_tail, "--json").code == 0
    assert texts(tmp_path) == LINES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_drops_and_the_next_run_reads_it_again(
    number: signal.Signals, start: Start, skerry: Skerry, slow_tail: Path, tmp_path: Path
) -> None:
    run = start("run", slow_tail, "--json")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    run.signal(number, number)
    done = run.end()
    (tmp_path / "slow").unlink()
    assert done.code == done.found["exit_code"] == 128 + number, done.stderr
    done.balances()
    assert done.found["dropped"] > 0
    assert sum(stage["reasons"].get("dropped", {}).get("shutdown", 0) for stage in done.found["stages"]) > 0
    slow_tail.write_text(slow_tail.read_text().replace("poll=10ms", "follow=false"))
    assert skerry("run", slow_tail, "--json").code == 0
    assert texts(tmp_path) == LINES


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_model_loads_ends_at_once_and_closes_everything(
    number: signal.Signals, start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    write_build(tmp_path, "load", write_null(tmp_path / "m.null.json", delay="1h"))
    path = pipeline(
        "name: load\nsource: memory:?count=3\nstages:\n  - map: {set: {text: \"'a'\"}}\n  - embed: {model: m}\n"
        "models: {m: {from: x}}\nsinks: [{to: 'jsonl://out.jsonl', fields: [text]}]\n"
    )
    run = start("run", path, "--json")
    wait_for((tmp_path / ".skerry/load/state/nodes/embed").exists)
    time.sleep(0.2)
    run.signal(number)
    done = run.end()
    assert done.code == done.found["exit_code"] == 128 + number, done.stderr
    assert "nothing was read yet" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.found["items_in"] == 0
    assert not list(tmp_path.rglob("positions.json*"))
    write_build(tmp_path, "load", write_null(tmp_path / "m.null.json"))
    assert skerry("run", tmp_path, "--json").found["items_out"] == 3


def test_a_signal_while_a_source_waits(start: Start, pipeline: Write) -> None:
    run = start("run", pipeline(TAIL.replace("[{use: 'mine:slow'}]", "[]")), "--json")
    assert run.process.stderr is not None
    assert "trying again" in run.process.stderr.readline()
    run.signal(signal.SIGINT)
    done = run.end()
    done.refuses(41, "never came up", "a.log")
    done.balances()


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_at_any_moment_of_the_start(
    seed: int, start: Start, skerry: Skerry, slow_tail: Path, tmp_path: Path
) -> None:
    run = start("run", slow_tail, "--json")
    time.sleep(random.Random(seed).uniform(0, 0.5))
    run.signal(signal.SIGTERM)
    (tmp_path / "slow").unlink()
    assert run.end().code in {0, 128 + signal.SIGTERM, -signal.SIGTERM}
    slow_tail.write_text(slow_tail.read_text().replace("poll=10ms", "follow=false"))
    done = skerry("run", slow_tail, "--json")
    assert done.code == 0, done.stderr
    done.balances()
    assert texts(tmp_path) == LINES
