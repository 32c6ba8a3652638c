"""What the tests of the uplink share: a clock that is moved by hand, a store and a hub in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from skerry.run.uplink.transport import RECEIPT, Answer
from skerry.spec.errors import WireError
from skerry.wire.batch import decode
from skerry.wire.ranges import Range, contains, from_numbers
from skerry.wire.receipt import Receipt, encode_receipt
from skerry.wire.record import Moment, WireRecord, record_digest

BOOT = "0" * 31 + "1"
MODULUS = 1 << 64


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0
    wall_s: float = 1_800_000_000.0
    boot_id: str = BOOT
    is_synced: bool = False

    def move(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    def __call__(self) -> float:
        return self.now_s

    def mono_us(self) -> int:
        return int(self.now_s * 1e6)

    def wall_ms(self) -> int:
        return int(self.wall_s * 1e3)

    def boot(self) -> str:
        return self.boot_id

    def synced(self) -> bool:
        return self.is_synced


def a_record(seq: int, clock: HandClock, priority: int = 1, **fields: Any) -> WireRecord:
    """Return a record made now."""
    return WireRecord(
        seq, "hub", fields or {"n": seq}, clock.mono_us(), Moment(clock.boot(), 0, clock.synced()), priority
    )


@dataclass
class MemoryStore:
    """An outbox in memory."""

    clock: HandClock
    epoch: str = "0123456789abcdef"
    records: dict[int, WireRecord] = field(default_factory=dict)
    dead: dict[int, str] = field(default_factory=dict)
    forks: list[str] = field(default_factory=list)
    settled: tuple[int, int] = (0, 0)
    last: int = 0
    fault: Exception | None = None

    def put(self, count: int = 1, priority: int = 1, **fields: Any) -> list[int]:
        seqs = list(range(self.last + 1, self.last + count + 1))
        self.last += count
        for seq in seqs:
            self.records[seq] = a_record(seq, self.clock, priority, **fields)
        return seqs

    @property
    def last_seq(self) -> int:
        return self.last

    def pending(self, limit: int, max_bytes: int, excluding: Sequence[Range] = ()) -> list[WireRecord]:
        if self.fault is not None:
            raise self.fault
        free = [record for record in self.records.values() if not contains(list(excluding), record.seq)]
        return sorted(free, key=lambda record: (-record.priority, record.seq))[:limit]

    def settle(self, ranges: Sequence[Range], *, epoch: str | None = None, told: dict[str, int] | None = None) -> int:
        gone = [seq for seq in self.records if contains(list(ranges), seq)]
        count, checksum = self.settled
        for seq in gone:
            checksum += record_digest(self.records.pop(seq))
        self.settled = (count + len(gone), checksum % MODULUS)
        return len(gone)

    def bury(self, seq: int, reason: str) -> None:
        self.records.pop(seq, None)
        self.dead[seq] = reason

    def fork(self, reason: str) -> str:
        self.forks.append(reason)
        waiting = [self.records[seq] for seq in sorted(self.records)]
        self.epoch, self.settled, self.last = f"{len(self.forks):016x}", (0, 0), len(waiting)
        self.records = {seq: msgspec.structs.replace(record, seq=seq) for seq, record in enumerate(waiting, 1)}
        return self.epoch

    def losses(self) -> dict[str, int]:
        return {}

    def audit(self) -> tuple[int, int]:
        return self.settled


@dataclass
class MemoryHub:
    """A hub in memory: it keeps what it takes by (epoch, seq), and refuses what it is told to."""

    kept: dict[tuple[str, int], WireRecord] = field(default_factory=dict)
    poison: set[int] = field(default_factory=set)
    largest: int = 1 << 30
    unreadable: set[int] = field(default_factory=set)
    hides: int = 0
    """How many records it says to hold and does not."""
    effects: list[tuple[str, int]] = field(default_factory=list)

    def answer(self, batch: bytes) -> Answer:
        if len(batch) > self.largest:
            return Answer(status=413, is_hub=True)
        read = decode(batch)
        if any(record.seq in self.unreadable for record in read.records):
            return Answer(status=400, body=b"cannot read this", is_hub=True)
        epoch = read.header.epoch
        committed, forked, dead = [], [], []
        for record in read.records:
            known = self.kept.get((epoch, record.seq))
            if record.seq in self.poison:
                dead.append((record.seq, "poison"))
            elif known is not None and record_digest(known) != record_digest(record):
                forked.append(record.seq)
            else:
                if known is None:
                    self.kept[(epoch, record.seq)] = record
                    self.effects.append((epoch, record.seq))
                committed.append(record.seq)
        return self.receipt(epoch, committed, dead, forked)

    def receipt(
        self, epoch: str, committed: Sequence[int], dead: Sequence[tuple[int, str]] = (), forked: Sequence[int] = ()
    ) -> Answer:
        held = [record for (of, _), record in self.kept.items() if of == epoch]
        receipt = Receipt(
            epoch=epoch,
            committed=from_numbers(committed),
            dead=list(dead),
            forked=from_numbers(forked),
            count=len(held) - self.hides,
            checksum=sum(record_digest(record) for record in held) % MODULUS,
            hub_ms=0,
        )
        return Answer(status=200, body=encode_receipt(receipt), is_hub=True, kind=RECEIPT)


PORTAL = Answer(status=200, body=b"<html>Welcome, please log in</html>", kind="text/html")


__all__ = ["BOOT", "PORTAL", "HandClock", "MemoryHub", "MemoryStore", "WireError", "a_record"]
