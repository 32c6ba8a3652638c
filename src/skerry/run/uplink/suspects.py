"""Suspects: records of batches that were refused as a whole; halved again and again, until the bad one stands alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from skerry.wire.record import WireRecord


class Suspects:
    """Remembers with how many others a record may travel at the most."""

    def __init__(self) -> None:
        self._company: dict[int, int] = {}
        self._alone: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._company)

    def refused(self, seqs: Sequence[int]) -> int | None:
        """Note that a batch was refused; return its record when it stood alone and so is the bad one."""
        if len(seqs) == 1:
            self.cleared(seqs)
            return seqs[0]
        self._company.update(dict.fromkeys(seqs, max(1, len(seqs) // 2)))
        return None

    def tries(self, seq: int) -> int:
        """Note that a record was refused alone, and return how often it was before."""
        before = self._alone.get(seq, 0)
        self._alone[seq] = before + 1
        return before

    def cleared(self, seqs: Iterable[int]) -> None:
        """Note that records were taken, or are gone."""
        for seq in seqs:
            self._company.pop(seq, None)
            self._alone.pop(seq, None)

    def forget(self) -> None:
        """Forget everything: the records got other numbers."""
        self._company.clear()
        self._alone.clear()

    def cut(self, records: Sequence[WireRecord]) -> Sequence[WireRecord]:
        """Return as many of the first records as may travel together."""
        if not self._company:
            return records
        most = len(records)
        for place, record in enumerate(records):
            most = min(most, self._company.get(record.seq, most))
            if place + 1 >= most:
                return records[:most]
        return records
