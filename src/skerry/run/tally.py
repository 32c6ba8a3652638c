"""Tallies: plain counters of one thread, added up only when somebody asks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from skerry.run.histogram import bin_of, new_bins
from skerry.run.progress import Progress
from skerry.spec.record import Fate, Record

_TIMED_EVERY_NS = 50_000  # of records that are read closer together, not all are timed
_LARGEST_SHOWN = 4096  # bytes of an array that is kept among the last answers
_clock = time.monotonic_ns


def _shown(value: Any) -> Any:
    """Return a value as it may be kept to be shown: a frame would hold its megabytes for as long as it is."""
    size = getattr(value, "nbytes", 0)
    return f"<{type(value).__name__} of {size} bytes>" if size > _LARGEST_SHOWN else value


class NodeTally:
    """What one node did in one thread, as far as it differs from "one in, one out".

    What came in and went out follows from the thread's own count of records: the hot path counts nothing per stage.
    """

    __slots__ = ("_arrived", "bins", "emitted", "held", "losses", "streak")

    def __init__(self) -> None:
        self.losses: dict[Fate, dict[str, int]] = {}
        self.emitted = 0
        self.held = 0
        self.bins = new_bins()
        self.streak = 0
        """Failures in a row, for supervision."""
        self._arrived = 0

    def lose(self, fate: Fate, reason: str, number: int = 1) -> None:
        """Count records that met a fate other than going out."""
        reasons = self.losses.setdefault(fate, {})
        reasons[reason] = reasons.get(reason, 0) + number

    def failed_in_a_row(self, arrived: int) -> int:
        """Count one more failure, of the record number ``arrived``; return how many came without one between them."""
        self.streak = self.streak + 1 if arrived <= self._arrived + 1 else 1
        self._arrived = arrived
        return self.streak

    def lost(self) -> int:
        """How many records did not go out, those that are held included."""
        return self.held + sum(number for reasons in self.losses.values() for number in reasons.values())


class Ledger:
    """The fates of whole records, as one thread saw them end."""

    __slots__ = ("_progress", "_timed_ns", "credit", "emitted", "last", "latency", "losses", "out")

    def __init__(self, progress: dict[str, Progress], last: deque[dict[str, Any]]) -> None:
        self._progress = progress
        self.out = 0
        self.emitted = 0
        self.credit = 0
        """Records that stages hold and that no merged record has stood up for yet."""
        self.losses: dict[Fate, int] = {}
        self.latency = new_bins()
        self.last = last
        self._timed_ns = 0

    def settle_out(self, record: Record) -> None:
        """Count a record that went all the way."""
        if record.lineage is not None or record.position is not None:
            self.settle(record, Fate.OUT)
            return
        self.out += 1
        if record.read_ns - self._timed_ns >= _TIMED_EVERY_NS:
            self._note(record)

    def settle(self, record: Record, fate: Fate) -> None:
        """Count the end of a record, or of one of its copies."""
        final: Fate | None = fate
        if record.lineage is not None:
            final = record.lineage.settle(fate)
            if final is None:
                return
        if record.position is not None and not (record.lineage is not None and record.lineage.abandoned):
            self._progress[record.source].settle(record.sequence, record.position)
        if final is Fate.OUT:
            self.out += 1
            if record.read_ns - self._timed_ns >= _TIMED_EVERY_NS:
                self._note(record)
        elif final is not None:
            self.losses[final] = self.losses.get(final, 0) + 1

    def abandon(self, record: Record, fate: Fate) -> None:
        """Count the end of a record that only the end of the run is to blame for.

        Its source does not move on over it: the next run reads it again.
        """
        if record.lineage is not None:
            record.lineage.abandoned = True
            self.settle(record, fate)
        else:
            self.losses[fate] = self.losses.get(fate, 0) + 1

    def _note(self, record: Record) -> None:
        """Time the way of a record and keep its fields to be shown."""
        self._timed_ns = record.read_ns
        self.latency[bin_of(_clock() - record.read_ns)] += 1
        self.last.append({name: _shown(value) for name, value in record.fields.items()})

    def hold(self, record: Record) -> None:
        """Take a record into a window: a copy ends here, a whole record waits to be merged."""
        if record.lineage is not None:
            self.settle(record, Fate.ABSORBED)
            return
        if record.position is not None:
            self._progress[record.source].settle(record.sequence, record.position)
        self.credit += 1

    def merge(self, items: int) -> None:
        """Let one record stand for ``items`` held ones; without any it is a surplus."""
        settled = min(items, self.credit)
        if not settled:
            self.emitted += 1
            return
        self.credit -= settled
        if settled > 1:
            self.losses[Fate.ABSORBED] = self.losses.get(Fate.ABSORBED, 0) + settled - 1

    def absorb_rest(self) -> None:
        """At the end, count what is still held as absorbed."""
        if self.credit:
            self.losses[Fate.ABSORBED] = self.losses.get(Fate.ABSORBED, 0) + self.credit
            self.credit = 0


class SinkLedger(Ledger):
    """The ledger of a sink: the way of a record ends when it is written; it is settled when that is durable."""

    __slots__ = ()

    def arrived(self, records: Sequence[Record]) -> None:
        """Time the way of records that were written just now."""
        for record in records:
            if record.read_ns - self._timed_ns >= _TIMED_EVERY_NS:
                super()._note(record)

    def _note(self, record: Record) -> None:
        """Its way was timed when it was written."""


class LetterLedger(SinkLedger):
    """The ledger of the dead letter sink: a record whose letter is written has failed, and only now is settled."""

    __slots__ = ()

    def settle_out(self, record: Record) -> None:
        """Count the end of a letter, which is a copy of the record that failed."""
        self.settle(record, Fate.FAILED)
