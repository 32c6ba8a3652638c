"""Throughput: MiniLM through the engine beside a bare loop over the same session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.engine_rows.cost import Arrivals, Stopwatch, both_clocks
from bench.engine_rows.minilm import MiniLM, ModelMissingError, provide, texts
from bench.engine_rows.rig import Call, Tap, running
from bench.measuring import Samples, Timing
from bench.report import Report
from skerry.run.stages.embed import EmbedOptions, EmbedStage

MUST = ">= 0.99"
TEXTS = 16
"""Texts of a turn: 20 ms, so that candidates meet the same disturbances and many turns can be taken."""
BESIDE = {"alone": "bare", "batched": "bare again", "encoder": "bare"}
FIGURES = {
    "alone": "MiniLM through the engine vs a bare loop over the same session, items/s, one text at a time",
    "batched": "MiniLM, items/s: what is queued is taken at once (up to 16 texts) vs the bare loop",
    "encoder": "MiniLM, items/s: a loop over Skerry's encoder, without the engine, vs the bare loop",
}


def add_rows(report: Report, *, quick: bool) -> None:
    """Measure each way and add the rows, by processor time and by the clock on the wall."""
    try:
        minilm = provide()
    except ModelMissingError as error:
        for name, words in FIGURES.items():
            report.missing(words, "×", str(error), must=MUST if name == "alone" else None)
        return
    cpu, wall = _measured(minilm, texts(TEXTS), 50 if quick else 300)
    for clock, taken in (("CPU", cpu), ("wall", wall)):
        for name, words in FIGURES.items():
            # Items per second are the inverse of seconds per item: the bare loop's over the engine's.
            ratio = taken[BESIDE[name]].over(taken[name])
            must = MUST if name == "alone" else None
            report.add(f"{words} ({clock} time)", ratio, "×", must=must, peers=rates(taken, name))


def rates(taken: dict[str, Samples], name: str) -> dict[str, Samples]:
    """Return items per second of the candidate and of the bare loop."""
    return {
        label: Samples(tuple(1 / value for value in taken[which].values))
        for label, which in (("skerry items/s", name), ("bare items/s", BESIDE[name]))
    }


def _measured(minilm: MiniLM, lines: tuple[str, ...], repeats: int) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Return seconds per text of every candidate; the one that works in another thread has a bare loop of its own.

    Otherwise the loop that comes after it would find a cold core, and pay for its neighbour.
    """
    arrivals = Arrivals()
    pulled, queued = Tap(live=False), Tap(live=True)
    embed = [EmbedStage(EmbedOptions(model="minilm")) for _ in range(2)]
    with (
        running(pulled, embed[:1], Call(arrivals.take), models=minilm.models, batch=1),
        running(queued, embed[1:], Call(arrivals.take), models=minilm.models),
    ):
        bare = partial(_looped, minilm.bare.embed, lines)
        encoder = partial(_looped, lambda line: minilm.encoder.embed((line,)), lines)
        alone = partial(_fed, pulled, lines, arrivals)
        batched = partial(_fed, queued, lines, arrivals)
        cpu, wall = both_clocks({"bare": bare, "encoder": encoder, "alone": alone}, repeats=repeats, collect=False)
        more_cpu, more_wall = both_clocks({"bare again": bare, "batched": batched}, repeats=repeats // 2, collect=False)
    return cpu | more_cpu, wall | more_wall


def _looped(embed: Callable[[str], Any], lines: tuple[str, ...]) -> Timing:
    kept: list[Any] = []
    embed(lines[0])  # what was there before has used the caches for something else
    watch = Stopwatch()
    for line in lines:
        fields: dict[str, Any] = {"text": line}
        fields["embedding"] = embed(line)
        kept.append(fields)
    return watch.per_item(len(lines))


def _fed(tap: Tap, lines: tuple[str, ...], arrivals: Arrivals) -> Timing:
    emit = tap.emit
    arrivals.expect(1)
    emit({"text": lines[0]})
    arrivals.everything.wait()
    arrivals.expect(len(lines))
    watch = Stopwatch()
    for line in lines:
        emit({"text": line})
    arrivals.everything.wait()
    return watch.per_item(len(lines))
