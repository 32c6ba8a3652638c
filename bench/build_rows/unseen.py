"""Unseen: another model and another text than anybody tuned on, and what composing techniques gains there.

The search is the one that ``skerry build --time`` does. Of all that it measured, the best form that several techniques
made and the best ones that a single technique made are taken by how they did on the texts to select by; then they are
measured beside each other on lines that were kept from the search altogether.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.build_rows import objective
from bench.build_rows.field import Entrant, Field
from bench.build_rows.material import MODEL, project
from bench.build_rows.objective import Standing
from bench.report import Report
from skerry.build.artifact import Artifact
from skerry.build.cache import Cache, default_folder
from skerry.build.figures import Figures
from skerry.build.findings import Candidate, Measured
from skerry.build.halving import order
from skerry.build.model_search import ModelSearch, Wish
from skerry.build.progress import Progress
from skerry.build.splits import split
from skerry.build.technique import Kind, techniques
from skerry.build.texts import read_texts
from skerry.spec.budget import Budget
from skerry.spec.errors import SkerryError
from skerry.spec.reading import read_project

R10 = "agreement@10"
LEAST_R10 = 0.95
"""The budget: models and texts differ, and one that keeps 95 of 100 neighbours is of use for most of them."""
LINES, MOST_LINES = "lines.txt", 2400
SETTINGS = (f"data: {{calibrate: {LINES}}}", "budget:", "  quality: {metric: agreement@10, min: 0.95}")
PLAIN = "export-onnx"
"""What makes a given model runnable at all, and is therefore no technique to be counted."""
SINGLES = 3
FP32 = "ORT fp32"


class Chosen(NamedTuple):
    """The names of the forms that are measured on the lines nobody has seen, the most promising first.

    Parameters
    ----------
    composed:
        The best one that several techniques made.
    singles:
        The best ones that one technique made. A conversion to another runtime is a technique.
    compressed:
        The best one that was pruned, taught or quantized once, where a conversion is not counted.
    """

    composed: list[str]
    singles: list[str]
    compressed: list[str]


def measure(folder: Path, text: Path, *, seconds: float, quick: bool, packages: Sequence[str]) -> Report:
    """Search, measure on held-out lines, and return the report; what goes wrong becomes its row."""
    label = f"{folder.resolve().name}-{text.stem}"
    report = Report(f"build-unseen-{label}", packages=packages)
    figure = f"{folder.resolve().name} on {text.name}: best composed form beside the best of one technique"
    try:
        _add(report, figure, folder, text, seconds=seconds, quick=quick, label=label)
    except SkerryError as error:
        report.missing(figure, "×", error.message, must="> 1")
    return report


def _add(report: Report, figure: str, folder: Path, text: Path, *, seconds: float, quick: bool, label: str) -> None:
    place = project(f"unseen/{label}", str(folder.resolve()), SETTINGS)
    held_out = keep_apart(text, place / LINES)
    read = read_project(place)
    model = read.pipeline.models[MODEL]
    progress = Progress(sys.stderr, seconds=seconds)
    # Not the command: a release holds only what won, and here the runners-up are to be measured too.
    search = ModelSearch(MODEL, model, read, Cache(default_folder()), progress, Wish(seconds=seconds))
    search.search()
    found = search.found
    assert found is not None
    chosen = choose(found.candidates, model.budget, {name: kind.kind for name, kind in techniques().items()})
    plain = next(each.name for each in found.candidates if [step.technique for step in each.steps] == [PLAIN])
    names = dict.fromkeys((*chosen.composed, *chosen.singles, *chosen.compressed))
    artifacts = {FP32: found.artifacts[plain], **{name: found.artifacts[name] for name in names}}
    standing = _raced(artifacts, held_out, 24 if quick else 150, report)
    _add_rows(report, figure, standing, chosen)


def keep_apart(text: Path, target: Path) -> tuple[str, ...]:
    """Write three quarters of the lines for the search, and return the others, which it never gets to see."""
    parts = split(read_texts(text, most=MOST_LINES))
    given = [*parts.calibrate.lines, *parts.select.lines]
    target.write_text("".join(" ".join(line.split()) + "\n" for line in given), encoding="utf-8")
    return tuple(parts.report.lines)


def choose(candidates: Sequence[Candidate], budget: Budget, kinds: Mapping[str, Kind]) -> Chosen:
    """Return who is measured on unseen lines, by the texts that were to select by; ``kinds`` are the techniques'."""
    figures: dict[str, Figures] = {
        each.name: each.outcome.figures for each in candidates if isinstance(each.outcome, Measured)
    }
    counts = {each.name: techniques_in(each) for each in candidates}
    changes = {each.name: sum(kinds.get(step.technique) != "convert" for step in each.steps) for each in candidates}
    ranked = order(figures, budget, R10)
    return Chosen(
        composed=[name for name in ranked if counts[name] > 1][:1],
        singles=[name for name in ranked if counts[name] == 1][:SINGLES],
        compressed=[name for name in ranked if changes[name] == 1][:1],
    )


def techniques_in(candidate: Candidate) -> int:
    """Return how many techniques made a form; that a model is exported as it is makes it runnable, and no more."""
    return sum(step.technique != PLAIN for step in candidate.steps)


def _raced(artifacts: Mapping[str, Artifact], lines: Sequence[str], turns: int, report: Report) -> dict[str, Standing]:
    """Return everybody's standing on the held-out lines, and add a row for each who failed."""
    with Field([Entrant(name, artifact) for name, artifact in artifacts.items()]) as field:
        field.start(lines)
        race = field.race(lines, turns)
        quality = field.judge(lines, FP32)
        for name, reason in field.failed.items():
            report.missing(name, "×", reason)
    return objective.standings({name: of[R10].value for name, of in quality.items()}, race.wall)


def _add_rows(report: Report, figure: str, standing: dict[str, Standing], chosen: Chosen) -> None:
    fp32 = standing[FP32]
    for name, one in standing.items():
        if name != FP32:
            report.add(f"{name}: speed against ORT fp32, held out", one.speed(fp32), "×", peers={"r@10": one.quality})
    mine = next((standing[name] for name in chosen.composed if name in standing), None)
    if mine is None:
        report.missing(figure, "×", "no composed form could be measured", must="> 1")
        return
    report.add("best composed form: r@10, held out", mine.quality, "", must=f">= {LEAST_R10}")
    _add_comparison(report, figure, mine, [fp32, *(standing[name] for name in chosen.singles if name in standing)])
    once = [standing[name] for name in chosen.compressed if name in standing]
    if once and once[0].name != mine.name:
        peers = {"its r@10": once[0].quality}
        report.add(f"beside the best of one compression in any runtime ({once[0].name})", mine.speed(once[0]), "×",
                   peers=peers)  # fmt: skip
    elif once:
        report.missing("beside the best of one compression in any runtime", "×", "it is the best composed form itself")


def _add_comparison(report: Report, figure: str, mine: Standing, rivals: list[Standing]) -> None:
    """Add the speed beside the fastest rival that keeps the budget's quality; the given model always does."""
    able = [one for one in rivals if one.quality >= LEAST_R10]
    best = objective.fastest(able)
    speed = mine.speed(best)
    report.add(
        f"{figure} ({mine.name} beside {best.name})", speed, "×", must="> 1",
        peers={one.name: mine.speed(one) for one in able},
    )  # fmt: skip
    report.add(f"{figure}: 95 % lower bound", objective.lower_bound(speed), "×", must="> 1")
