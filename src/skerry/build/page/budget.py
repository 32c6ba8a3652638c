"""The budget on the page: each line with what was asked and reached, and what to relax where nothing keeps it."""

from __future__ import annotations

import math

from skerry.build import wording
from skerry.build.findings import Findings, Ranked, field_of, ranked
from skerry.build.page.markup import Markup, element, joined
from skerry.build.relaxation import NearMiss
from skerry.build.verdict import Line

_WIDTH, _HEIGHT = 220.0, 22.0
_LIMIT_AT = 0.7
"""The limit stands at this part of every gauge, so that lines of different units can be compared at a glance."""


def budget_section(findings: Findings) -> Markup | None:
    """Return the lines of the chosen one, else of the best that was measured, and the degrade ladder."""
    best = next(iter(ranked(findings)), None)
    lines = _lines(best) if best is not None and best.measured.lines else None
    steps = _ladder(findings)
    if lines is None and steps is None:
        return None
    shown = element("div", lines, steps, class_="columns") if lines and steps else lines or steps
    return element(
        "section",
        element("h2", "Budget" if lines else "Ladder", id="budget"),
        shown,
        element("div", _near(findings), class_="card") if findings.near_misses else None,
    )


def _lines(best: Ranked) -> Markup:
    titles = (("limit", None), ("asked", "number"), ("reached", "number"), ("against the limit", "gauge"), ("", None))
    head = element("thead", element("tr", *(element("th", title, scope="col", class_=kind) for title, kind in titles)))
    rows = element("tbody", *(_row(line, best) for line in best.measured.lines))
    table = element("table", element("caption", f"Held against {best.name}"), head, rows, class_="budget")
    return element("div", element("div", table, class_="scroll"), class_="card")


def _ladder(findings: Findings) -> Markup | None:
    """List the rungs of the degrade ladder; one rung is no ladder."""
    rungs = sorted((each for each in ranked(findings) if each.ladder_step is not None), key=_step)
    if len(rungs) < 2:
        return None
    return element(
        "div",
        element("p", "Degrade ladder: the first answers while the device is well", class_="caption"),
        element("ol", *(_rung(each, findings.metric) for each in rungs), class_="ladder"),
        class_="card",
    )


def _step(each: Ranked) -> int:
    return each.ladder_step or 0


def _rung(each: Ranked, metric: str) -> Markup:
    figures = each.measured.figures
    quality = figures.quality.get(metric)
    latency = wording.milliseconds(figures.latency_p50_ms.value)
    shown = f"{latency}, {wording.share(quality.value if quality else None)}, {wording.octets(figures.size_bytes)}"
    return element("li", element("b", each.name), element("span", shown, class_="muted"))


def _row(line: Line, best: Ranked) -> Markup:
    state = "good" if line.holds else "bad"
    return element(
        "tr",
        element("th", wording.limit_name(line.limit), scope="row"),
        element("td", wording.asked(line), class_="number"),
        element(
            "td",
            f"{'≈ ' if field_of(line) in best.measured.predicted else ''}{wording.limit_value(line.limit, line.value)}",
            class_="number",
        ),
        element("td", _gauge(line), class_="gauge"),
        element("td", f"{'✓' if line.holds else '✗'} {wording.standing(line)}", class_=state),
    )


def _gauge(line: Line) -> Markup | None:
    """Draw the figure as a bar up to its value, the limit as a tick, the interval as a whisker."""
    if line.value is None or not math.isfinite(line.value) or line.must <= 0:
        return None

    def place(value: float) -> float:
        return min(max(value / line.must * _LIMIT_AT, 0.0), 1.0) * _WIDTH

    middle = _HEIGHT / 2
    low, high = (line.value if end is None or not math.isfinite(end) else end for end in (line.low, line.high))
    whisker = None
    if place(high) - place(low) > 1:
        whisker = element("line", x1=place(low), x2=place(high), y1=middle, y2=middle, class_="whisker")
    limit, state = place(line.must), "good" if line.holds else "bad"
    return element(
        "svg",
        element("rect", x=0, y=middle - 5, width=_WIDTH, height=10, rx=3, class_="track"),
        element("rect", x=0, y=middle - 5, width=place(line.value), height=10, rx=3, class_=state),
        whisker,
        element("line", x1=limit, x2=limit, y1=2, y2=_HEIGHT - 2, class_="limit"),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", aria_hidden="true",
    )  # fmt: skip


def _near(findings: Findings) -> Markup:
    return joined(
        element("h3", "What to relax", id="relax"),
        element("p", "Each of these changes of the budget would let one candidate pass; the smallest comes first."),
        element("ol", *(_near_miss(miss) for miss in findings.near_misses), class_="near"),
    )


def _near_miss(miss: NearMiss) -> Markup:
    changes: list[str | Markup] = []
    for number, relaxation in enumerate(miss.relaxations):
        changes += [" and " if number else "", element("strong", wording.relaxed(relaxation))]
    return element("li", *changes, element("span", f" lets {miss.candidate} pass", class_="muted"))
