"""A scale: where a figure lies on an axis, and the ticks of the axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

_MOST_TICKS = 9


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Maps figures from ``low`` to ``high`` to pixels from ``start`` to ``end``; others are put on the edge."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value in pixels."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(max(part, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round figures between the ends, at most nine."""
        if self.logarithmic:
            found = _decades(self.low, self.high)
            if len(found) >= 3:
                return found
        return _even(self.low, self.high)


def linear(values: Iterable[float], start: float, end: float, *, pad: float = 0.06) -> Scale:
    """Return a scale that shows all the values, with ``pad`` of its length free at both ends."""
    low, high = _ends(values)
    room = (high - low) * pad or abs(high) * 0.1 or 1.0
    return Scale(low=low - room, high=high + room, start=start, end=end)


def logarithmic(values: Iterable[float], start: float, end: float, *, pad: float = 0.06) -> Scale:
    """Return a scale of powers that shows all the values, which are above 0."""
    low, high = _ends(values)
    room = max((high / low) ** pad, 1.1)
    return Scale(low=low / room, high=high * room, start=start, end=end, logarithmic=True)


def _ends(values: Iterable[float]) -> tuple[float, float]:
    found = list(values) or [1.0]
    return min(found), max(found)


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; powers of ten alone, or every few of them, where those are too many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices: list[Callable[[], list[float]]] = [
        lambda: [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)],
        lambda: [10.0**exponent for exponent in exponents],
        lambda: [10.0**exponent for exponent in exponents[:: math.ceil(len(exponents) / _MOST_TICKS)]],
    ]
    for choice in choices:
        found = [tick for tick in choice() if low <= tick <= high]
        if len(found) <= _MOST_TICKS:
            return found
    return []


def _even(low: float, high: float) -> list[float]:
    """Return figures at even distances of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, min(last, first + _MOST_TICKS - 1) + 1)]
