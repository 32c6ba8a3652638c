"""Filter: let a record pass when an expression holds."""

from __future__ import annotations

from typing import ClassVar, Literal

from skerry.run.expression import Expression, FieldMissingError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record


class FilterOptions(Options, frozen=True, kw_only=True):
    """Which records pass.

    Parameters
    ----------
    expression:
        CEL; the record passes when it is true.
    missing:
        A record without a field that is needed fails (``fail``), stops (``filter``) or passes (``keep``).
    """

    shorthand: ClassVar[str] = "expression"

    expression: str
    missing: Literal["fail", "filter", "keep"] = "fail"


class FilterStage:
    """Let a record pass when an expression holds; stop it otherwise."""

    Options: ClassVar[type[FilterOptions]] = FilterOptions

    def __init__(self, options: FilterOptions) -> None:
        self._holds = Expression(options.expression, "filter: expression").test
        self._missing = options.missing

    def open(self, context: Context) -> None:
        """Nothing to get ready: the expression was compiled with the options."""

    def process(self, record: Record) -> Outcome:
        """Return the record, or ``None`` to stop it; raises ``StageError`` where the expression cannot be evaluated."""
        try:
            return record if self._holds(record.fields) else None
        except FieldMissingError:
            if self._missing == "fail":
                raise
            return record if self._missing == "keep" else None

    def close(self) -> None:
        """Nothing to give back."""
