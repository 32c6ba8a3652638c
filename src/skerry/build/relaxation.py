"""A relaxation: which line of a budget to change, and to what, so that a candidate keeps it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

from skerry.build.verdict import Line, total_excess
from skerry.spec.units import Duration, Energy, Quantity, Size

MOST = 5
"""Near misses that are told: more choices help nobody to choose."""

_UNITS: dict[str, tuple[type[Quantity], tuple[str, ...]]] = {
    "latency_p50": (Duration, ("us", "ms", "s")),
    "latency_p99": (Duration, ("us", "ms", "s")),
    "memory": (Size, ("B", "kB", "MB", "GB")),
    "size": (Size, ("B", "kB", "MB", "GB")),
    "energy": (Energy, ("mJ", "J", "kJ")),
}
_DIGITS = 3


class Relaxation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the budget that would have to give way.

    Parameters
    ----------
    must, needed:
        What the line asks and what the candidate reaches, in the line's base unit (seconds, bytes, joules, a share);
        ``needed`` is ``None`` where it was not measured, so that only leaving the line out would help.
    share:
        The change relative to ``must``: 0.12 for 12 %.
    written:
        What to write in the pipeline file, rounded so that the candidate keeps it: ``2.31 ms``, ``24.1 MB``, ``0.934``.
    """

    limit: str
    must: float
    needed: float | None
    share: float
    at_least: bool = False
    written: str = ""


class NearMiss(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that misses the budget, and what would let it pass; the largest change comes first."""

    candidate: str
    relaxations: tuple[Relaxation, ...]


def near_misses(verdicts: Mapping[str, tuple[Line, ...]], most: int = MOST) -> tuple[NearMiss, ...]:
    """Return the nearest misses, the smallest total change first; none where a candidate keeps the budget.

    Of candidates that break the same lines only the nearest is told, so that each one is another choice: give up some
    size, or some quality, or a little of both.
    """
    if any(not total_excess(lines) for lines in verdicts.values()):
        return ()
    nearest: dict[frozenset[str], str] = {}
    for name in sorted(verdicts, key=lambda name: (total_excess(verdicts[name]), name)):
        nearest.setdefault(frozenset(line.limit for line in verdicts[name] if not line.holds), name)
    return tuple(
        NearMiss(candidate=name, relaxations=relaxations(verdicts[name])) for name in list(nearest.values())[:most]
    )


def relaxations(lines: tuple[Line, ...]) -> tuple[Relaxation, ...]:
    """Return what has to change in a budget for these lines to hold, the largest change first."""
    broken = sorted((line for line in lines if not line.holds), key=lambda line: (-line.excess, line.limit))
    return tuple(
        Relaxation(
            limit=line.limit, must=line.must, needed=line.value, share=line.excess, at_least=line.at_least,
            written="" if line.value is None else written(line.limit, line.value, at_least=line.at_least),
        )
        for line in broken
    )  # fmt: skip


def written(limit: str, value: float, *, at_least: bool = False) -> str:
    """Return a limit as the pipeline file has it, rounded to three digits to the side on which ``value`` keeps it."""
    if limit not in _UNITS:
        return _quality(_rounded(Decimal(value), ROUND_FLOOR if at_least else ROUND_CEILING))
    kind, units = _UNITS[limit]
    unit = max((each for each in units if kind.factors[each] <= value), key=kind.factors.__getitem__, default=units[0])
    number = Decimal(value) / Decimal(str(kind.factors[unit]))
    rounded = _rounded(number, ROUND_CEILING)
    if kind.parse(f"{_plain(rounded)}{unit}") < value:  # the product of two floats may fall short by its last bit
        rounded += _step(number)
    return f"{_plain(rounded)} {unit}"


def _rounded(number: Decimal, rounding: str) -> Decimal:
    return number.quantize(_step(number), rounding)


def _step(number: Decimal) -> Decimal:
    """Return the worth of the last digit that is kept."""
    return Decimal(1).scaleb(number.adjusted() - _DIGITS + 1)


def _quality(number: Decimal) -> str:
    """Write a quality; a perplexity may be beyond all reading, and a user's own metric of any size."""
    return _plain(number) if -6 <= number.adjusted() <= 9 else f"{number:.{_DIGITS - 1}e}"


def _plain(number: Decimal) -> str:
    """Write a number without an exponent and without zeros at the end."""
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
