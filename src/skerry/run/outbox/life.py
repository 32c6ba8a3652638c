"""The life of a store: how old records are, whatever the wall clock says."""

from __future__ import annotations

from typing import NamedTuple

from skerry.run.outbox.clock import Clock
from skerry.wire.record import Moment

LARGEST_STEP_MS = 300_000
"""A synchronised wall clock that moves by more than this against the monotonic one is not believed again."""


class LifeMark(NamedTuple):
    """What is written down: the boot, the life at its begin, and the life that was reached."""

    boot: str
    base_ms: int
    reached_ms: int


class Instant(NamedTuple):
    """The time of a call to ``put``, read once for all of its items."""

    mono_us: int
    moment: Moment
    born_ms: int
    wall_ms: int | None


class Life:
    """Counts the milliseconds that a store is known to have lived, over boots, and never goes back.

    Within one boot that is exact. Over a reboot it is a lower bound, since nobody counts while the power is off: at
    least what was reached before, and at least what this boot has lasted. The wall clock only adds to it where it was
    synchronised both when a record was made and now, and has not jumped in between (:meth:`wall_ms`).
    """

    def __init__(self, clock: Clock, mark: LifeMark | None, oldest_known_ms: int = 0) -> None:
        self._clock = clock
        self.boot = clock.boot()
        reached = max(mark.reached_ms if mark else 0, oldest_known_ms)
        self.base_ms = mark.base_ms if mark is not None and mark.boot == self.boot else reached
        self._last_ms = reached
        self._synced_offset: int | None = None
        self._jumped = False
        self._moment = Moment(self.boot, 0, False)

    def now_ms(self) -> int:
        """Return how long the store has lived at least."""
        self._last_ms = max(self._last_ms, self.base_ms + self._clock.mono_us() // 1000)
        return self._last_ms

    def wall_ms(self) -> int | None:
        """Return the wall clock in milliseconds since 1970, or ``None`` where it cannot be believed."""
        wall = self._clock.wall_ms()
        if not self._clock.synced():
            return None
        return wall if self._believe(wall - self._clock.mono_us() // 1000) else None

    def _believe(self, offset: int) -> bool:
        """Tell whether a synchronised wall clock, so far from the monotonic one, has never jumped."""
        if self._synced_offset is None:
            self._synced_offset = offset
        if abs(offset - self._synced_offset) > LARGEST_STEP_MS:
            self._jumped = True
        return not self._jumped

    def mark(self) -> LifeMark:
        """Return what is to be written down."""
        return LifeMark(self.boot, self.base_ms, self.now_ms())

    def instant(self) -> Instant:
        """Return what is known of the time now, for records that are made now."""
        mono_us, wall = self._clock.mono_us(), self._clock.wall_ms()
        life = self._last_ms = max(self._last_ms, self.base_ms + mono_us // 1000)
        offset = wall - mono_us // 1000
        believed = self._clock.synced() and self._believe(offset)
        if offset != self._moment.offset_ms or believed != self._moment.synced:
            self._moment = Moment(self.boot, offset, believed)
        return Instant(mono_us, self._moment, life, wall if believed else None)
