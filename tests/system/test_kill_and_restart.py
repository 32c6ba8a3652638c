"""SIGKILL and restart: every line of a log arrives, and none twice but those of the batch that was not settled yet."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from .conftest import Skerry, Start, Write
from .parts import Started, rows, size, wait_for

WIDTH = 16  # bytes of a line, so that an offset is a number of lines
FOLLOW = "name: kill\nsource: tail://a.log?from=start&poll=10ms\nsync: 30ms\nsinks: [{to: 'SINK'}]\n"
JSONL, SQLITE = "jsonl://out.jsonl", "sqlite:///out.db"
ROUNDS = 5


def append(log: Path, number: int) -> list[str]:
    """Add so many lines, each unlike any other, and return all that the log holds."""
    count = size(log) // WIDTH
    with log.open("a") as file:
        file.writelines(f"line {place:010}\n" for place in range(count, count + number))
    return [f"line {place:010}" for place in range(count + number)]


def settled(folder: Path) -> int:
    """Return up to which line everything is settled, by the positions that were written down."""
    found = list(folder.rglob("positions.json"))
    if not found:
        return 0
    positions = json.loads(found[0].read_bytes())
    (mark,) = positions["tail-in"].values()
    assert mark["offset"] % WIDTH == 0
    return int(mark["offset"]) // WIDTH


def answers(folder: Path) -> list[str]:
    """Return the lines that arrived, in their order; the last row of a file that was cut short is no row."""
    if (folder / "out.db").exists():
        with sqlite3.connect(folder / "out.db") as database:
            known = [column[1] for column in database.execute("PRAGMA table_info(events)")]
            texts = database.execute("SELECT text FROM events ORDER BY rowid") if "text" in known else []
            return [text for (text,) in texts]
    if not (folder / "out.jsonl").exists():
        return []
    *whole, rest = (folder / "out.jsonl").read_bytes().split(b"\n")
    with contextlib.suppress(ValueError):
        whole += [rest] if isinstance(json.loads(rest or b"0"), dict) else []
    return [json.loads(line)["text"] for line in whole]


def killed(run: Started) -> None:
    """End a run as a power cut ends it for the process."""
    run.process.send_signal(signal.SIGKILL)
    run.end()


@pytest.mark.parametrize("sink", [JSONL, SQLITE])
def test_killed_at_random_moments(sink: str, start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    """What comes twice is what had arrived and lay behind the written positions: never a line of an earlier batch.

    Each round begins with everything settled, adds lines while the run is at work, and kills it at some moment.
    """
    path, log = pipeline(FOLLOW.replace("SINK", sink)), tmp_path / "a.log"
    moments = random.Random(sink)
    lines = append(log, 100)
    again: Counter[str] = Counter()
    for _ in range(ROUNDS):
        run, before = start("run", path, "--quiet"), len(lines)
        wait_for(lambda: settled(tmp_path) == before)  # noqa: B023 - it is called here only
        lines = append(log, moments.randrange(50, 3000))
        time.sleep(moments.uniform(0, 0.1))
        killed(run)
        there, done = answers(tmp_path), settled(tmp_path)
        assert done >= before, "a position went back"
        assert set(lines[:done]) <= set(there), "a line was settled that is not there"
        again.update(set(there) & set(lines[done:]))
    path.write_text(path.read_text().replace("start&poll=10ms", "start&follow=false"))
    last = skerry("run", path, "--json")
    assert last.code == 0, last.stderr
    last.balances()
    assert Counter(answers(tmp_path)) == Counter(lines) + again


@pytest.mark.parametrize("sink", [JSONL, SQLITE])
@pytest.mark.parametrize(("sync", "twice"), [("30ms", False), ("1h", True)])
def test_sync_is_what_a_kill_can_undo(
    sync: str, twice: bool, sink: str, start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(FOLLOW.replace("SINK", sink).replace("30ms", sync))
    lines = append(tmp_path / "a.log", 500)
    run = start("run", path, "--quiet")
    wait_for(lambda: len(answers(tmp_path)) == len(lines))
    if not twice:
        wait_for(lambda: settled(tmp_path) == len(lines))
    killed(run)
    path.write_text(path.read_text().replace("start&poll=10ms", "start&follow=false"))
    done = skerry("run", path, "--json")
    assert (done.code, done.found["items_in"]) == (0, len(lines) if twice else 0), done.stderr
    assert answers(tmp_path) == (lines + lines if twice else lines)


@pytest.mark.parametrize("seed", range(3))
def test_killed_while_starting(seed: int, start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(FOLLOW.replace("SINK", JSONL).replace("&poll=10ms", "&follow=false"))
    lines = append(tmp_path / "a.log", 2000)
    run = start("run", path, "--quiet")
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    killed(run)
    done = settled(tmp_path)
    again = set(answers(tmp_path)) & set(lines[done:])
    last = skerry("run", path, "--json")
    assert last.code == 0, last.stderr
    last.balances()
    assert Counter(row["text"] for row in rows(tmp_path / "out.jsonl")) == Counter(lines) + Counter(again)


def test_a_log_that_was_rotated_while_nobody_ran(start: Start, skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path, log = pipeline(FOLLOW.replace("SINK", JSONL)), tmp_path / "a.log"
    lines = append(log, 300)
    run = start("run", path, "--quiet")
    wait_for(lambda: settled(tmp_path) == len(lines))
    killed(run)
    lines = append(log, 300)
    log.rename(tmp_path / "a.log.1")
    log.write_text("fresh\n")
    path.write_text(path.read_text().replace("start&poll=10ms", "start&follow=false"))
    done = skerry("run", path, "--json")
    assert done.code == 0, done.stderr
    assert answers(tmp_path) == [*lines, "fresh"]


def test_an_unfinished_last_line_is_cut_off(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(FOLLOW.replace("SINK", JSONL).replace("&poll=10ms", "&follow=false"))
    lines = append(tmp_path / "a.log", 5)
    (tmp_path / "out.jsonl").write_text('{"text":"earlier"}\n{"text":"ha')
    done = skerry("run", path, "--json")
    assert done.code == 0
    assert "the last line of" in done.stderr
    assert answers(tmp_path) == ["earlier", *lines]
