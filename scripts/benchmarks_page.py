"""The page of benchmark results: what stands in ``bench/results/`` becomes tables in ``docs/benchmarks.md``.

Run on purpose, by ``make bench-docs``, after a run whose figures are to be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report import RESULTS, Row, missing_reasons, number, read_rows, row_cells
from scripts.generated_part import renew

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
COMMAND = "make bench-docs"
FEW = 4
"""Peers that a cell can show."""
HEAD = ("figure", "value", "spread", "unit", "runs", "must", "holds", "peers")


def main() -> int:
    """Write the page; return 1 when there are no results yet."""
    results = {path.stem: read_rows(path) for path in sorted(RESULTS.glob("*.json"))}
    if not results:
        print("no results yet: run `make bench` first", file=sys.stderr)
        return 1
    renew(PAGE, "\n\n".join(section(name, rows) for name, rows in results.items()), COMMAND, title="Benchmarks")
    print(f"written: {PAGE.relative_to(PAGE.parent.parent)} from {', '.join(results)}")
    return 0


def section(name: str, rows: Sequence[Row]) -> str:
    """Return one benchmark as Markdown: its table, what is missing and why, the machine and the versions."""
    lines = [line(HEAD), line(["---"] * len(HEAD)), *(line(cells(row)) for row in rows)]
    parts = [f"## {name}", "\n".join(lines)]
    if any(has_many(row) for row in rows):
        parts.append(side_by_side([row for row in rows if has_many(row)]))
    reasons = missing_reasons(rows)
    if reasons:
        parts.append("\n".join(f"- {reason}" for reason in reasons))
    if rows:
        parts.append(origin(rows[-1]))
    return "\n\n".join(parts)


def has_many(row: Row) -> bool:
    """Tell whether a row has more peers than a cell of a table can show."""
    return len(row.peers) > FEW


def cells(row: Row) -> tuple[str, ...]:
    """Return what the table shows of a row; many peers stand in a table of their own."""
    shown = row_cells(row)
    return (*shown[:-1], f"{len(row.peers)} peers, below") if has_many(row) else shown


def side_by_side(rows: Sequence[Row]) -> str:
    """Return a table with a line for each figure and a column for everybody who was measured beside it."""
    names = list(dict.fromkeys(name for row in rows for name in row.peers))
    lines = [line(["figure", "value", *names]), line(["---"] * (len(names) + 2))]
    for row in rows:
        reached = [row.peers.get(name) for name in names]
        shown = [number(peer) if isinstance(peer, float) else "–" for peer in reached]
        lines.append(line([row.figure, f"**{number(row.value)}**", *shown]))
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def origin(row: Row) -> str:
    """Return where and with what a figure was measured, in one sentence."""
    machine = row.machine
    memory = machine["memory_bytes"] / 1e9
    versions = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    return (
        f"Measured on {machine['cores']} cores of {machine['cpu']}, {memory:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, load {machine['load_before']} before the run; {versions}."
    )


if __name__ == "__main__":
    sys.exit(main())
