"""The demo: prepares the model, lets it triage this machine's own log, and shows what came of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from skerry.cli.figures import size
from skerry.spec.address import parse_address
from skerry.spec.reading import read_project

ROOT = Path(__file__).resolve().parents[1]
SKERRY = Path(sys.executable).with_name("skerry")
JOURNAL_LINES = 2000
"""Lines of the journal's past that are read: some seconds of work."""
WIDTH = 110
"""Characters of a line of text, so that it fits on most terminals."""


def main() -> int:
    """Run the demo; return 0, or the exit code of the step that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="duration", default="30s", help="how long it runs (%(default)s)")
    parser.add_argument("--search", default="90s", help="how long forms of the model are tried (%(default)s)")
    parser.add_argument("--example", type=Path, default=ROOT / "examples" / "log-triage", help="(%(default)s)")
    args = parser.parse_args()
    began_s = time.monotonic()
    example: Path = args.example.resolve()
    forget(example)
    try:
        with journal(example / "logs" / "journal.log") as remark:
            print(f"logs of this machine: {', '.join([*logs(example), remark])}", flush=True)
            code = step("search the best form of the model", ["build", shown(example), "--time", args.search])
            code = code or step("triage", ["run", shown(example), "--for", args.duration])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if code == 0:
        print("", *answers(example / "out"), sep="\n")
        print(f"\nThe whole demo took {time.monotonic() - began_s:.0f} s. Try next, after `. .venv/bin/activate`:")
        print("  skerry run examples/sensor-watch --for 30s        this machine's own sensors, without a model")
        print("  skerry init watch && skerry run watch --for 5s    a project of your own to start from")
    return code


def forget(example: Path) -> None:
    """Remove what an earlier demo left."""
    shutil.rmtree(example / "out", ignore_errors=True)
    (example / "logs" / "journal.log").unlink(missing_ok=True)


def shown(path: Path) -> str:
    """Return a path as short as a person would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def step(title: str, words: list[str]) -> int:
    """Run one command of Skerry, which shares this terminal, and say how long it took; return its exit code."""
    print(f"\n── {title}: skerry {' '.join(words)}\n", flush=True)
    began_s = time.monotonic()
    with _interrupts_left_to_child():
        code = subprocess.run([SKERRY, *words], check=False).returncode
    print(f"\n── {title}: {time.monotonic() - began_s:.1f} s", flush=True)
    return code


@contextlib.contextmanager
def _interrupts_left_to_child() -> Iterator[None]:
    """Leave Ctrl-C to the child inside the block: it finishes what it has, and the demo still shows the answers."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def journal(copy: Path) -> Iterator[str]:
    """Follow the journal into ``copy`` inside the block, where this machine has one; yield a remark about it."""
    program = shutil.which("journalctl")
    if program is None or not _has_lines(program):
        yield "no journal that may be read"
        return
    copy.parent.mkdir(exist_ok=True)
    words = [program, "--follow", f"--lines={JOURNAL_LINES}", "--output=short-iso", "--quiet", "--no-pager"]
    with copy.open("wb") as file:
        # In a session of its own: Ctrl-C is for the run, which is to finish what it has read.
        follower = subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield f"the journal, from {JOURNAL_LINES:,} lines ago"
    finally:
        follower.terminate()
        follower.wait()


def _has_lines(program: str) -> bool:
    words = [program, "--lines=1", "--output=cat", "--quiet", "--no-pager"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def logs(example: Path) -> list[str]:
    """Return those of the machine's logs that the pipeline file names and that may be read, with their sizes."""
    names = [
        name
        for source in read_project(example).sources
        for name in (parse_address(source.uri)[0].path, *source.options.get("also", []))
    ]
    found = [Path(name) for name in names if Path(name).is_absolute() and os.access(name, os.R_OK)]
    return [f"{path} ({size(path.stat().st_size)})" for path in found]


def answers(out: Path) -> list[str]:
    """Return lines about what the sinks hold: labels with their counts, three rows of different labels, and alerts."""
    database = out / "events.db"
    if not database.exists():
        return ["no line was answered: this machine has no log that may be read"]
    with contextlib.closing(sqlite3.connect(database)) as events:
        counts = events.execute("SELECT label, count(*) FROM events GROUP BY label ORDER BY 2 DESC").fetchall()
        rows = events.execute(
            "SELECT label, max(score), message FROM events GROUP BY label ORDER BY 2 DESC LIMIT 3"
        ).fetchall()
    return [
        f"answers: {', '.join(f'{count:,} {label}' for label, count in counts)}; the surest of three labels:",
        *(f"  {label:<9} {score:4.0%}  {message[: WIDTH - 18]}" for label, score, message in rows),
        alerts(out / "alerts.log"),
    ]


def alerts(path: Path) -> str:
    """Return one line about the alerts that the action has written."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not lines:
        return "alerts: none; no line looked like a failure with more than 80 % certainty"
    return f"alerts: {len(lines)}, in {shown(path)}; the last: {lines[-1][: WIDTH - 40]}"


if __name__ == "__main__":
    sys.exit(main())
