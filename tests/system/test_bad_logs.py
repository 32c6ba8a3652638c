"""Logs that disappear, never come, or hold what no log should: no line is lost, and what is wrong is said."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from .conftest import Skerry, Start, Write
from .parts import rows, size, wait_for

FOLLOW = (
    "name: logs\nsource: {from: 'tail://a.log?from=start&poll=10ms', OPTIONS}\n"
    "sinks: [{to: 'jsonl://out.jsonl'}]\nsync: 50ms\n"
)
READ = FOLLOW.replace("poll=10ms", "follow=false").replace(", OPTIONS", "")


def texts(folder: Path) -> list[str]:
    return [row["text"] for row in rows(folder / "out.jsonl")]


def test_a_log_that_disappears_and_comes_back(start: Start, pipeline: Write, tmp_path: Path) -> None:
    log, answers = tmp_path / "a.log", tmp_path / "out.jsonl"
    log.write_text("one\ntwo\n")
    run = start("run", pipeline(FOLLOW.replace(", OPTIONS", "")), "--json")
    wait_for(lambda: size(answers) and len(rows(answers)) == 2)
    log.unlink()
    line = run.process.stderr.readline() if run.process.stderr else ""
    assert "a.log is gone; waiting for it to come back" in line
    log.write_text("three\n")
    wait_for(lambda: len(rows(answers)) == 3)
    with log.open("a") as file:
        file.write("four\n")
    wait_for(lambda: len(rows(answers)) == 4)
    run.signal(signal.SIGTERM)
    done = run.end()
    assert done.code == 0, done.stderr
    done.balances()
    assert done.found["items_in"] == done.found["items_out"] == 4
    assert texts(tmp_path) == ["one", "two", "three", "four"]


def test_a_log_that_stays_away_ends_the_run_where_that_is_asked_for(
    start: Start, pipeline: Write, tmp_path: Path
) -> None:
    log, answers = tmp_path / "a.log", tmp_path / "out.jsonl"
    log.write_text("one\ntwo")  # the last line has no end yet, and is still one
    run = start("run", pipeline(FOLLOW.replace("OPTIONS", "lost_after: 200ms")), "--json")
    wait_for(lambda: size(answers))
    log.unlink()
    done = run.end()
    done.refuses(42, "a.log has been gone for", "lost_after")
    done.balances()
    assert texts(tmp_path) == ["one", "two"]


def test_a_log_that_never_comes_up(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    done = skerry("run", pipeline(FOLLOW.replace("OPTIONS", "within: 200ms")), "--json")
    done.refuses(41, "a.log", "a log that exists")
    done.balances()
    assert done.found["items_in"] == 0
    assert done.stage("tail-in")["state"] == "failed"
    assert not rows(tmp_path / "out.jsonl")


def test_a_log_that_never_comes_up_within_the_time_of_the_run(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("run", pipeline(FOLLOW.replace(", OPTIONS", "")), "--for", "300ms", "--json")
    done.refuses(41, "never came up", "a.log")
    done.balances()


def test_a_source_of_the_network_that_never_comes_up(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("name: net\nsource: {from: 'mqtt://127.0.0.1:1/x', within: 200ms}\nsinks: ['memory:']\n")
    done = skerry("run", path, "--json")
    done.refuses(41, "127.0.0.1:1")
    done.balances()


def test_a_source_that_comes_up_late_is_waited_for(start: Start, pipeline: Write, tmp_path: Path) -> None:
    run = start("run", pipeline(FOLLOW.replace(", OPTIONS", "")), "--json")
    line = run.process.stderr.readline() if run.process.stderr else ""
    assert "tail-in, trying again in" in line
    (tmp_path / "late").write_text("one\n")
    (tmp_path / "late").rename(tmp_path / "a.log")
    wait_for(lambda: size(tmp_path / "out.jsonl"))
    run.signal(signal.SIGTERM)
    done = run.end()
    assert (done.code, done.found["items_out"]) == (0, 1), done.stderr
    assert done.stage("tail-in")["restarts"] >= 1


def test_binary_garbage_in_a_log(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    garbage = random.Random(1).randbytes(200_000)
    (tmp_path / "a.log").write_bytes(b"before\n" + garbage + b"\nafter\n")
    done = skerry("run", pipeline(READ), "--json")
    assert done.code == 0, done.stderr
    done.balances()
    assert done.found["items_out"] == len(rows(tmp_path / "out.jsonl"))
    found = texts(tmp_path)
    assert (found[0], found[-1]) == ("before", "after")
    assert any(row.get("invalid_utf8") for row in rows(tmp_path / "out.jsonl"))


def test_garbage_goes_through_every_kind_of_stage(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    noise = random.Random(2)
    lines = [noise.randbytes(40).replace(b"\n", b"x") for _ in range(300)]
    (tmp_path / "a.log").write_bytes(b"".join(line + b"\n" for line in lines) + b"time=1 text=whole\n")
    stages = (
        "stages:\n  - redact: [email, ip, phone, card, iban]\n"
        "  - parse: {regex: 'time=(?P<time>[0-9]) text=(?P<rest>.+)$'}\n"
        "  - map: {set: {length: 'size(text)'}}\n"
    )
    done = skerry("run", pipeline(READ + stages + "dead_letter: jsonl://dead.jsonl\n"), "--json")
    assert done.code == 0, done.stderr
    done.balances()
    assert done.found["items_in"] == 301
    assert [row["rest"] for row in rows(tmp_path / "out.jsonl") if "rest" in row] == ["whole"]


def test_a_line_of_ten_megabytes(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"before\n" + b"x" * 10_000_000 + b"\nafter\n")
    done = skerry("run", pipeline(READ), "--json")
    assert done.code == 0, done.stderr
    done.balances()
    found = rows(tmp_path / "out.jsonl")
    assert [len(row["text"]) for row in found] == [len("before"), 2**20, len("after")]
    assert [row.get("truncated", False) for row in found] == [False, True, False]


def test_a_line_that_is_kept_whole_where_that_is_asked_for(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"x" * 10_000_000 + b"\n")
    done = skerry("run", pipeline(READ.replace("follow=false", "follow=false&max_line=16MB")), "--json")
    assert done.code == 0, done.stderr
    assert [len(row["text"]) for row in rows(tmp_path / "out.jsonl")] == [10_000_000]


def test_invalid_utf8_is_replaced_and_marked(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"caf\xe9 closed\nna\xc3\xafve\n\xed\xa0\x80\n\xf0\x9f\x98\n")
    done = skerry("run", pipeline(READ), "--json")
    assert done.code == 0, done.stderr
    done.balances()
    found = rows(tmp_path / "out.jsonl")
    assert [row["text"].rstrip("\ufffd") for row in found] == ["caf\ufffd closed", "naïve", "", ""]
    assert [row.get("invalid_utf8", False) for row in found] == [True, False, True, True]


def test_a_folder_and_a_pipe_are_no_logs(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    skerry("run", pipeline(READ), "--json").refuses(10, "a.log")
    (tmp_path / "a.log").rmdir()
    os.mkfifo(tmp_path / "a.log")
    skerry("run", pipeline(READ), "--json").refuses(10, "a.log")
