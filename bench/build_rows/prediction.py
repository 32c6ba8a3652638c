"""Prediction: how far predicted latencies are from measured ones, for encoders that the rates were not fitted to."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.report import Report
from skerry.build.cache import Cache, default_folder
from skerry.build.latency.calibration import calibrate, samples
from skerry.build.latency.encoders import MOST_TOKENS, Shape, bert
from skerry.build.latency.rates import Table
from skerry.build.latency.way import way_of
from skerry.build.progress import Progress
from skerry.runtimes.listing import survey
from skerry.spec.errors import DependencyError

HELD_OUT = (
    bert("MiniLM 6×384", layers=6, width=384, heads=12, inner=1536),
    bert("RoBERTa 3×320", layers=3, width=320, heads=5, inner=1280, family="roberta"),
    Shape(
        name="DistilBERT 4×256", family="distilbert",
        settings={"dim": 256, "n_layers": 4, "n_heads": 4, "hidden_dim": 640, "max_position_embeddings": MOST_TOKENS},
    ),
    bert("ELECTRA 8×192", layers=8, width=192, heads=3, inner=768, family="electra"),
    bert("MPNet 3×448", layers=3, width=448, heads=7, inner=1344, family="mpnet"),
    bert("BERT 4×512", layers=4, width=512, heads=8, inner=2048),
)  # fmt: skip
"""Other families, depths and widths than those of the calibration, chosen before any was measured; random weights."""

QUICK = 2
LENGTHS = (12, 24, 64, 192)
"""Tokens: none of them is a length of the calibration."""

NEAR, NEARER = 0.25, 0.15


class Point(NamedTuple):
    """A form of an encoder at a length of text: what was predicted and measured, in milliseconds."""

    encoder: str
    way: str
    tokens: int
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured."""
        return abs(self.predicted_ms / self.measured_ms - 1)


def rows(report: Report, quick: bool) -> None:
    """Calibrate where that was not done, measure encoders that the rates do not know, and add the rows."""
    shapes = HELD_OUT[: QUICK if quick else None]
    names = ", ".join(shape.name for shape in shapes)
    figure = "predicted latency within ±25 % of the measured one"
    try:
        found = points(shapes)
    except DependencyError as error:
        report.missing(figure, "share", error.message, must=">= 0.9")
        return
    report.add(f"{figure} ({len(found)} points; held out: {names})", within(found, NEAR), "share", must=">= 0.9")
    report.add("… within ±15 %", within(found, NEARER), "share")
    report.add("… median error", 100 * statistics.median(point.error for point in found), "%")
    for runtime in sorted({point.way.partition("/")[0] for point in found}):
        mine = [point for point in found if point.way.startswith(f"{runtime}/")]
        report.add(f"… of {runtime} ({len(mine)} points), within ±25 %", within(mine, NEAR), "share")
        report.add(f"… of {runtime}, within ±15 %", within(mine, NEARER), "share")


def points(shapes: Iterable[Shape]) -> list[Point]:
    """Return what is predicted and measured for encoders of these shapes, in every form that can be made here."""
    cache, progress = Cache(default_folder()), Progress(sys.stderr)
    usable = frozenset(each.name for each in survey() if each.usable)
    table = calibrate(cache, progress, usable)
    return [point for shape in shapes for point in _points(shape, table, cache, progress, usable)]


def within(found: Sequence[Point], reach: float) -> float:
    """Return the share of the points whose error is at most ``reach``."""
    return sum(point.error <= reach for point in found) / len(found)


def _points(shape: Shape, table: Table, cache: Cache, progress: Progress, usable: frozenset[str]) -> Iterable[Point]:
    for artifact, workload, times in samples(shape, LENGTHS, cache, progress, usable):
        way = way_of(artifact)
        assert way is not None, "the calibration knows its own forms"
        for tokens, measured_ms in times.items():
            parts = table.parts(workload.at(way.padded(tokens)), way)
            if parts is not None:
                yield Point(shape.name, way.key, tokens, parts.total, measured_ms)
