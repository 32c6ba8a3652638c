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

    def now_ms(self) -> int:
        """Return how long the store has lived at least."""
        self._last_ms = max(self._last_ms, self.base_ms + self._clock.mono_us() // 1000)
        return self._last_ms

    def wall_ms(self) -> int | None:
        """Return the wall clock in milliseconds since 1970, or ``None`` where it cannot be believed."""
        wall = self._clock.wall_ms()
        if not self._clock.synced():
            return None
        offset = wall - self._clock.mono_us() // 1000
        if self._synced_offset is None:
            self._synced_offset = offset
        if abs(offset - self._synced_offset) > LARGEST_STEP_MS:
            self._jumped = True
        return None if self._jumped else wall

    def mark(self) -> LifeMark:
        """Return what is to be written down."""
        return LifeMark(self.boot, self.base_ms, self.now_ms())

    def moment(self, mono_us: int) -> tuple[Moment, int | None]:
        """Return the moment of a record that is made now, and the wall clock where it is believed."""
        believed = self.wall_ms()
        offset = self._clock.wall_ms() - mono_us // 1000
        return Moment(self.boot, offset, believed is not None), believed
