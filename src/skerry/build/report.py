"""A report: what a build chose, the figures behind it, and whether the budget holds. It is also the lock file."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import msgspec

from skerry.build.measure import Figures
from skerry.spec.budget import Budget
from skerry.spec.units import Duration, Energy, Size

TOOLS = ("numpy", "onnx", "onnxruntime", "safetensors", "tokenizers", "torch", "transformers")


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of the budget: what it must be and what it is, in seconds, bytes or a share; ``None``: not measured."""

    limit: str
    must: str
    value: float | None
    holds: bool | None


class VariantReport(msgspec.Struct, frozen=True, kw_only=True):
    """A variant with its figures; ``size`` is in bytes."""

    name: str
    runtime: str
    technique: str
    file: str
    digest: str
    size: int
    figures: Figures | None = None


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """A model: where it came from, on what it was measured, its variants (best first), and its budget."""

    source: str
    source_digest: str
    reference: Figures | None = None
    texts: str = ""
    texts_digest: str = ""
    variants: tuple[VariantReport, ...]
    budget: tuple[BudgetLine, ...] = ()


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The file ``skerry.lock``: what was built from what, with which tools, and the figures."""

    skerry: str
    name: str
    release: str
    pipeline: str
    machine: str
    tools: dict[str, str]
    models: dict[str, ModelReport]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``skerry build --json`` prints. ``changed`` tells whether the release folder was written."""

    folder: str
    changed: bool
    seconds: float
    lock: Lock


def tool_versions(*names: str) -> dict[str, str]:
    """Return the versions of packages that are installed, without importing them, and Python's."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def budget_lines(budget: Budget, chosen: VariantReport, tokenizer_bytes: int) -> tuple[BudgetLine, ...]:
    """Hold the figures of the chosen variant against a model's budget, limit by limit."""
    return tuple(_lines(budget, chosen, tokenizer_bytes))


def _lines(budget: Budget, chosen: VariantReport, tokenizer_bytes: int) -> Iterator[BudgetLine]:
    figures = chosen.figures
    if budget.quality is not None:
        value = _quality(budget.quality.metric, figures)
        worst, lower = budget.quality.limit, budget.quality.lower_is_better
        must = f"{'<=' if lower else '>='} {worst:g}"
        holds = None if value is None else value <= worst if lower else value >= worst
        yield BudgetLine(limit=f"quality ({budget.quality.metric})", must=must, value=value, holds=holds)
    measured: dict[str, float | None] = {
        "latency_p50": None if figures is None else figures.latency_p50_ms / 1e3,
        "latency_p99": None if figures is None else figures.latency_p99_ms / 1e3,
        "memory": None if figures is None else figures.peak_bytes,
        "size": chosen.size + tokenizer_bytes,
        "energy": None,
        "link_per_day": None,
    }
    for limit, value in measured.items():
        most = getattr(budget, limit)
        if most is not None:
            holds = None if value is None else value <= float(most)
            yield BudgetLine(limit=limit, must=f"<= {_said(most)}", value=value, holds=holds)


def _said(most: Duration | Size | Energy) -> str:
    """Return a limit in the unit that people use for it."""
    if isinstance(most, Duration):
        return f"{float(most) * 1e3:g}ms"
    return f"{float(most) / 1e6:g}MB" if isinstance(most, Size) else str(most)


def _quality(metric: str, figures: Figures | None) -> float | None:
    known = {"agreement@10": "agreement", "agreement": "agreement", "cosine": "cosine_mean"}
    return getattr(figures, known[metric]) if figures is not None and metric in known else None
