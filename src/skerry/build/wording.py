"""Wording: the figures and limits of a search as people read them."""

from __future__ import annotations

import math
import re

from skerry.build.findings import Candidate, Measured
from skerry.build.relaxation import NearMiss, Relaxation
from skerry.build.verdict import Line

NOTHING = "–"

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """Replace what moves a cursor, turns the direction of writing, or is no character: texts come from anywhere."""
    return _UNSEEN.sub("\ufffd", text)


def cut(text: str, most: int) -> str:
    """Shorten a text to ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def milliseconds(value: float | None) -> str:
    """Write a time given in milliseconds: ``850 µs``, ``1.23 ms``, ``4.5 s``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 1:
        return f"{value * 1e3:.3g} µs"
    return f"{value:.3g} ms" if value < 1e3 else f"{value / 1e3:,.4g} s"


def octets(value: float | None) -> str:
    """Write an amount of bytes: ``812 B``, ``23.4 MB``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for unit in ("B", "kB", "MB"):
        if abs(value) < 999.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def share(value: float | None) -> str:
    """Write a quality: ``0.971``; one of another size, such as a perplexity gone astray, with three digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.3f}" if not value or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def times(value: float | None) -> str:
    """Write a ratio: ``3.5×``."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.1f}×" if value >= 1 else f"{value:.2f}×"


def joules(value: float | None) -> str:
    """Write an energy: ``3.2 mJ``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.3g} J" if value >= 1 else f"{value * 1e3:.3g} mJ"


def rate(value: float | None) -> str:
    """Write a throughput per second; nothing where it was not measured."""
    return NOTHING if not value or not math.isfinite(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def span(seconds: float | None) -> str:
    """Write how long something took: ``42 s``, ``18 min 05 s``, ``1 h 12 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def percent(value: float) -> str:
    """Write a relative change: ``12 %``, ``1.4 %``."""
    return f"{value * 100:.2g} %" if value < 0.1 else f"{value * 100:,.0f} %"


def limit_value(limit: str, value: float | None) -> str:
    """Write the value of a line of the budget, whose unit its name decides."""
    if value is None:
        return "not measured"
    if limit.startswith("latency"):
        return milliseconds(value * 1e3)
    if limit in {"memory", "size"}:
        return octets(value)
    return joules(value) if limit == "energy" else share(value)


def limit_name(limit: str) -> str:
    """Write the name of a line of the budget: ``latency p50``, ``agreement@10``."""
    metric = re.fullmatch(r"quality \((.*)\)", limit, re.DOTALL)
    return metric[1] if metric else limit.replace("_", " ")


def asked(line: Line) -> str:
    """Write what a line asks: ``≥ 0.950``, ``≤ 10 ms``."""
    return f"{'≥' if line.at_least else '≤'} {limit_value(line.limit, line.must)}"


def crosses(line: Line) -> bool:
    """Tell whether the limit lies within the interval of the figure, so that another run may judge otherwise."""
    return line.low is not None and line.high is not None and line.low < line.must < line.high


def standing(line: Line) -> str:
    """Write how a line stands: ``holds``, ``holds, within its uncertainty``, ``missed by 12 %``."""
    if line.value is None:
        return "not measured"
    said = "holds" if line.holds else f"missed by {percent(line.excess)}"
    return f"{said}, within its uncertainty" if crosses(line) else said


def missed(measured: Measured) -> str:
    """Write how a candidate stands against the budget in a few words: ``keeps``, ``size +12 %``."""
    if not measured.lines:
        return NOTHING
    broken = [line for line in measured.lines if not line.holds]
    return ", ".join(_missed(line) for line in broken) if broken else "keeps"


def _missed(line: Line) -> str:
    return f"{limit_name(line.limit)} {short_miss(line)}"


def short_miss(line: Line) -> str:
    """Write by how much a line is missed: ``+12 %``, for a quality ``−3 %``."""
    return f"{'−' if line.at_least else '+'}{percent(line.excess)}" if line.value is not None else "not measured"


def relaxed(relaxation: Relaxation) -> str:
    """Write one change of the budget: ``latency_p50 from 2 ms to 2.31 ms (+15 %)``."""
    if relaxation.needed is None:
        return f"leave out {limit_name(relaxation.limit)}, which was not measured"
    sign = "−" if relaxation.at_least else "+"
    said = f"{limit_value(relaxation.limit, relaxation.must)} to {relaxation.written}"
    return f"{limit_name(relaxation.limit)} from {said} ({sign}{percent(relaxation.share)})"


def advice(miss: NearMiss) -> str:
    """Write what to relax so that a near miss passes."""
    return " and ".join(relaxed(each) for each in miss.relaxations)


def recipe(candidate: Candidate) -> str:
    """Write the steps of a candidate: ``prune-layers(keep=3) → litert-int8``."""
    return " → ".join(step.label() for step in candidate.steps) or "as given"


def within(factor: float | None) -> str:
    """Write how far predictions may be off: ``, right within a factor of 2.1``; nothing where that is not known."""
    return "" if factor is None else f", right within a factor of {factor:.2g}"


def threads(count: int) -> str:
    """Write a number of threads."""
    return "1 thread" if count == 1 else f"{count} threads"
