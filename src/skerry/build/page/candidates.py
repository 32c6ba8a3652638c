"""The candidates on the page: a table of those that were measured, and what became of all others."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skerry.build import wording
from skerry.build.figures import Estimate, Figures
from skerry.build.findings import (
    Baseline,
    Candidate,
    FigureName,
    Findings,
    Ranked,
    discards,
    failures,
    field_of,
    ranked,
)
from skerry.build.page.markup import Markup, element, joined
from skerry.build.verdict import total_excess

_BY = {"prediction": "predicted", "size": "too large", "time": "no time", "device": "not there"}
"""What a candidate was left out by, in words."""

_FOLDED = 8
"""More rows of what was not tried than this are folded: they seldom matter."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A figure as it is shown, what the column is sorted by, its interval, and which field it is."""

    text: str
    value: float | None
    interval: str = ""
    field: FigureName


def candidates_section(findings: Findings) -> Markup:
    """Return the table of what was measured, the best first; the first row is the baseline."""
    rows = ranked(findings)
    shown = [each.measured.figures for each in rows] + [findings.baseline.figures]
    columns = _columns(findings, shown)
    titles = ["#", "candidate", "runtime", *(title for title, _ in columns), "rung", "budget"]
    sortable = "number" if rows else None
    head = element(
        "thead",
        element("tr", *(element("th", title, scope="col", data_sort=sortable) for title in titles)),
    )
    body = element("tbody", *(_row(each, findings, [name for _, name in columns]) for each in rows))
    foot = element("tbody", _baseline_row(findings.baseline, findings.metric, [name for _, name in columns]))
    caption = element(
        "caption",
        "Measured, the best first; beneath a figure its 95 % interval, and ✗ by how much it misses the budget",
    )
    table = element("table", caption, head, foot, body, class_="candidates")
    return element(
        "section",
        element("h2", "Candidates", id="candidates"),
        element("div", table, class_="card scroll", tabindex="0", role="region", aria_labelledby="candidates"),
    )


def failures_section(findings: Findings) -> Markup | None:
    """Return what failed and why, and what was not tried and why."""
    failed, left = failures(findings), discards(findings)
    if not failed and not left:
        return None
    return element(
        "section",
        element("h2", "Failed and not tried", id="failed"),
        element(
            "div", _failed_table(findings) if failed else None, _left_table(findings) if left else None, class_="card"
        ),
    )


def _columns(findings: Findings, shown: Sequence[Figures]) -> list[tuple[str, FigureName]]:
    """Return the columns; those that nothing was measured for are left out."""
    columns: list[tuple[str, FigureName]] = [
        (findings.metric, "quality"), ("p50", "latency_p50_ms"), ("p99", "latency_p99_ms"), ("speed-up", "speedup"),
        ("items/s", "items_per_s"), ("load", "load_ms"), ("peak", "peak_bytes"), ("disk", "size_bytes"),
        ("CPU", "cpu_ms"), ("energy", "energy_j"),
    ]  # fmt: skip
    optional = {"items_per_s", "load_ms", "cpu_ms", "energy_j"}
    return [(title, name) for title, name in columns if name not in optional or any(getattr(f, name) for f in shown)]


def _row(each: Ranked, findings: Findings, columns: Sequence[FigureName]) -> Markup:
    candidate, measured = each.candidate, each.measured
    marks = [
        element("span", "chosen", class_="mark chosen") if each.chosen else None,
        element("span", "front", class_="mark front") if each.on_front else None,
        element("span", f"ladder {each.ladder_step + 1}", class_="mark ladder")
        if each.ladder_step is not None
        else None,
    ]
    title = element("div", element("b", candidate.name), *marks)
    cells = [cell_of(measured.figures, name, findings.metric) for name in columns]
    broken = {field_of(line): wording.short_miss(line) for line in measured.lines if not line.holds}
    return element(
        "tr",
        element("td", str(each.rank), class_="number", data_value=str(each.rank)),
        element(
            "th", title, _steps(candidate), _note(candidate), scope="row", class_="name", data_value=candidate.name
        ),
        element("td", *_runtime(candidate), data_value=candidate.runtime),
        *(_cell(cell, cell.field in measured.predicted, broken.get(cell.field, "")) for cell in cells),
        element("td", f"{measured.rung}/{max(findings.rungs, measured.rung)}", data_value=str(measured.rung)),
        _budget_cell(each),
        id=f"candidate-{each.rank}",
        class_="chosen" if each.chosen else None,
        data_rank=str(each.rank),
    )


def _budget_cell(each: Ranked) -> Markup:
    lines = each.measured.lines
    if not lines:
        return element("td", wording.NOTHING, data_value="0")
    if each.measured.keeps_budget:
        return element("td", "✓ keeps", class_="good", data_value="0")
    broken = sum(not line.holds for line in lines)
    said = f"✗ {broken} of {len(lines)}"
    title = wording.missed(each.measured)
    return element("td", said, class_="bad", title=title, data_value=f"{total_excess(lines):.6g}")


def _baseline_row(baseline: Baseline, metric: str, columns: Sequence[FigureName]) -> Markup:
    marked = element("div", element("b", baseline.name), element("span", "baseline", class_="mark"))
    return element(
        "tr",
        element("td", "–", class_="number"),
        element("th", marked, scope="row", class_="name"),
        element("td", *_runtime(baseline)),
        *(_cell(cell_of(baseline.figures, name, metric), name in baseline.predicted) for name in columns),
        element("td"),
        element("td"),
        id="baseline",
        class_="baseline",
        data_rank="0",
    )


def cell_of(figures: Figures, field: FigureName, metric: str) -> Cell:
    """Return a figure as a table shows it."""
    if field == "quality":
        return _estimated(figures.quality.get(metric), field)
    value = getattr(figures, field)
    if isinstance(value, Estimate):
        return _estimated(value, field)
    if field in {"peak_bytes", "size_bytes"}:
        return Cell(text=wording.octets(value or None), value=value, field=field)
    if field == "items_per_s":
        return Cell(text=wording.rate(value), value=value, field=field)
    if field == "energy_j":
        return Cell(text=wording.joules(value), value=value, field=field)
    return Cell(text=wording.milliseconds(value or None), value=value, field=field)


def _estimated(estimate: Estimate | None, field: FigureName) -> Cell:
    if estimate is None:
        return Cell(text=wording.NOTHING, value=None, field=field)
    say = {"quality": wording.share, "speedup": wording.times}.get(field, wording.milliseconds)
    interval = (
        "" if estimate.low == estimate.high else f"{_bare(say(estimate.low), say(estimate.high))}–{say(estimate.high)}"
    )
    return Cell(text=say(estimate.value), value=estimate.value, interval=interval, field=field)


def _bare(low: str, high: str) -> str:
    """Leave out the unit of the lower end where the upper one has the same."""
    number, _, unit = low.partition(" ")
    return number if unit and high.endswith(f" {unit}") else low.removesuffix("×")


def _cell(cell: Cell, predicted: bool = False, broken: str = "") -> Markup:
    """Return the cell of a figure; ``broken`` says by how much it misses the budget."""
    shown = f"≈ {cell.text}" if predicted else cell.text
    interval = element("small", cell.interval) if cell.interval else None
    value = None if cell.value is None else f"{cell.value:.9g}"
    miss = element("small", f"✗ {broken}", class_="bad") if broken else None
    return element("td", shown, interval, miss, class_="number predicted" if predicted else "number", data_value=value)


def _steps(candidate: Candidate) -> Markup | None:
    if not candidate.steps or wording.recipe(candidate) == candidate.name:
        return None
    return element("div", *(element("span", step.label(), class_="step") for step in candidate.steps), class_="steps")


def _note(candidate: Candidate) -> Markup | None:
    return element("small", candidate.note) if candidate.note else None


def _runtime(run: Candidate | Baseline) -> tuple[str, Markup]:
    return run.runtime, element("small", wording.threads(run.threads))


def _failed_table(findings: Findings) -> Markup:
    rows = [
        element(
            "tr",
            element("th", element("b", candidate.name), _steps(candidate), scope="row", class_="name"),
            element("td", *_runtime(candidate)),
            element("td", element("span", failed.kind, class_="mark bad")),
            element("td", failed.reason, class_="reason"),
        )
        for candidate, failed in failures(findings)
    ]
    return _plain_table("Failed", ("candidate", "runtime", "how", "why"), rows)


def _left_table(findings: Findings) -> Markup:
    left = discards(findings)
    rows = [
        element(
            "tr",
            element("th", element("b", candidate.name), _steps(candidate), scope="row", class_="name"),
            element("td", *_runtime(candidate)),
            element("td", _BY[discarded.by]),
            element("td", discarded.reason, class_="reason"),
        )
        for candidate, discarded in left
    ]
    table = _plain_table("Not tried", ("candidate", "runtime", "by", "why"), rows)
    if len(rows) <= _FOLDED:
        return table
    return element("details", element("summary", f"{len(rows)} candidates were not tried"), table)


def _plain_table(caption: str, titles: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = element("thead", element("tr", *(element("th", title, scope="col") for title in titles)))
    table = element("table", element("caption", caption), head, element("tbody", joined(*rows)), class_="plain")
    return element("div", table, class_="scroll")
