"""Calibration: this machine's rates, from three small encoders in every form that can be made here, measured once.

It takes some minutes, most of them for making the forms, and is kept by the machine, the versions of the runtimes and
the installed toolchains. Where it was not done, the rates of :data:`REFERENCE` stand in, which were measured on another
machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from skerry.build import toolchain
from skerry.build.artifact import Artifact
from skerry.build.cache import Cache
from skerry.build.contender import ContenderError
from skerry.build.latency.encoders import MOST_TOKENS, Shape, bert
from skerry.build.latency.forms import chains, forms
from skerry.build.latency.rates import CACHED_SHARE, Rates, Sample, Table, fit
from skerry.build.latency.reading import read_workload
from skerry.build.latency.stopwatch import times_ms
from skerry.build.latency.way import Way, way_of
from skerry.build.latency.workload import Work, Workload, reading_lengths
from skerry.build.measure import machine, machine_digest
from skerry.build.measuring import RUNTIME_PACKAGES
from skerry.build.progress import Progress
from skerry.build.report import tool_versions
from skerry.build.technique import techniques
from skerry.device.cpu import last_level_cache_bytes
from skerry.device.tree import Tree

VERSION = 3
"""Counts changes of what is measured or fitted, so that older rates are not used."""

SHAPES = (
    bert("narrow", layers=2, width=128, heads=2, inner=512),
    bert("middle", layers=4, width=320, heads=10, inner=1280),
    bert("wide", layers=2, width=768, heads=12, inner=3072),
)
"""About BERT-Tiny, TinyBERT, and a sixth of BERT-Base: the encoders for small devices lie between them in width."""

LENGTHS = (8, 32, MOST_TOKENS)
"""Tokens; more lengths did not make the predictions better."""

PASSES = 2
"""Another machine on the same processor slows caches and clocks for a while, which processor time shows too."""

REFERENCE = "reference.json"


def calibrated(cache: Cache) -> Table | None:
    """Return the rates of this machine where it was calibrated, else ``None``."""
    found = cache.find(_key())
    return None if found is None else msgspec.convert(found.note.facts["table"], Table)


def calibrate(cache: Cache, progress: Progress, usable: frozenset[str]) -> Table:
    """Measure this machine with the runtimes that are usable, or find what was measured before.

    Raises ``DependencyError`` when PyTorch, transformers or ONNX Runtime is not installed.
    """

    def make(folder: Any) -> dict[str, Any]:
        return {"table": msgspec.to_builtins(_measured(cache, progress, usable))}

    return msgspec.convert(cache.entry(_key(), make).note.facts["table"], Table)


def reference() -> Table:
    """Return the rates that come with Skerry."""
    return msgspec.json.decode((files(__package__) / REFERENCE).read_bytes(), type=Table)


def samples(
    shape: Shape, lengths: Sequence[int], cache: Cache, progress: Progress, usable: frozenset[str]
) -> list[tuple[Artifact, Workload, dict[int, float]]]:
    """Return an encoder's forms, each with its workload and its measured milliseconds by length.

    One that does not run is left out.
    """
    found = []
    workload: Workload | None = None
    for artifact in forms(shape, lengths, cache, progress, usable):
        if workload is None:  # the first is fp32 in ONNX
            workload = read_workload(artifact.path, reading_lengths(artifact.max_tokens))
        try:
            found.append((artifact, workload, times_ms(artifact, lengths)))
        except ContenderError:
            continue
    return found


def cached_bytes(tree: Tree | None = None) -> float:
    """Return how many bytes of weights stay in this machine's last cache between runs."""
    return CACHED_SHARE * (last_level_cache_bytes(tree or Tree()) or 8 << 20)


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """A form of an encoder at a length of text, with what it computes there and the least time that was measured."""

    shape: str
    way: Way
    tokens: int
    work: Work
    ms: float


def timed(
    wanted: Sequence[tuple[Shape, Sequence[int]]], cache: Cache, progress: Progress, usable: frozenset[str]
) -> list[Timed]:
    """Return the times of encoders in all their forms, each for texts of some lengths.

    All are measured in :data:`PASSES` passes, so that one encoder's measurements lie minutes apart and beside those of
    the others.
    """
    found: dict[tuple[str, str, int], Timed] = {}
    for number, (shape, lengths) in itertools.product(range(PASSES), wanted):
        with progress.step(f"measure the {shape.name} encoder in every form, pass {number + 1}"):
            for artifact, workload, times in samples(shape, lengths, cache, progress, usable):
                way = way_of(artifact)
                assert way is not None, "the calibration knows its own forms"
                for tokens, ms in times.items():
                    point = (shape.name, way.key, tokens)
                    least = min(ms, found[point].ms) if point in found else ms
                    work = workload.at(way.padded(tokens))
                    found[point] = Timed(shape=shape.name, way=way, tokens=tokens, work=work, ms=least)
    return list(found.values())


def table_of(points: Sequence[Timed]) -> Table:
    """Return the rates that fit the times of encoders; a way that not all of them have is left out."""
    kept, rates = cached_bytes(), dict[str, Rates]()
    shapes = {point.shape for point in points}
    for key in sorted({point.way.key for point in points}):
        mine = [point for point in points if point.way.key == key]
        if {point.shape for point in mine} == shapes:
            taken = [Sample(work=point.work, ms=point.ms) for point in mine]
            rates[key] = fit(taken, mine[0].way.precision, kept)
    return Table(machine=machine(), cached_bytes=kept, rates=rates, origin="measured on this machine")


def _measured(cache: Cache, progress: Progress, usable: frozenset[str]) -> Table:
    return table_of(timed([(shape, LENGTHS) for shape in SHAPES], cache, progress, usable))


def _key() -> dict[str, Any]:
    return {
        "step": "calibration", "version": VERSION, "machine": machine_digest(),
        "tools": tool_versions(*RUNTIME_PACKAGES), "toolchains": _toolchains(),
    }  # fmt: skip


def _toolchains() -> list[str]:
    """Return the toolchains that make forms and are installed: with one more, there is more to be measured."""
    known = techniques()
    steps = {name for those in chains(LENGTHS).values() for chain in those for name, _ in chain}
    wanted = {known[name].toolchain for name in steps}
    return sorted(name for name in wanted if name is not None and toolchain.find(name) is not None)
