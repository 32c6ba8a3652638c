"""Prediction: how far predicted latencies are from measured ones, for encoders that the rates were not fitted to."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bench.report import Report
from skerry.build.cache import Cache, default_folder
from skerry.build.latency.calibration import LENGTHS as CALIBRATED
from skerry.build.latency.calibration import PASSES, SHAPES, Timed, table_of, timed
from skerry.build.latency.encoders import MOST_TOKENS, Shape, bert
from skerry.build.latency.forms import chains
from skerry.build.latency.rates import Table
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
    """Calibrate anew, measure encoders that the rates do not know beside it, and add the rows.

    Other work slows a machine's caches and clocks: rates of a quiet hour do not hold in a busy one.
    """
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
    for runtime in sorted(chains(())):
        mine = [point for point in found if point.way.startswith(f"{runtime}/")]
        if not mine:
            report.missing(f"… of {runtime}", "share", "none of its forms could be made and run here", must=">= 0.9")
            continue
        report.add(f"… of {runtime} ({len(mine)} points), within ±25 %", within(mine, NEAR), "share")
        report.add(f"… of {runtime}, within ±15 %", within(mine, NEARER), "share")


def points(shapes: Iterable[Shape]) -> list[Point]:
    """Return what is predicted and measured for encoders of these shapes, in every form that can be made here."""
    usable = frozenset(each.name for each in survey() if each.usable)
    wanted = [*((shape, CALIBRATED) for shape in SHAPES), *((shape, LENGTHS) for shape in shapes)]
    measured = timed(wanted, Cache(default_folder()), Progress(sys.stderr, PASSES * len(wanted)), usable)
    known = {shape.name for shape in SHAPES}
    table = table_of([each for each in measured if each.shape in known])
    return [point for each in measured if each.shape not in known for point in _points(each, table)]


def within(found: Sequence[Point], reach: float) -> float:
    """Return the share of the points whose error is at most ``reach``."""
    return sum(point.error <= reach for point in found) / len(found)


def _points(each: Timed, table: Table) -> Iterator[Point]:
    parts = table.parts(each.work, each.way)
    if parts is not None:
        yield Point(each.shape, each.way.key, each.tokens, parts.total, each.ms)
