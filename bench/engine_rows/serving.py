"""Serving: what the engine, and servers of models on loopback, add to the time that bare MiniLM takes for a text."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench.engine_rows.minilm import MiniLM, ModelMissingError, provide, texts
from bench.engine_rows.rig import Call, Tap, running
from bench.engine_rows.server import COMMANDS, Client, ServerMissingError, serving
from bench.environments import EnvironmentMissingError
from bench.environments import provide as provide_environment
from bench.measuring import Samples, percentile
from bench.report import Report
from skerry.run.sources.http import HttpOptions, HttpSource
from skerry.run.stages.embed import EmbedOptions, EmbedStage
from skerry.spec.ports import Address, Context, Emit, Stop

MUST = "<= 0.0667"
BARE, PULLED, QUEUED, HTTP = "bare", "engine, pulled", "engine, behind a channel", "skerry http+listen"
NAMES = {"litserve": "LitServe", "bentoml": "BentoML"}
TEXTS_PER_ROUND = 32
Ask = Callable[[str], float]
"""Has a text answered; returns when the answer was there, in seconds of ``time.perf_counter``."""


def add_rows(report: Report, *, quick: bool) -> None:
    """Start what can be started, measure text by text in turns, and add the rows."""
    try:
        minilm = provide()
    except ModelMissingError as error:
        for peer in COMMANDS:
            report.missing(_figure(PULLED, peer), "×", str(error), must=MUST)
        return
    rounds = 6 if quick else 60
    with ExitStack() as stack:
        contenders: dict[str, Ask] = {BARE: _until_return(minilm.bare.embed), **_engines(stack, minilm)}
        missing = _start_peers(stack, minilm, contenders, report)
        taken = measured(contenders, texts(64), rounds)
    _add(report, taken, missing)


def _start_peers(stack: ExitStack, minilm: MiniLM, contenders: dict[str, Ask], report: Report) -> dict[str, str]:
    """Add every peer that can be had to the contenders; return why the others are missing."""
    missing: dict[str, str] = {}
    for name in COMMANDS:
        try:
            environment = provide_environment(name)
            client = stack.enter_context(serving(environment, minilm))
        except (EnvironmentMissingError, ServerMissingError) as error:
            missing[name] = str(error)
            continue
        report.note_versions(
            {package: environment.versions[package] for package in environment.versions if package == name}
        )
        contenders[name] = _until_return(client.post)
    return missing


def _until_return(call: Callable[[str], object]) -> Ask:
    """Return the asking of one whose answer is there when it returns."""

    def ask(text: str) -> float:
        call(text)
        return time.perf_counter()

    return ask


def _engines(stack: ExitStack, minilm: MiniLM) -> dict[str, Ask]:
    """Start the engines that answer from within the process, and the one behind ``http+listen``."""
    arrived = Arrival()
    pulled, queued, posted = Tap(live=False), Tap(live=True), Posted()
    for tap, batch in ((pulled, 1), (queued, None), (posted, None)):
        stage = EmbedStage(EmbedOptions(model="minilm"))
        stack.enter_context(running(tap, [stage], Call(arrived.take), models=minilm.models, batch=batch))
    client = Client(posted.port, "/")
    stack.callback(client.close)
    return {
        PULLED: lambda text: arrived.after(lambda: pulled.emit({"text": text})),
        QUEUED: lambda text: arrived.after(lambda: queued.emit({"text": text})),
        HTTP: lambda text: arrived.after(lambda: client.post(text)),
    }


class Arrival:
    """When the one text that is on its way has arrived at the sink."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._at = 0.0

    def take(self, record: Any) -> None:
        """Note an arrival."""
        self._at = time.perf_counter()
        self._arrived.release()

    def after(self, send: Callable[[], object]) -> float:
        """Send a text and return when it arrived."""
        send()
        self._arrived.acquire()
        return self._at


class Posted(Tap):
    """The real ``http+listen`` source, on a port that the system chooses."""

    def __init__(self) -> None:
        super().__init__(live=True)
        self._source = HttpSource(Address("http+listen://127.0.0.1:0", "http+listen", "127.0.0.1", 0), HttpOptions())

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._source.bound_port

    def open(self, context: Context, position: Any | None) -> None:
        """Take the port."""
        self._source.open(context, position)

    def run(self, emit: Emit, stop: Stop) -> None:
        """Serve until the run ends."""
        self._running.set()
        self._source.run(emit, stop)

    def close(self) -> None:
        """Give the port back."""
        self._source.close()


def measured(contenders: Mapping[str, Ask], lines: Sequence[str], rounds: int) -> dict[str, list[list[float]]]:
    """Return, for each contender and round, the seconds of each text.

    All contenders answer a text before the next text comes, in an order that is drawn anew: whoever comes after a
    server that kept the core waiting finds it cold, and that must not always be the same one.
    """
    names, chance = list(contenders), random.Random(TEXTS_PER_ROUND)
    taken: dict[str, list[list[float]]] = {name: [] for name in names}
    for name in names:  # everything has been used once
        contenders[name](lines[0])
    for turn in range(rounds):
        for name in names:
            taken[name].append([])
        for number in range(TEXTS_PER_ROUND):
            line = lines[(turn * TEXTS_PER_ROUND + number) % len(lines)]
            for name in chance.sample(names, len(names)):
                begin = time.perf_counter()
                taken[name][-1].append(contenders[name](line) - begin)
    return taken


def _add(report: Report, taken: Mapping[str, list[list[float]]], missing: Mapping[str, str]) -> None:
    beyond = {name: _beyond_bare(taken, name) for name in taken if name != BARE}
    for mine in (PULLED, QUEUED):
        for peer in COMMANDS:
            if peer in missing:
                report.missing(_figure(mine, peer), "×", missing[peer], must=MUST, peers={NAMES[peer]: missing[peer]})
                continue
            report.add(
                _figure(mine, peer), beyond[mine].over(beyond[peer]), "×", must=MUST,
                peers={"skerry µs": beyond[mine].scaled(1e6), f"{NAMES[peer]} µs": beyond[peer].scaled(1e6)},
            )  # fmt: skip
    peers: dict[str, Samples | float | str] = {
        f"{NAMES[peer]} µs": missing[peer] if peer in missing else beyond[peer].scaled(1e6) for peer in COMMANDS
    }
    report.add(
        "p50 beyond bare MiniLM: POST to http+listen until the answer is at the sink",
        beyond[HTTP].scaled(1e6),
        "µs",
        peers=peers,
    )
    report.add(
        "p50 of bare MiniLM, one text", Samples(tuple(percentile(one, 50.0) for one in taken[BARE])).scaled(1e6), "µs"
    )


def _beyond_bare(taken: Mapping[str, list[list[float]]], name: str) -> Samples:
    """Return the difference of the medians of each round, in seconds."""
    return Samples(
        tuple(
            percentile(mine, 50.0) - percentile(bare, 50.0) for mine, bare in zip(taken[name], taken[BARE], strict=True)
        )
    )


def _figure(mine: str, peer: str) -> str:
    return f"p50 per text beyond bare MiniLM: {mine} vs {NAMES[peer]} on loopback"
