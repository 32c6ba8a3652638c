"""The table of a search for a terminal: plain aligned text, the best first."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.build import wording
from skerry.build.findings import Baseline, Findings, Ranked, discards, failures, field_of, ranked
from skerry.build.verdict import Line

_MOST_NAME = 44
_RIGHT = range(3, 8)
"""The columns that hold figures, aligned to the right."""


def render(findings: Findings, most: int | None = None) -> str:
    """Return the table with what stands around it, each line ended.

    Parameters
    ----------
    most:
        How many candidates are listed; all of them when ``None``. The chosen one and the ladder are always listed.
    """
    rows = ranked(findings)
    kept = rows if most is None else [each for each in rows if each.rank <= most or each.ladder_step is not None]
    parts = [
        _headline(findings, rows),
        *_aligned([_titles(findings.metric), _baseline_row(findings), *(_row(each, findings) for each in kept)]),
        _legend(findings, len(rows) - len(kept)),
        *_budget(rows),
        *(f"relax {wording.advice(miss)}: {miss.candidate} passes" for miss in findings.near_misses),
        *_rest(findings),
    ]
    return "".join(f"{_one_line(part)}\n" for part in parts if part)


def _headline(findings: Findings, rows: Sequence[Ranked]) -> str:
    time = wording.span(findings.environment.spent_s)
    counts = f"{len(rows)} measured, {len(failures(findings))} failed, {len(discards(findings))} not tried, in {time}"
    device, within = findings.environment.device, wording.within(findings.environment.predicted_within)
    planned = f", planned for {device} (≈ is predicted{within}; the rest was measured here)" if device else ""
    return f"{findings.name}: {findings.origin.source}; {counts}{planned}"


def _titles(metric: str) -> list[str]:
    return ["", "", "candidate", metric, "p50", "speed-up", "peak", "disk", "budget"]


def _baseline_row(findings: Findings) -> list[str]:
    baseline = findings.baseline
    return ["", "", f"{baseline.name} (baseline)", *_figures(baseline, findings.metric), ""]


def _row(each: Ranked, findings: Findings) -> list[str]:
    budget = wording.missed(each.measured) if each.measured.lines else ""
    return [_marks(each), str(each.rank), each.name, *_figures(each, findings.metric), budget]


def _marks(each: Ranked) -> str:
    """Return ``*`` for the chosen one, ``+`` for the front, ``v`` for a step down the ladder."""
    below = each.ladder_step is not None and each.ladder_step > 0
    return ("*" if each.chosen else "") + ("+" if each.on_front else "") + ("v" if below else "")


def _figures(of: Ranked | Baseline, metric: str) -> list[str]:
    source = of.measured if isinstance(of, Ranked) else of
    figures, predicted = source.figures, source.predicted
    quality = figures.quality.get(metric)
    shown = {
        "quality": wording.share(quality.value if quality else None),
        "latency_p50_ms": wording.milliseconds(figures.latency_p50_ms.value),
        "speedup": wording.times(figures.speedup.value),
        "peak_bytes": wording.octets(figures.peak_bytes or None),
        "size_bytes": wording.octets(figures.size_bytes or None),
    }
    return [f"≈{text}" if name in predicted else text for name, text in shown.items()]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines; the last column is not padded."""
    cells = [[wording.cut(_one_line(cell), _MOST_NAME) for cell in row[:-1]] + [_one_line(row[-1])] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    return [
        "  ".join(
            [
                *(
                    cell.rjust(width) if column in _RIGHT or column == 1 else cell.ljust(width)
                    for column, (cell, width) in enumerate(zip(row, widths, strict=False))
                ),
                row[-1],
            ]
        ).rstrip()
        for row in cells
    ]


def _legend(findings: Findings, left_out: int) -> str:
    rest = f"; {left_out} more in the report" if left_out else ""
    return f"* chosen, + on the Pareto front, v a step down the ladder{rest}" if ranked(findings) else ""


def _budget(rows: Sequence[Ranked]) -> list[str]:
    """Return how the best one stands against each line of the budget."""
    return [_budget_line(line, rows[0]) for line in rows[0].measured.lines] if rows else []


def _budget_line(line: Line, best: Ranked) -> str:
    value = wording.limit_value(line.limit, line.value)
    about = "≈" if field_of(line) in best.measured.predicted else ""
    return (
        f"budget: {wording.limit_name(line.limit)} {wording.asked(line)}, is {about}{value}: {wording.standing(line)}"
    )


def _rest(findings: Findings) -> list[str]:
    """Return one line for each note and for each candidate that failed; the report has those that were not tried."""
    noted = [f"note: {each.name}: {each.note}" for each in findings.candidates if each.note]
    return noted + [f"{failed.kind}: {candidate.name}: {failed.reason}" for candidate, failed in failures(findings)]


def _one_line(text: str) -> str:
    """Return a text that neither breaks the line nor moves the cursor: names and reasons come from anywhere."""
    return wording.visible(text.replace("\n", " ").replace("\t", " "))
