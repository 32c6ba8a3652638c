"""A fan-out: copies of a record for several branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skerry.run.lineage import Copies
from skerry.spec.record import Record

Push = Callable[[Record], object]
"""Takes a record on its way."""


class FanOut:
    """Sends copies of a record to several branches; every copy has a mapping of its own with the same values."""

    def __init__(self, branches: Sequence[Push]) -> None:
        self._branches = tuple(branches)

    def __call__(self, record: Record) -> None:
        """Send a record to every branch."""
        lineage = record.lineage
        if lineage is None:
            lineage = Copies(len(self._branches))
        else:
            lineage.add(len(self._branches) - 1)
        copies = [record.copy(lineage) for _ in self._branches]
        for branch, copy in zip(self._branches, copies, strict=True):
            branch(copy)
