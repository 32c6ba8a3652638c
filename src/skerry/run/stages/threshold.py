"""Threshold: mark a record whose number is above or below a limit."""

from __future__ import annotations

from typing import ClassVar

from skerry.run.reading import number
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class ThresholdOptions(Options, frozen=True, kw_only=True):
    """Which numbers are over the line.

    Parameters
    ----------
    field:
        The numeric field, in whatever unit it has; the limits are in the same one.
    above, below:
        The limits, themselves not over the line. Given both, the number is over it outside of ``below`` … ``above``.
    label:
        The field that is set to true or false.
    only:
        Whether records that are not over the line are stopped.
    """

    field: str
    above: float | None = None
    below: float | None = None
    label: str = "over"
    only: bool = False

    def __post_init__(self) -> None:
        if self.above is None and self.below is None:
            raise ValueError("above or below, or both")
        if self.above is not None and self.below is not None and self.below > self.above:
            raise ValueError(f"below ({self.below:g}) not to exceed above ({self.above:g})")


class ThresholdStage:
    """Compare a number with fixed limits. A NaN is over no line."""

    Options: ClassVar[type[ThresholdOptions]] = ThresholdOptions

    def __init__(self, options: ThresholdOptions) -> None:
        self._field, self._label, self._only = options.field, options.label, options.only
        self._above = float("inf") if options.above is None else options.above
        self._below = float("-inf") if options.below is None else options.below

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def process(self, record: Record) -> Outcome:
        """Set the label in place; raises ``StageError`` where the field is no number."""
        value = number(record.fields, self._field)
        over = value > self._above or value < self._below
        record.fields[self._label] = over
        return record if over or not self._only else None

    def close(self) -> None:
        """Nothing to give back."""
