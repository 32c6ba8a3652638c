"""The READMEs of the examples: their commands work as they stand, shortened; and so does the demo."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, ROOT, Copy, Running, environment, free_port

Start = Callable[..., Running]
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/pipeline.yaml"))
LEAVES = {
    "log-triage": ("events.db", "events.jsonl"),
    "sensor-watch": ("windows.jsonl",),
    "support-inbox": ("tickets.db", "received.jsonl", "handed-over.jsonl", "for-a-person.jsonl"),
    "hybrid-triage": ("sorted.jsonl",),
}


def first_block(name: str) -> str:
    """Return the first shell block of an example's README, with runs of a few seconds."""
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    block = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    assert "skerry run" in block
    return re.sub(r"--for \d+s", "--for 3s", block).replace("python3 ", f"{sys.executable} ")


def move_ports(example: Path) -> None:
    """Give an example's files ports that are free, so that they do not meet others on this machine."""
    inbox, receiver, cloud = str(free_port()), str(free_port()), str(free_port())
    for path in [*example.glob("*.yaml"), *example.glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("8085", inbox).replace("8086", receiver).replace("8087", cloud), encoding="utf-8")


# Two models are built and one is cut for hybrid-triage: its short form is in test_hybrid_triage.py.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name == "hybrid-triage" else []) for name in NAMES]
)
def test_the_commands_of_the_readme_work(name: str, copy: Copy, start: Start) -> None:
    example = copy(name)
    move_ports(example)
    # What runs in the background last is waited for; the receiver is left running, and ended by the fixture.
    script = f'{first_block(name)}\n[ -z "$!" ] || wait "$!"'
    shell = start("-e", "-c", script, program="bash")
    assert shell.process.wait(100) == 0, shell.err
    assert not [file for file in LEAVES[name] if not (example / "out" / file).exists()], shell.err


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_names_every_file(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    files = [path.name for path in (EXAMPLES / name).iterdir() if path.is_file() and path.name != "README.md"]
    assert not [file for file in files if f"`{file}`" not in text]


def test_the_page_and_the_readme_name_every_example() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert not [name for name in NAMES if f"examples/{name}" not in page]


def test_the_demo_ends_with_a_table_rows_and_what_to_try_next(copy: Copy) -> None:
    example = copy("log-triage")
    (example / "logs" / "app.log").write_text("Nov 05 00:00:15 gate systemd[1]: Finished Rotate log files.\n")
    words = [sys.executable, "-m", "scripts.demo", "--for", "3s", "--search", "4s", "--example", str(example)]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "events.db (table events)" in done.stdout
    assert re.search(r"classify +\d", done.stdout)
    assert re.search(r"answers: .*\n  \w+ +\d+%  \S", done.stdout)
    assert "skerry run examples/sensor-watch" in done.stdout and "skerry init" in done.stdout


def test_the_demo_follows_the_journal_and_lets_go_of_it(copy: Copy, start: Start, tmp_path: Path) -> None:
    """Few machines that run tests keep a journal: a program of that name stands in for `journalctl`."""
    example, place = copy("log-triage"), tmp_path / "bin" / "journalctl"
    place.parent.mkdir()
    line = "2026-11-05T01:00:00+0000 gate kernel: Out of memory: Killed process 4121 (postgres)"
    follow = f"case $1 in --follow) echo $$ > {tmp_path}/pid; exec sleep 600;; esac"
    place.write_text(f'#!/bin/sh\necho "{line}"\n{follow}\n')
    place.chmod(0o755)
    path = f"{place.parent}{os.pathsep}{environment()['PATH']}"
    words = ("-m", "scripts.demo", "--for", "10min", "--search", "4s", "--example", example)
    demo = start(f"PATH={path}", sys.executable, *words, folder=ROOT, program="env")
    demo.await_text(example / "out" / "events.jsonl", "Killed process 4121")
    os.killpg(demo.process.pid, signal.SIGINT)
    assert demo.process.wait(60) == 0
    assert "the journal, from 2,000 lines ago" in demo.out
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_ctrl_c_ends_the_demo_in_order(copy: Copy, start: Start) -> None:
    example = copy("log-triage")
    (example / "logs" / "app.log").write_text("Nov 05 00:00:15 gate systemd[1]: Finished Rotate log files.\n")
    demo = start("-m", "scripts.demo", "--for", "10min", "--search", "4s", "--example", example, folder=ROOT)
    demo.await_text(example / "out" / "events.jsonl", "\n")
    os.killpg(demo.process.pid, signal.SIGINT)  # as a terminal does: to all of them
    assert demo.process.wait(60) == 0
    assert "SIGINT" in demo.err  # the run said that it drains
    assert "answers:" in demo.out
    assert "Traceback" not in demo.err
