"""Start-up: from the command to the first answer, and what importing the server takes."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial

from bench.engine_rows.minilm import ModelMissingError
from bench.engine_rows.server import ServerMissingError
from bench.engine_rows.startup import _timed as timed_command
from bench.environments import Environment, EnvironmentMissingError, provide
from bench.measuring import interleaved
from bench.report import Report
from bench.serve_rows.servers import PEERS, SKERRY, Subject, running
from bench.serve_rows.subjects import SUBJECTS

IMPORT = "import skerry.run.serve.server, skerry.run.serve.loading"
YARDSTICK = "import asyncio, json, numpy"


def add_rows(report: Report, *, quick: bool) -> None:
    """Start servers and interpreters in turns, and add the rows; informative, without a bound."""
    repeats = 2 if quick else 5
    for make in SUBJECTS.values():
        try:
            with make() as prepared:
                _first_answer(report, prepared.subject, repeats)
        except (ModelMissingError, ServerMissingError) as error:
            report.missing("from the command to the first answer", "s", str(error))
    taken = interleaved(
        {
            name: partial(lambda code: timed_command((sys.executable, "-c", code)).wall_s, code)
            for name, code in (("ours", IMPORT), ("yardstick", YARDSTICK))
        },
        repeats=5 * repeats,
    )
    report.add(
        "importing the server and all it loads with vs import asyncio, json, numpy",
        taken["ours"].over(taken["yardstick"]), "×",
        peers={"skerry ms": taken["ours"].scaled(1e3), "python ms": taken["yardstick"].scaled(1e3)},
    )  # fmt: skip


def _first_answer(report: Report, subject: Subject, repeats: int) -> None:
    environments: dict[str, Environment | None] = {SKERRY: None}
    missing: dict[str, str] = {}
    for server in PEERS:
        try:
            environments[server] = provide(server)
        except EnvironmentMissingError as error:
            missing[server] = str(error)

    def ready_s(server: str) -> float:
        with ExitStack() as stack:
            return stack.enter_context(running(server, subject, environments[server])).ready_s

    taken = interleaved({server: partial(ready_s, server) for server in environments}, repeats=repeats)
    for server, name in PEERS.items():
        figure = f"from the command to the first answer, {subject.name}: skerry serve vs {name}"
        if server in missing:
            report.missing(figure, "×", missing[server], peers={name: missing[server]})
            continue
        report.add(
            figure,
            taken[SKERRY].over(taken[server]),
            "×",
            peers={"skerry s": taken[SKERRY], f"{name} s": taken[server]},
        )
