"""Sinks that refuse, full disks, folders that may not be written to: nothing is lost, nothing is half-written."""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Skerry, Start, Write
from .parts import rows

LINES = [f"line {number} {'x' * 40}" for number in range(2000)]
READ = "name: sinks\nsource: tail://a.log?from=start&follow=false\ndrain: 300ms\nsync: 50ms\n"
ENDLESS = "name: sinks\nsource: timer://5ms\n"
DAC_OVERRIDE, DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def obey_rights() -> None:
    """Make a child of root obey the rights of files, as other users have to."""
    library = ctypes.CDLL(None)
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def read_by(path: Path) -> list[str]:
    return [row["text"] for row in rows(path)]


@pytest.mark.usefixtures("log")
def test_what_a_sink_refused_is_read_again_by_the_next_run(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(READ + "sinks: [jsonl://out.jsonl]\n")
    (tmp_path / "out.jsonl").mkdir()
    done = skerry("run", path, "--json")
    assert done.code == 0
    assert "jsonl-out is down" in done.stderr
    assert "is in the way: it is no regular file" in done.stderr
    done.balances()
    assert done.found["failed"] == done.found["items_in"] > 0
    assert set(done.stage("jsonl-out")["reasons"]["failed"]) <= {"sink down", "sink down at the end"}
    lost = done.stage("jsonl-out")["reasons"]["failed"].get("sink down", 0)
    (tmp_path / "out.jsonl").rmdir()
    again = skerry("run", path, "--json")
    assert again.code == 0, again.stderr
    again.balances()
    assert read_by(tmp_path / "out.jsonl") == LINES[lost:]


@pytest.mark.usefixtures("log")
def test_a_sink_that_refuses_ends_the_run_where_that_is_asked_for(
    skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(READ + "sinks: [{to: 'http://127.0.0.1:1/x', on_error: stop}]\n")
    done = skerry("run", path, "--json")
    done.refuses(61, "127.0.0.1:1", "cannot be reached")
    done.balances()


def test_a_sink_that_refuses_does_not_hold_up_the_other_one(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(
        "name: two\nsource: memory:?count=500\ndrain: 300ms\n"
        "sinks: [jsonl://out.jsonl, {to: 'http://127.0.0.1:1/x', on_error: drop}]\n"
    )
    done = skerry("run", path, "--json")
    assert done.code == 0
    done.balances()
    assert [row["index"] for row in rows(tmp_path / "out.jsonl")] == list(range(500))
    assert done.stage("jsonl-out")["items_out"] == done.stage("http-out")["failed"] == 500
    assert "http-out is down" in done.stderr


def test_a_database_that_is_none(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(random.Random(1).randbytes(10_000))
    before = (tmp_path / "x.db").read_bytes()
    path = pipeline(
        "name: db\nsource: memory:?count=9\nsinks: [{to: 'sqlite:///x.db', on_error: stop}]\ndrain: 300ms\n"
    )
    done = skerry("run", path, "--json")
    done.refuses(60, "x.db")
    done.balances()
    assert (tmp_path / "x.db").read_bytes() == before


@pytest.mark.usefixtures("log")
def test_a_full_disk_leaves_whole_lines_and_loses_none(
    skerry: Skerry, pipeline: Write, tmp_path: Path, tiny_disk: Callable[..., Path]
) -> None:
    disk = tiny_disk("128k")
    (disk / "filler").write_bytes(b"x" * 64 * 1024)
    path = pipeline(READ + f"sinks: [{{to: 'jsonl://{disk}/out.jsonl', queue: {{items: 10000}}}}]\n")
    done = skerry("run", path, "--json")
    assert done.code == 0
    assert "is full: No space left on device" in done.stderr
    done.balances()
    assert 0 < done.found["failed"] < len(LINES)
    assert len(rows(disk / "out.jsonl")) == done.found["items_out"]
    (disk / "filler").unlink()
    path.write_text(path.read_text().replace(f"{disk}/out", "rest"))  # the disk is too small for all of it
    again = skerry("run", path, "--json")
    assert again.code == 0, again.stderr
    again.balances()
    assert read_by(disk / "out.jsonl") + read_by(tmp_path / "rest.jsonl") == LINES


@pytest.mark.usefixtures("log")
def test_a_full_disk_ends_the_run_where_that_is_asked_for(
    skerry: Skerry, pipeline: Write, tiny_disk: Callable[..., Path]
) -> None:
    disk = tiny_disk("32k")
    path = pipeline(READ + f"sinks: [{{to: 'jsonl://{disk}/out.jsonl', on_error: stop}}]\n")
    done = skerry("run", path, "--json")
    done.refuses(62, "No space left on device", "out.jsonl", "rotate")
    done.balances()
    assert len(rows(disk / "out.jsonl")) == done.found["items_out"]


def test_a_full_disk_below_the_state_is_said_and_nothing_is_half_written(
    skerry: Skerry, pipeline: Write, tmp_path: Path, tiny_disk: Callable[..., Path]
) -> None:
    path = pipeline("name: sinks\nsource: memory:?count=9\nsinks: ['memory:']\n")
    disk = tiny_disk("32k", tmp_path / ".skerry")
    (disk / "filler").write_bytes(b"x" * 24 * 1024)
    with (disk / "rest").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 512)
    done = skerry("run", path, "--json")
    done.refuses(84, "No space left on device", "state", "hint: ")
    (disk / "filler").unlink()
    assert skerry("run", path, "--json").code == 0


def test_a_full_disk_below_stdout(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("name: out\nsource: memory:?count=9\nsinks: ['memory:']\n")
    for option in ("--json", "--plain"):
        with Path("/dev/full").open("w") as full:
            done = skerry("run", path, option, stdout=full)
        assert done.code == 62, done.stderr
        assert "standard output is full: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_closed_stdout_does_not_end_the_run(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("name: out\nsource: memory:?count=9\nsinks: ['memory:']\n")
    done = skerry("run", path, preexec_fn=lambda: os.close(1), stdout=None)
    assert done.code == 0, done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["plain", "json"])
def test_a_run_whose_records_nobody_reads_ends(options: tuple[str, ...], start: Start, pipeline: Write) -> None:
    run = start("run", pipeline(ENDLESS + "sinks: ['stdout:']\n"), *options)
    assert run.process.stdout is not None
    assert "tick" in run.process.stdout.readline()
    run.process.stdout.close()
    assert run.process.wait(timeout=60) == 141
    assert run.process.stderr is not None
    said = run.process.stderr.read()
    assert "nobody reads stdout any more" in said
    assert "Traceback" not in said


def test_a_summary_that_nobody_reads(start: Start, pipeline: Write, tmp_path: Path) -> None:
    run = start("run", pipeline(ENDLESS + "sinks: [jsonl://out.jsonl]\n"), "--max-items", "50")
    assert run.process.stdout is not None
    run.process.stdout.close()
    assert run.process.wait(timeout=60) == 141
    assert len(rows(tmp_path / "out.jsonl")) == 50


def test_a_project_folder_that_may_not_be_written_to(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    path = pipeline(ENDLESS + "sinks: [jsonl://out.jsonl]\n")
    tmp_path.chmod(0o555)
    try:
        done = skerry("run", path, "--json", preexec_fn=obey_rights)
    finally:
        tmp_path.chmod(0o755)
    done.refuses(84, "Permission denied", ".skerry", "expected: a folder that may be written to")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pipeline.yaml"]


def test_a_project_folder_that_may_not_be_entered(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    pipeline(ENDLESS).rename(folder / "pipeline.yaml")
    folder.chmod(0)
    try:
        for target in (folder, folder / "pipeline.yaml"):
            skerry("run", target, "--json", preexec_fn=obey_rights).refuses(11, "Permission denied", "locked")
    finally:
        folder.chmod(0o755)


def test_a_state_folder_that_is_a_file(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / ".skerry").write_text("in the way")
    skerry("run", pipeline(ENDLESS + "sinks: ['memory:']\n"), "--json").refuses(84, ".skerry")
    assert (tmp_path / ".skerry").read_text() == "in the way"


@pytest.mark.parametrize("content", [b"", b'{"tail-in":', bytes(range(256))], ids=["empty", "half", "binary"])
def test_positions_that_are_damaged_are_said_and_replaced(
    content: bytes, log: Path, skerry: Skerry, pipeline: Write, tmp_path: Path
) -> None:
    path = pipeline(READ + "sinks: [jsonl://out.jsonl]\n")
    assert skerry("run", path, "--json").code == 0
    (positions,) = tmp_path.rglob("positions.json")
    positions.write_bytes(content)
    done = skerry("run", path, "--json")
    assert done.code == 0, done.stderr
    assert "positions.json cannot be read" in done.stderr
    assert read_by(tmp_path / "out.jsonl") == LINES * 2
    assert skerry("run", path, "--json").found["items_in"] == 0


def test_the_disk_comes_back(start: Start, pipeline: Write, tmp_path: Path, tiny_disk: Callable[..., Path]) -> None:
    """A sink that is full in the middle of a run goes on where it was once there is room."""
    disk = tiny_disk("64k")
    (disk / "filler").write_bytes(b"x" * 60 * 1024)
    path = pipeline(
        f"name: back\nsource: {{from: 'memory:', count: 400}}\nsinks: [{{to: 'jsonl://{disk}/out.jsonl'}}]\n"
        "stages:\n  - map: {set: {pad: \"'0123456789012345678901234567890123456789'\"}}\n"
    )
    run = start("run", path, "--json")
    line = run.process.stderr.readline() if run.process.stderr else ""
    assert "jsonl-out is down" in line
    (disk / "filler").unlink()
    done = run.end()
    assert done.code == 0, done.stderr
    done.balances()
    assert [row["index"] for row in rows(disk / "out.jsonl")] == list(range(400))
