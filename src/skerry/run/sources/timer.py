"""The timer source: ticks on a schedule that does not drift."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from skerry.run.sources.delivery import deliver, read_position
from skerry.spec.errors import SpecError
from skerry.spec.ports import Address, Context, Emit, Options, Stop
from skerry.spec.units import Duration


class TimerOptions(Options, frozen=True, kw_only=True):
    """When it ends.

    Parameters
    ----------
    count:
        How many ticks in all, over restarts too; ``None`` for no end.
    """

    count: int | None = None


class Schedule:
    """Moments that lie ``interval_s`` apart from a fixed start, so that being late once delays nothing later.

    Moments that went by while nobody waited are skipped and counted in ``missed``.
    """

    def __init__(self, interval_s: float, start_s: float) -> None:
        self.missed = 0
        self._interval_s = interval_s
        self._start_s = start_s
        self._next = 0

    def wait_s(self, now_s: float) -> float:
        """Return the seconds left until the next moment; 0 when it has come."""
        return max(0.0, self._start_s + self._next * self._interval_s - now_s)

    def take(self, now_s: float) -> None:
        """Use up the moment that has come, and skip those after it that have gone by as well."""
        newest = max(self._next, int((now_s - self._start_s) / self._interval_s))
        self.missed += newest - self._next
        self._next = newest + 1


class TimerSource:
    """``timer://1s?count=10``: emits ``{"tick": 1, "time": …, "missed": 0}`` at once and then every interval.

    ``time`` is in seconds since 1970 by the wall clock; the schedule follows the monotonic clock. ``missed`` counts
    the ticks left out so far because the pipeline was busy. A position is ``{"tick": n}``.
    """

    Options: ClassVar[type[Options]] = TimerOptions
    live: ClassVar[bool] = False

    def __init__(self, address: Address, options: TimerOptions) -> None:
        self._interval_s = _interval(address)
        self._count = options.count
        self._tick = 0

    def open(self, context: Context, position: Any | None) -> None:
        """Go on counting after ``position``."""
        saved = read_position(position, dict[Literal["tick"], int], context.log)
        self._tick = saved["tick"] if saved else 0

    def run(self, emit: Emit, stop: Stop) -> None:
        """Tick until the count is reached or the run ends."""
        schedule = Schedule(self._interval_s, time.monotonic())
        while self._count is None or self._tick < self._count:
            if stop.wait(schedule.wait_s(time.monotonic())):
                return
            schedule.take(time.monotonic())
            fields = {"tick": self._tick + 1, "time": time.time(), "missed": schedule.missed}
            if not deliver(emit, stop, fields, position={"tick": self._tick + 1}):
                return
            self._tick += 1

    def commit(self, position: Any) -> None:
        """Do nothing: nobody has to be told."""

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _interval(address: Address) -> float:
    try:
        interval = Duration.parse(address.path.strip("/"))
    except ValueError as error:
        raise SpecError(f"{address.text!r} has no interval", expected=f"{error}: timer://1s") from error
    if interval <= 0:
        raise SpecError(f"{address.text!r} would never rest", expected="an interval above 0, such as timer://1s")
    return float(interval)
