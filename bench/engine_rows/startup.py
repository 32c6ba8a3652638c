"""Start-up: what ``import skerry`` and ``skerry --help`` take beside a small Python program, in time and memory."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.engine_rows.cost import both_clocks
from bench.environments import ROOT, clean_variables
from bench.measuring import Samples, Timing, interleaved
from bench.report import Report

YARDSTICK = ("-c", "import json, argparse")
MODULE = ("-m", "skerry", "--help")
IMPORT = ("-c", "import skerry")
MEMORY = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"


def add_rows(report: Report, *, quick: bool) -> None:
    """Start processes in turns and add the rows."""
    repeats = 10 if quick else 30
    script = Path(sysconfig.get_path("scripts")) / "skerry"
    commands: dict[str, Sequence[str]] = {
        "yardstick": (sys.executable, *YARDSTICK),
        "import": (sys.executable, *IMPORT),
        "module": (sys.executable, *MODULE),
    }
    if script.exists():
        commands["script"] = (str(script), "--help")
    cpu, wall = both_clocks(
        {name: functools.partial(_timed, command) for name, command in commands.items()}, repeats=repeats
    )
    for clock, taken in (("CPU", cpu), ("wall", wall)):
        _add_ratios(report, clock, taken)
    if "script" not in commands:
        reason = "it is not installed beside this Python"
        report.missing("skerry --help, the console script, vs import json, argparse", "×", reason, must="<= 6")
    _add_memory(report, repeats=3 if quick else 10)


def _add_ratios(report: Report, clock: str, taken: Mapping[str, Samples]) -> None:
    rows = (
        ("import", "import skerry", "<= 3"),
        ("module", "python -m skerry --help", "<= 6"),
        ("script", "skerry --help, the console script,", "<= 6"),
    )
    for name, words, must in rows:
        if name in taken:
            peers = {"skerry ms": taken[name].scaled(1e3), "python ms": taken["yardstick"].scaled(1e3)}
            figure = f"{words} vs python -c 'import json, argparse' ({clock} time)"
            report.add(figure, taken[name].over(taken["yardstick"]), "×", must=must, peers=peers)


def _add_memory(report: Report, repeats: int) -> None:
    figure, must = "memory of import skerry beyond import json, argparse", "<= 15"
    if not Path("/proc/self/status").exists():
        report.missing(figure, "MB", "this system has no /proc/self/status", must=must)
        return
    samples = interleaved(
        {name: functools.partial(_peak_mb, code) for name, code in (("mine", IMPORT[1]), ("yardstick", YARDSTICK[1]))},
        repeats=repeats,
    )
    report.add(figure, samples["mine"].minus(samples["yardstick"]), "MB", must=must,
               peers={"skerry MB": samples["mine"], "python MB": samples["yardstick"]})  # fmt: skip


def _timed(command: Sequence[str]) -> Timing:
    """Run a command and return its wall time, and its own processor time as the kernel counted it."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean_variables(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return Timing(wall, usage.ru_utime + usage.ru_stime)


def _peak_mb(code: str) -> float:
    """Return the most memory that a Python held while it ran some code, in MB, as it says of itself."""
    done = subprocess.run(
        [sys.executable, "-c", code + MEMORY],
        cwd=ROOT,
        env=clean_variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) * 1024 / 1e6
