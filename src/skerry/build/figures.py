"""Figures: what a trial measured of a candidate, each with the interval that it lies in."""

from __future__ import annotations

import msgspec


class Estimate(msgspec.Struct, frozen=True):
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """Return a figure that is not uncertain, such as a size on disk."""
        return cls(value, value, value)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Parameters
    ----------
    quality:
        By metric name, such as ``agreement@10`` or ``cosine``.
    latency_p50_ms, latency_p99_ms:
        Per item alone, over lengths drawn from the user's data; milliseconds.
    speedup:
        The baseline's time divided by this one's, turn by turn in the same run.
    items_per_s:
        Throughput with what the runtime takes at once.
    load_ms:
        From nothing to the first answer.
    peak_bytes:
        The most resident memory of a process with only this candidate.
    size_bytes:
        On disk, tokenizer included.
    cpu_ms, energy_j:
        Processor time, and energy where the device has a counter, per item.
    """

    quality: dict[str, Estimate] = {}
    latency_p50_ms: Estimate
    latency_p99_ms: Estimate
    speedup: Estimate
    items_per_s: float = 0.0
    load_ms: float = 0.0
    peak_bytes: int = 0
    size_bytes: int = 0
    cpu_ms: float | None = None
    energy_j: float | None = None
    texts: int = 0
    repeats: int = 0


def plain(figures: Figures) -> Figures:
    """Return the figures without what a kind of trial adds to them."""
    return Figures(**{name: getattr(figures, name) for name in Figures.__struct_fields__})
