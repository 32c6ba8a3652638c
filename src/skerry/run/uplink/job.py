"""The job: a batch on its way, and the store and the clock that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from skerry.run.uplink.audit import Holding
from skerry.run.uplink.fork import Fork, wanted
from skerry.run.uplink.suspects import Suspects
from skerry.wire.ranges import Range, merge
from skerry.wire.record import WireRecord


class Clock(Protocol):
    """What the time is; ``skerry.run.outbox.clock.SystemClock`` is one."""

    def mono_us(self) -> int:
        """Return microseconds since :meth:`boot`."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, right or wrong."""

    def boot(self) -> str:
        """Return 32 hex digits that change when ``mono_us`` starts anew."""

    def synced(self) -> bool:
        """Tell whether the wall clock can be believed."""


class Store(Protocol):
    """What an uplink needs of an outbox (``skerry.run.outbox.outbox.Outbox``)."""

    @property
    def epoch(self) -> str:
        """The epoch that its numbers belong to."""

    @property
    def last_seq(self) -> int:
        """The highest number that was given in this epoch."""

    def pending(self, limit: int, max_bytes: int, excluding: Sequence[Range] = ()) -> list[WireRecord]:
        """Return unsent records, the highest class first, then the oldest."""

    def settle(self, ranges: Sequence[Range], *, epoch: str | None = None, told: dict[str, int] | None = None) -> int:
        """Forget what is durable at the hub under ``epoch``, and that it was ``told`` of these losses."""

    def bury(self, seq: int, reason: str) -> Any:
        """Move a record to the dead letters."""

    def fork(self, reason: str) -> str:
        """Take a new epoch, with what is unsent; return it."""

    def losses(self) -> dict[str, int]:
        """Return how many records were given up in this epoch, by class and reason."""

    def audit(self) -> tuple[int, int]:
        """Return count and sum of digests of what was settled in this epoch."""


@dataclass(eq=False)
class Shelf:
    """A store that is being sent: this process's own, or one that another process left behind.

    Parameters
    ----------
    store:
        The store.
    epoch:
        The epoch that what is known of numbers belongs to.
    suspects:
        Records that were refused in company.
    fork:
        The new epoch that it is to take; ``None`` for none.
    begun_books:
        Whether it took a new epoch because the hub's books did not agree with ours: once in a life is enough.
    """

    store: Store
    epoch: str = ""
    suspects: Suspects = field(default_factory=Suspects)
    fork: Fork | None = None
    begun_books: bool = False

    def follow(self) -> None:
        """Forget what was known of numbers when the store has begun a new epoch, by a fork or after damage."""
        if self.store.epoch != self.epoch:
            self.epoch = self.store.epoch
            self.suspects.forget()
            self.fork = None

    def want_fork(self, reason: str, taken: Sequence[Range] = ()) -> None:
        """Note that a new epoch is to be taken, and numbers under which the hub holds other records."""
        self.fork = wanted(self.fork, reason, self.store.last_seq, taken)

    def pending(self, limit: int, max_bytes: int, under_way: Sequence[Range]) -> list[WireRecord]:
        """Return records that are not on their way and may be sent now, the highest class first, then the oldest."""
        kept_back = self.fork.kept_back() if self.fork is not None else []
        return self.store.pending(limit, max_bytes, merge(under_way, kept_back))

    def want_new_books(self, epoch: str) -> None:
        """Note that the hub lost records of an epoch that it had acknowledged, and that this is to be lived with."""
        if not self.begun_books and self.store.epoch == epoch:
            self.begun_books = True
            self.want_fork("the hub's books do not agree with ours")

    def take_fork(self) -> str:
        """Take the new epoch and return it."""
        self.fork = None
        return self.store.fork("numbers")


class Job(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A batch on its way.

    Parameters
    ----------
    shelf:
        The store that it is from.
    batch:
        Its bytes.
    losses:
        What its header says of losses.
    epoch, ranges, digests:
        The epoch, the numbers in it, and the digest of each.
    base:
        What the hub had acknowledged when it was sent.
    begun:
        When it was sent, by the conductor's clock.
    set_aside:
        Bytes of the budget that are kept for it, of the link's class ``link``.
    was_full:
        Whether it had as many records as it was allowed.
    in_flight:
        How many were on their way with it.
    """

    shelf: Shelf
    batch: bytes
    losses: dict[str, int]
    epoch: str
    ranges: list[Range]
    digests: dict[int, int]
    base: Holding
    begun: float
    set_aside: int
    link: str
    was_full: bool
    in_flight: int
