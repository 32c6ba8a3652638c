"""Normalize: bring numbers and arrays into a range, or vectors to length one."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from skerry.run.reading import float_array, is_array, number
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least and greatest value that a field is expected to have, in its unit."""

    min: float
    max: float

    def __post_init__(self) -> None:
        if not self.min < self.max:
            raise ValueError(f"min ({self.min:g}) below max ({self.max:g})")


class NormalizeOptions(Options, frozen=True, kw_only=True):
    """What is scaled, and to what.

    Parameters
    ----------
    ranges:
        Numeric or array fields, each with its ``min`` and ``max``, scaled linearly to ``to``.
    to:
        The range that they are scaled to.
    clip:
        Whether what lies outside of ``min`` … ``max`` is cut off.
    unit_length:
        Vector fields (arrays or lists), divided by their Euclidean length; a zero vector stays zero.
    suffix:
        Added to the field's name for the result; empty to replace the value.
    """

    ranges: dict[str, Range] = msgspec.field(default_factory=dict)
    to: tuple[float, float] = (0.0, 1.0)
    clip: bool = False
    unit_length: list[str] = msgspec.field(default_factory=list)
    suffix: str = ""

    def __post_init__(self) -> None:
        if not (self.ranges or self.unit_length):
            raise ValueError("ranges or unit_length, or the stage does nothing")
        if not self.to[0] < self.to[1]:
            raise ValueError("to: two numbers, the smaller first")


class NormalizeStage:
    """Scale numbers, arrays and vectors. An array's result is a new array: float32 for float32, float64 otherwise."""

    Options: ClassVar[type[NormalizeOptions]] = NormalizeOptions

    def __init__(self, options: NormalizeOptions) -> None:
        self._options = options
        low, high = options.to
        self._scales = []
        for name, span in options.ranges.items():
            factor = (high - low) / (span.max - span.min)
            self._scales.append((name, factor, low - span.min * factor))

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def process(self, record: Record) -> Outcome:
        """Set the results in place; where it raises ``StageError`` for what is no number, nothing was changed."""
        fields, suffix = record.fields, self._options.suffix
        results = [(name, self._scale(fields, name, factor, offset)) for name, factor, offset in self._scales]
        results += [(name, _unit_length(fields, name)) for name in self._options.unit_length]
        for name, value in results:
            fields[name + suffix] = value
        return record

    def close(self) -> None:
        """Nothing to give back."""

    def _scale(self, fields: dict[str, Any], name: str, factor: float, offset: float) -> Any:
        low, high = self._options.to
        if is_array(fields.get(name)):
            scaled = float_array(fields, name) * factor + offset
            return scaled.clip(low, high) if self._options.clip else scaled
        value = number(fields, name) * factor + offset
        return min(max(value, low), high) if self._options.clip else value


def _unit_length(fields: dict[str, Any], name: str) -> Any:
    """Return a vector (or the rows of a matrix) divided by its Euclidean length."""
    import numpy

    array = float_array(fields, name)
    length = numpy.sqrt(numpy.square(array, dtype=numpy.float64).sum(axis=-1, keepdims=True))
    return (array / numpy.where(length > 0.0, length, 1.0)).astype(array.dtype, copy=False)
