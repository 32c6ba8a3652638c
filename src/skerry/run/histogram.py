"""A histogram of latencies: eight steps per power of two, so that a percentile is right within 6 % (and 9 ns)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skerry.spec.summary import Percentiles

STEPS = 8
BINS = 64 * STEPS


def new_bins() -> list[int]:
    """Return empty bins. The hot path counts in them directly, by the rule of :func:`bin_of`."""
    return [0] * BINS


def bin_of(nanoseconds: int) -> int:
    """Return the bin of a latency: its power of two, and the three bits after the first."""
    value = nanoseconds | STEPS
    size = value.bit_length()
    return (size << 3) | ((value >> (size - 4)) & 7)


def middle_of(index: int) -> float:
    """Return the latency in nanoseconds in the middle of a bin."""
    size, step = index >> 3, index & 7
    width = 1 << (size - 4)
    return (STEPS + step) * width + width / 2


def merged(parts: Iterable[Sequence[int]]) -> list[int]:
    """Add several histograms up."""
    total = new_bins()
    for part in parts:
        total = [mine + other for mine, other in zip(total, part, strict=True)]
    return total


def quantile_ns(bins: Sequence[int], share: float) -> float | None:
    """Return the latency in nanoseconds that ``share`` of the items did not exceed; ``None`` without items."""
    count = sum(bins)
    if not count:
        return None
    left = share * count
    for index, number in enumerate(bins):
        left -= number
        if number and left <= 0:
            return middle_of(index)
    return None


def percentiles(bins: Sequence[int]) -> Percentiles:
    """Return p50 and p99 in milliseconds."""
    half, most = quantile_ns(bins, 0.5), quantile_ns(bins, 0.99)
    return Percentiles(None if half is None else half / 1e6, None if most is None else most / 1e6)
