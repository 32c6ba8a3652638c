"""Standardize: distance from the mean in standard deviations, by given or by running statistics."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.keyed import MAX_KEYS, Keyed, key_of
from skerry.run.moments import Moments, weight_of_half_life
from skerry.run.reading import float_array, is_array, number
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean and standard deviation of a field, in its unit."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (self.std > 0.0 and math.isfinite(self.std)):
            raise ValueError("std greater than 0")


class StandardizeOptions(Options, frozen=True, kw_only=True):
    """What is standardized, and by which statistics.

    Parameters
    ----------
    fields:
        Either names, for running statistics (numbers only), or names with ``mean`` and ``std`` (numbers and arrays).
    half_life:
        For running statistics, after how many records a value counts half; without, all values count alike.
    warm_up:
        How many values are taken in before the first answer; 10 give a spread that is right within a quarter.
    on_warm_up:
        What becomes of records until then: stopped (``filter``) or answered with 0 (``zero``).
    key:
        A field that keeps running statistics apart, such as the name of a sensor.
    max_keys:
        How many of them; the one used longest ago is forgotten and warms up again.
    suffix:
        Added to the field's name for the result; empty to replace the value.
    """

    shorthand: ClassVar[str] = "fields"

    fields: list[str] | dict[str, Statistics]
    half_life: float | None = None
    warm_up: int = 10
    on_warm_up: Literal["filter", "zero"] = "filter"
    key: str | None = None
    max_keys: int = MAX_KEYS
    suffix: str = ""

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError("at least one field")
        if self.half_life is not None and not self.half_life > 0:
            raise ValueError("a half_life of more than 0 records")
        if self.warm_up < 1:
            raise ValueError("a warm_up of at least 1 record")


class StandardizeStage:
    """Compute ``(x - mean) / std``. A running value is compared with the statistics before it, then taken in.

    A NaN or infinite value is not taken in, and its answer is NaN.
    """

    Options: ClassVar[type[StandardizeOptions]] = StandardizeOptions

    def __init__(self, options: StandardizeOptions) -> None:
        self._options = options
        self._given = options.fields if isinstance(options.fields, dict) else None
        self._names = list(options.fields)
        if self._given is None:
            self.remembers = "running means"
        floor = weight_of_half_life(options.half_life)
        self._running: Keyed[list[Moments]] = Keyed(lambda: [Moments(floor) for _ in self._names], options.max_keys)

    def open(self, context: Context) -> None:
        """Forget the running statistics."""
        self._running.clear()

    def process(self, record: Record) -> Outcome:
        """Set the results in place; where it raises ``StageError`` for what is no number, nothing was changed."""
        if self._given is not None:
            values = [_by_given(record.fields, name, given) for name, given in self._given.items()]
        else:
            found = [float(number(record.fields, name)) for name in self._names]
            running = self._running.get(key_of(record.fields, self._options.key))
            warm = all(moments.count >= self._options.warm_up for moments in running)
            values = [_by_running(value, moments, warm) for value, moments in zip(found, running, strict=True)]
            if not warm and self._options.on_warm_up == "filter":
                return None
        for name, value in zip(self._names, values, strict=True):
            record.fields[name + self._options.suffix] = value
        return record

    def close(self) -> None:
        """Nothing to give back."""


def _by_given(fields: dict[str, Any], name: str, given: Statistics) -> Any:
    value = float_array(fields, name) if is_array(fields.get(name)) else number(fields, name)
    return (value - given.mean) / given.std


def _by_running(value: float, moments: Moments, warm: bool) -> float:
    if not math.isfinite(value):
        return math.nan
    score = moments.score(value) if warm else 0.0
    moments.update(value)
    return score
