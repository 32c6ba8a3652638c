"""The stage that does nothing: for benches and tests, and to give a place in the graph a name."""

from __future__ import annotations

from typing import ClassVar

from skerry.spec.ports import Context
from skerry.spec.ports import Options as NoOptions
from skerry.spec.record import Outcome, Record


class PassStage:
    """Answer every record with itself."""

    Options: ClassVar[type[NoOptions]] = NoOptions

    def __init__(self, options: NoOptions) -> None:
        self.options = options

    def open(self, context: Context) -> None:
        """Nothing to get ready."""

    def process(self, record: Record) -> Outcome:
        """Return the record."""
        return record

    def close(self) -> None:
        """Nothing to give back."""
