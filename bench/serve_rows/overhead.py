"""Overhead: what a server adds to the time of the bare model, and how many answers a second it gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from bench.engine_rows.minilm import ModelMissingError
from bench.engine_rows.server import ServerMissingError
from bench.environments import Environment, EnvironmentMissingError, provide
from bench.measuring import Samples, percentile
from bench.report import Report
from bench.serve_rows.load import Load, Wire, one_at_a_time, together
from bench.serve_rows.servers import PEERS, SKERRY, Subject, running
from bench.serve_rows.subjects import SUBJECTS, Prepared

BARE = "bare"
WIRES = 8
Round = Callable[[], Load]


class Contender(NamedTuple):
    """A server that answers, with its connections and requests."""

    alone: Wire
    wires: tuple[Wire, ...]
    requests: tuple[bytes, ...]


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure every subject and add its rows."""
    for make in SUBJECTS.values():
        try:
            with make() as prepared:
                _measure(report, prepared, rounds=4 if quick else 15)
        except ModelMissingError as error:
            report.missing("MiniLM behind a server", "×", str(error), must="< 1")


def _measure(report: Report, prepared: Prepared, rounds: int) -> None:
    subject = prepared.subject
    with ExitStack() as stack:
        missing: dict[str, str] = {}
        contenders: dict[str, Contender] = {}
        for server in (SKERRY, *PEERS):
            try:
                environment = None if server == SKERRY else _environment(server, report)
                contenders[server] = _start(stack, server, subject, environment)
            except (EnvironmentMissingError, ServerMissingError) as error:
                missing[server] = str(error)
        alone: dict[str, Round] = {BARE: lambda: _bare(prepared)}
        crowd: dict[str, Round] = {BARE: lambda: _bare(prepared)}
        for server, contender in contenders.items():
            alone[server] = _alone(contender)
            crowd[server] = _crowd(contender)
        for name, taken in (("1", _in_turns(alone, rounds)), (str(WIRES), _in_turns(crowd, rounds))):
            _add(report, subject.name, name, taken, missing)


def _environment(server: str, report: Report) -> Environment:
    environment = provide(server)
    report.note_versions({server: environment.versions[server]})
    return environment


def _start(stack: ExitStack, server: str, subject: Subject, environment: Environment | None) -> Contender:
    found = stack.enter_context(running(server, subject, environment))
    wires = tuple(Wire(found.port) for _ in range(WIRES))
    for wire in wires:
        stack.callback(wire.close)
    return Contender(wires[0], wires, tuple(subject.requests(server)))


def _alone(contender: Contender) -> Round:
    return lambda: one_at_a_time(contender.alone, contender.requests)


def _crowd(contender: Contender) -> Round:
    return lambda: together(contender.wires, contender.requests * 2)


def _bare(prepared: Prepared) -> Load:
    """Answer every item without a server."""
    latencies: list[float] = []
    begin = time.perf_counter()
    for item in prepared.subject.items:
        started = time.perf_counter()
        prepared.bare(item)
        latencies.append(time.perf_counter() - started)
    return Load(latencies, time.perf_counter() - begin)


def _in_turns(contenders: Mapping[str, Round], rounds: int) -> dict[str, list[Load]]:
    """Let every contender answer all requests, ``rounds`` times, in an order that rotates; the first one warms up."""
    names = list(contenders)
    taken: dict[str, list[Load]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            load = contenders[name]()
            if turn:
                taken[name].append(load)
    return taken


def _add(
    report: Report, subject: str, connections: str, taken: Mapping[str, list[Load]], missing: Mapping[str, str]
) -> None:
    time_of: Callable[[Load], float] = _p50 if connections == "1" else _each
    what = "p50" if connections == "1" else "time per answer"
    bare = Samples(tuple(time_of(load) for load in taken[BARE]))
    beyond = {
        name: Samples(tuple(time_of(load) for load in loads)).minus(bare)
        for name, loads in taken.items()
        if name != BARE
    }
    rates = {name: Samples(tuple(load.per_second for load in loads)) for name, loads in taken.items() if name != BARE}
    for server, name in PEERS.items():
        tail = f"{subject}, {connections} at once: skerry serve vs {name}"
        if server in missing or SKERRY in missing:
            reason = missing.get(SKERRY) or missing[server]
            report.missing(f"{what} beyond bare, {tail}", "×", reason, must="< 1", peers={name: reason})
            report.missing(f"answers per second, {tail}", "×", reason, must="> 1", peers={name: reason})
            continue
        peers: dict[str, Any] = {
            "skerry µs": beyond[SKERRY].scaled(1e6),
            f"{name} µs": beyond[server].scaled(1e6),
            "bare µs": bare.scaled(1e6),
        }
        ratio = beyond[SKERRY].over(beyond[server])
        report.add(f"{what} beyond bare, {tail}", ratio, "×", must="< 1", peers=peers)
        report.add(
            f"answers per second, {tail}", rates[SKERRY].over(rates[server]), "×", must="> 1",
            peers={"skerry": rates[SKERRY], name: rates[server]},
        )  # fmt: skip


def _p50(load: Load) -> float:
    return percentile(load.latencies_s, 50.0)


def _each(load: Load) -> float:
    return load.whole_s / len(load.latencies_s)
