"""The counts of a hub since its start: plain numbers, and never one that nobody can see."""

from __future__ import annotations

from collections import Counter

from skerry.fleet.hub.ingest import Fates


class Counts:
    """What came in and what became of it; changed by the server's thread, read by anybody."""

    def __init__(self) -> None:
        self.batches: Counter[str] = Counter()
        """Batches by outcome: ``taken``, or the reason of a refusal."""
        self.records: Counter[str] = Counter()
        """Records by fate: ``committed``, ``duplicate``, ``dead``, ``forked``."""
        self.bytes_in = 0
        self.forgotten = 0
        """Records that retention deleted."""
        self.in_flight_bytes = 0
        self.held: Counter[str] = Counter()
        """Bytes that are held by whoever sends them."""
        self.in_flight: Counter[str] = Counter()
        """Batches by device that wait for their commit."""

    def refuse(self, reason: str) -> None:
        """Count a batch that was not taken."""
        self.batches[reason] += 1

    def take(self, fates: Fates, size: int) -> None:
        """Count a batch that was taken."""
        self.batches["taken"] += 1
        self.bytes_in += size
        for fate in ("committed", "duplicate", "dead", "forked"):
            self.records[fate] += getattr(fates, fate)
