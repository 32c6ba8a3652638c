"""``skerry run`` for real: counts, results, signals, output that is kept apart, errors and exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import TIMEOUT_S, Skerry, command

Write = Callable[[str], Path]
ENDLESS = "skerry: 1\nname: endless\nsource: timer://10ms\nstages: [pass]\nsinks: [jsonl://out.jsonl]\n"
COUNTS = ("items_in", "items_out", "filtered", "absorbed", "emitted", "dropped", "expired", "failed")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``skerry`` without waiting for it; whatever is left at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str | Path, **settings: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        started.append(subprocess.Popen(command(*words), cwd=tmp_path, text=True, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something is there."""
    ends = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.02)


def test_json_is_one_object_that_balances(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        "skerry: 1\nname: count\nsource: memory:?count=100\nstages:\n  - filter: index % 4 != 0\n"
        "  - filter: {id: broken, expression: nothing > 1, after: filter}\nsinks: [{to: 'jsonl://out.jsonl'}]\n"
    )
    done = skerry("run", path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert {name: found[name] for name in COUNTS} == {
        "items_in": 100, "items_out": 0, "filtered": 25, "absorbed": 0, "emitted": 0, "dropped": 0, "expired": 0,
        "failed": 75,
    }  # fmt: skip
    stages = {stage["id"]: stage for stage in found["stages"]}
    assert sum(stages["broken"]["reasons"]["failed"].values()) == 75
    assert all({"p50", "p99"} == stage["latency_ms"].keys() for stage in found["stages"])
    assert {"wall_s", "release", "model", "runtime", "results", "exit_code"} <= found.keys()
    assert found["results"] == [{"sink": "jsonl-out", "uri": "jsonl://out.jsonl"}]


def test_max_items_stops_after_so_many(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("run", pipeline(ENDLESS), "--max-items", "7", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["items_in"] == 7


def test_for_stops_after_a_time_and_the_table_tells_where_results_are(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("run", pipeline(ENDLESS), "--for", "500ms")
    assert done.returncode == 0
    assert "timer-in" in done.stdout
    assert "jsonl-out: out.jsonl" in done.stdout


def test_quiet_prints_nothing(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("run", pipeline(ENDLESS), "--max-items", "3", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_folder_is_a_target(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    pipeline(ENDLESS)
    assert skerry("run", tmp_path, "--max-items", "1", "--quiet").returncode == 0


@pytest.mark.parametrize("target", ["registry.example:5000/name:tag", "name@sha256:0123", "layout"])
def test_releases_are_not_taken_yet_and_that_is_said(target: str, skerry: Skerry, tmp_path: Path) -> None:
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "oci-layout").write_text("{}")
    done = skerry("run", target)
    assert done.returncode == 2
    assert "release" in done.stderr


def test_records_on_stdout_come_before_the_object(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("skerry: 1\nname: two\nsource: memory:?count=3\nsinks: ['stdout:']\n")
    lines = skerry("run", path, "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines[:-1]] == [{"index": 0}, {"index": 1}, {"index": 2}]
    assert json.loads(lines[-1])["items_out"] == 3


def test_records_on_stdout_are_all_that_comes_there(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("skerry: 1\nname: two\nsource: memory:?count=3\nsinks: ['stdout:']\n")
    done = skerry("run", path)
    assert len(done.stdout.splitlines()) == 3
    assert "memory-in" in done.stderr


def test_what_others_print_does_not_disturb_the_object(skerry: Skerry, pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import subprocess\n"
        "def loud(fields):\n    print('noise')\n    subprocess.run(['echo', 'echo'])\n    return fields\n"
    )
    path = pipeline("skerry: 1\nname: n\nsource: memory:?count=1\nstages:\n  - use: noisy:loud\nsinks: ['memory:']\n")
    done = skerry("run", path, "--json")
    assert json.loads(done.stdout)["items_out"] == 1
    assert "noise" in done.stderr
    assert "echo" in done.stderr


def test_personal_fields_stay_out_of_the_object(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        "skerry: 1\nname: p\nsource: {from: 'memory:', items: [{name: Ada, label: x}]}\nsinks: ['memory:']\n"
        "privacy: {name: personal}\n"
    )
    found = json.loads(skerry("run", path, "--json").stdout)
    assert found["last"] == [{"label": "x"}]


def test_passwords_stay_out_of_the_object(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        "skerry: 1\nname: p\nsource: memory:?count=1\nsinks:\n"
        "  - {to: 'mqtt://me:hush@localhost:1/x', on_error: drop, connect_timeout: 100ms}\n"
    )
    done = skerry("run", path, "--json", "--for", "1s")
    assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_drains_and_ends_well(
    number: signal.Signals, start: Callable[..., Any], pipeline: Write, tmp_path: Path
) -> None:
    process = start("run", pipeline(ENDLESS), "--json")
    wait_for(lambda: (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").read_text())
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert f"{number.name}: finish what is queued" in stderr
    found = json.loads(stdout)
    assert found["items_in"] == found["items_out"] == len((tmp_path / "out.jsonl").read_text().splitlines())


SLOW = "import time\ndef slow(fields):\n    open('began', 'w').close()\n    time.sleep(0.7)\n    return fields\n"


def test_the_second_signal_drops_what_is_queued_and_counts_it(
    start: Callable[..., Any], pipeline: Write, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    path = pipeline(
        "skerry: 1\nname: slow\nsource: memory:?count=60\nstages:\n  - use: mine:slow\n    workers: 2\n"
        "sinks: ['memory:']\ndrain: 1h\n"
    )
    process = start("run", path, "--json")
    wait_for((tmp_path / "began").exists)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)  # two signals at once would count as one
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=TIMEOUT_S)
    found = json.loads(stdout)
    assert process.returncode == found["exit_code"] == 128 + signal.SIGTERM
    assert found["dropped"] > 0
    assert found["items_in"] == sum(found[name] for name in COUNTS[1:] if name != "emitted")


def test_the_third_signal_ends_a_stage_that_hangs(start: Callable[..., Any], pipeline: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLOW.replace("0.7", "3600"))
    process = start("run", pipeline(ENDLESS.replace("[pass]", "\n  - use: mine:slow") + "drain: 1h\n"))
    wait_for((tmp_path / "began").exists)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.wait(timeout=TIMEOUT_S) == 130


def test_an_error_of_the_run_is_in_the_object_and_is_the_exit_code(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(
        "skerry: 1\nname: stop\nsource: memory:?count=9\n"
        "stages:\n  - filter: {expression: nothing > 1, on_error: stop}\nsinks: ['memory:']\n"
    )
    done = skerry("run", path, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 50
    assert found["status"] == "failed"
    assert "nothing" in found["error"]
    assert found["error"] in done.stderr
    assert found["items_in"] >= 1


def test_a_source_that_never_comes_up_has_its_exit_code(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline("skerry: 1\nname: gone\nsource: {from: 'file://none/*.jsonl', within: 300ms}\nsinks: ['memory:']\n")
    assert skerry("run", path).returncode == 41


def test_a_model_that_was_not_built_is_said_before_anything_runs(skerry: Skerry, pipeline: Write) -> None:
    path = pipeline(ENDLESS + "models: {m: {from: x}}\n")
    done = skerry("run", path, "--json")
    assert done.returncode == json.loads(done.stdout)["exit_code"] == 21
    assert "skerry build" in done.stderr


def test_metrics_are_served_beside_the_run(start: Callable[..., Any], pipeline: Write) -> None:
    process = start("run", pipeline(ENDLESS), "--metrics-port", "0")
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/metrics", line)
    assert found, line
    with urllib.request.urlopen(found[0], timeout=TIMEOUT_S) as answer:
        text = answer.read().decode()
    assert text.endswith("# EOF\n")
    assert 'skerry_run_info{pipeline="endless"' in text
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0


def test_metrics_for_other_machines_need_a_word_in_the_file(skerry: Skerry, pipeline: Write) -> None:
    done = skerry("run", pipeline(ENDLESS), "--metrics-port", "0", "--metrics-address", "0.0.0.0")
    assert done.returncode == 10
    assert "insecure: true" in done.stderr


class Terminal:
    """A real terminal of 80×24 with ``skerry`` in it, and all that it ever printed."""

    def __init__(self, *words: str | Path, cwd: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            command(*words), cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.printed = ""

    def read_until(self, wanted: str) -> None:
        """Read until something was printed, or everything with an empty ``wanted``."""
        while not wanted or wanted not in self.printed:
            try:
                self.printed += os.read(self._ours, 65536).decode("utf-8", "replace")
            except OSError:  # how Linux says that nobody holds the other side any more
                assert not wanted, f"it ended without {wanted!r}:\n{self.printed}"
                return

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


ALTERNATE, BACK, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def test_a_terminal_gets_the_live_view_and_is_left_clean(pipeline: Write, tmp_path: Path) -> None:
    terminal = Terminal("run", pipeline(ENDLESS), cwd=tmp_path)
    try:
        terminal.read_until("last answers")
        terminal.read_until("jsonl-out")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("")
        assert terminal.process.wait(timeout=TIMEOUT_S) == 0
    finally:
        terminal.close()
    view, _, after = terminal.printed.rpartition(BACK)
    assert ALTERNATE in view
    assert CURSOR in terminal.printed.rpartition(ALTERNATE)[2]
    assert "jsonl-out: out.jsonl" in after


@pytest.mark.parametrize("how", ["--plain", "stdout sink"])
def test_plain_lines_on_a_terminal(how: str, pipeline: Write, tmp_path: Path) -> None:
    text = ENDLESS.replace("jsonl://out.jsonl", "'stdout:'") if how == "stdout sink" else ENDLESS
    words = ["--plain"] if how == "--plain" else []
    terminal = Terminal("run", pipeline(text), "--max-items", "3", *words, cwd=tmp_path)
    try:
        terminal.read_until("")
    finally:
        terminal.close()
    assert ALTERNATE not in terminal.printed
    assert "timer-in" in terminal.printed


def test_every_key_of_the_object_is_documented(skerry: Skerry, pipeline: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
    good = json.loads(skerry("run", pipeline(ENDLESS), "--max-items", "1", "--json").stdout)
    bad = json.loads(skerry("run", pipeline(ENDLESS + "models: {m: {from: x}}\n"), "--json").stdout)
    assert [key for key in {**good, **bad} if f"`{key}`" not in page] == []


@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "1>&- 2>&-"])
def test_closed_streams_disturb_nothing(closed: str, pipeline: Write, tmp_path: Path) -> None:
    words = " ".join(map(shlex.quote, command("run", pipeline(ENDLESS), "--max-items", "3", "--json")))
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    if "1>&-" not in closed:
        assert json.loads(done.stdout)["items_in"] == 3
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_a_terminal_that_takes_ascii_only_is_no_error(skerry: Skerry, pipeline: Write) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = skerry("run", pipeline(ENDLESS), "--max-items", "3", environment=plain)
    assert done.returncode == 0, done.stderr
    assert "timer-in" in done.stdout
