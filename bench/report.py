"""The report: the one form in which every benchmark says what it measured, and whether its bound holds."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from bench.measuring import Samples
from skerry import __version__
from skerry.spec.units import Bound

RESULTS = Path(__file__).parent / "results"
Peer = float | str
"""What a peer reached in the row's unit, or the reason why it is missing."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a benchmark.

    Parameters
    ----------
    figure:
        What was measured, in words.
    value:
        The median over ``runs``, in ``unit``; ``None`` when it could not be measured, and ``reason`` says why.
    must:
        The bound as text, such as ``">= 0.99"``; ``None`` for a figure that is only reported.
    holds:
        Whether ``value`` keeps ``must``; ``None`` where there is no value or no bound.
    spread:
        The distance between the first and third quartile, in ``unit``; ``None`` for a single run.
    peers:
        What others reached in the same run, or the reason why they are missing.
    machine, versions:
        Where it was measured and with what.
    """

    figure: str
    value: float | None
    unit: str
    must: str | None
    holds: bool | None
    spread: float | None
    runs: int
    peers: dict[str, Peer]
    machine: dict[str, Any]
    versions: dict[str, str]
    reason: str | None = None


class Report:
    """Collects the rows of one benchmark, prints them as a table and writes them to ``results/NAME.json``.

    Parameters
    ----------
    name:
        The benchmark's name: that of its module and of its file of results.
    packages:
        Installed packages whose versions matter; versions of peers go in by :meth:`note_versions`.
    """

    def __init__(self, name: str, *, packages: Iterable[str] = ()) -> None:
        self.name = name
        self.rows: list[Row] = []
        self._machine = describe_machine()
        self._versions = {"skerry": __version__, **installed_versions(packages)}

    def note_versions(self, versions: Mapping[str, str]) -> None:
        """Add versions from a peer's environment to the rows that follow."""
        self._versions |= versions

    def add(
        self,
        figure: str,
        value: Samples | float,
        unit: str,
        *,
        must: str | None = None,
        peers: Mapping[str, Samples | Peer] | None = None,
    ) -> Row:
        """Add a figure that was measured, as samples (the median counts) or as one number.

        Raises
        ------
        ValueError
            ``must`` is not a bound, or ``value`` is not a number.
        """
        samples = value if isinstance(value, Samples) else Samples((float(value),))
        median = samples.median
        if math.isnan(median):
            raise ValueError(f"{figure}: no value was measured; use missing() and say why")
        return self._keep(
            figure,
            unit,
            must,
            peers,
            value=median,
            holds=None if must is None else Bound.parse(must).holds(median),
            spread=samples.spread if samples.runs > 1 else None,
            runs=samples.runs,
        )

    def missing(
        self,
        figure: str,
        unit: str,
        reason: str,
        *,
        must: str | None = None,
        peers: Mapping[str, Samples | Peer] | None = None,
    ) -> Row:
        """Add a figure that could not be measured, with the reason; raises ``ValueError`` for a wrong bound."""
        if must is not None:
            Bound.parse(must)
        return self._keep(figure, unit, must, peers, value=None, holds=None, spread=None, runs=0, reason=reason)

    def _keep(
        self, figure: str, unit: str, must: str | None, peers: Mapping[str, Samples | Peer] | None, **measured: Any
    ) -> Row:
        reached = {name: peer.median if isinstance(peer, Samples) else peer for name, peer in (peers or {}).items()}
        row = Row(
            figure=figure,
            unit=unit,
            must=must,
            peers=reached,
            machine=self._machine,
            versions=dict(self._versions),
            **measured,
        )
        self.rows.append(row)
        return row

    def broken(self) -> list[Row]:
        """Return the rows that were measured and do not keep their bound."""
        return [row for row in self.rows if row.holds is False]

    def finish(self, folder: Path = RESULTS) -> int:
        """Print the table, write the file and return the exit code: 1 when a bound is broken, otherwise 0."""
        print(table(self.rows))
        print(f"\nwritten: {self.write(folder)}")
        return 1 if self.broken() else 0

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the rows as JSON, in one step, and return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.name}.json"
        draft = target.with_suffix(".json.part")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self.rows), indent=2) + b"\n")
        draft.replace(target)
        return target


def read_rows(path: Path) -> list[Row]:
    """Read a file of results; raises ``msgspec.DecodeError`` when it has another form."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row])


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a plain table; reasons for what is missing stand below it."""
    rows = list(rows)
    head = ("figure", "value", "spread", "unit", "runs", "must", "holds", "peers")
    cells = [head, *(row_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *missing_reasons(rows)])


def row_cells(row: Row) -> tuple[str, ...]:
    """Return what a table shows of a row: figure, value, spread, unit, runs, must, holds, peers."""
    peers = ", ".join(f"{name} {number(peer) if isinstance(peer, float) else '–'}" for name, peer in row.peers.items())
    holds = {True: "yes", False: "NO", None: "–"}[row.holds]
    spread = "–" if row.spread is None else f"±{number(row.spread)}"
    return row.figure, number(row.value), spread, row.unit, str(row.runs), row.must or "–", holds, peers or "–"


def missing_reasons(rows: Iterable[Row]) -> list[str]:
    """Return one line for each figure and each peer that could not be measured, saying why."""
    reasons: dict[str, None] = {}
    for row in rows:
        if row.reason is not None:
            reasons[f"not measured: {row.figure}: {row.reason}"] = None
        for name, peer in row.peers.items():
            if isinstance(peer, str):
                reasons[f"peer missing: {name}: {peer}"] = None
    return list(reasons)


def number(value: float | None) -> str:
    """Write a number with three significant digits, or a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of installed packages; one that is not installed says so."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_machine() -> dict[str, Any]:
    """Return what one has to know of this machine to read a ratio: processor, cores, memory, system and load."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": processor_name(),
        "architecture": platform.machine(),
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as the kernel gives it, or the architecture where it gives none."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(names, platform.machine())
