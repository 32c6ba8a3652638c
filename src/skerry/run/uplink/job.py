"""The job: a batch on its way, and the store and the clock that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from skerry.run.uplink.audit import Holding
from skerry.run.uplink.suspects import Suspects
from skerry.wire.ranges import Range
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

    ``fork_reason`` is why it takes a new epoch once nothing is on its way; empty for none.
    """

    store: Store
    epoch: str = ""
    suspects: Suspects = field(default_factory=Suspects)
    fork_reason: str = ""

    def follow(self) -> None:
        """Forget what was known of numbers when the store has begun a new epoch, by a fork or after damage."""
        if self.store.epoch != self.epoch:
            self.epoch = self.store.epoch
            self.suspects.forget()


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
