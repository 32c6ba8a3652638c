"""The system source: how this machine feels, read through psutil at a fixed interval."""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from skerry.run.sources.delivery import deliver, read_position
from skerry.run.sources.timer import Schedule
from skerry.spec.errors import DependencyError, SpecError
from skerry.spec.ports import Address, Context, Emit, Fields, Options, Stop
from skerry.spec.units import Duration


class SysOptions(Options, frozen=True, kw_only=True):
    """How often, and of which disk.

    Parameters
    ----------
    every:
        Time between two readings. One second: processor shares over less than that are mostly noise.
    count:
        How many readings in all; ``None`` for no end.
    disk:
        A path on the file system whose use is told.
    """

    every: Duration = Duration(1.0)
    count: int | None = None
    disk: str = "/"


class SysSource:
    """``sys:?every=1s``: one item per reading, the first one interval after the start.

    What this machine has no sensor for is ``None``. Sizes are in bytes, shares in percent, rates in bytes per second
    since the reading before, temperatures in degrees Celsius. A position is ``{"reading": n}``.
    """

    Options: ClassVar[type[Options]] = SysOptions
    live: ClassVar[bool] = False

    def __init__(self, address: Address, options: SysOptions) -> None:
        if options.every <= 0:
            raise SpecError(f"{address.text!r} would never rest", expected="every=1s, or another time above 0")
        self._options = options
        self._reading = 0
        self._meter: Meter | None = None

    def open(self, context: Context, position: Any | None) -> None:
        """Take the counters that the first rates are measured from.

        Raises ``DependencyError`` when psutil is not installed, ``SpecError`` when there is no such disk.
        """
        saved = read_position(position, dict[Literal["reading"], int], context.log)
        self._reading = saved["reading"] if saved else 0
        self._meter = Meter(self._options.disk)

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit a reading per interval until the count is reached or the run ends."""
        assert self._meter is not None, "open comes first"
        every = float(self._options.every)
        schedule = Schedule(every, time.monotonic() + every)
        while self._options.count is None or self._reading < self._options.count:
            if stop.wait(schedule.wait_s(time.monotonic())):
                return
            schedule.take(time.monotonic())
            if not deliver(emit, stop, self._meter.read(), position={"reading": self._reading + 1}):
                return
            self._reading += 1

    def commit(self, position: Any) -> None:
        """Do nothing: nobody has to be told."""

    def close(self) -> None:
        """Do nothing: nothing is held."""
        self._meter = None


class Meter:
    """Reads this machine; rates are since the reading before (or since it was made)."""

    def __init__(self, disk: str) -> None:
        try:
            import psutil
        except ImportError as error:
            raise DependencyError("the source sys needs the package psutil", hint="pip install skerry") from error
        self._psutil = psutil
        self._disk = disk
        try:
            psutil.disk_usage(disk)
        except OSError as error:
            raise SpecError(f"no disk can be measured at {disk!r}: {error}", expected="a path that exists") from error
        psutil.cpu_percent(percpu=True)
        self._before = self._counters()
        self._before_s = time.monotonic()

    def read(self) -> Fields:
        """Return one reading."""
        return {"time": time.time(), **self._processor(), **self._memory(), **self._rates(), **self._sensors()}

    def _processor(self) -> Fields:
        cores = self._psutil.cpu_percent(percpu=True)
        load = self._psutil.getloadavg()
        return {
            "cpu_percent": round(sum(cores) / len(cores), 1) if cores else None,
            "cpu_percent_per_core": cores,
            "load_1m": load[0],
            "load_5m": load[1],
            "load_15m": load[2],
            "processes": len(self._psutil.pids()),
        }

    def _memory(self) -> Fields:
        memory, swap, disk = self._psutil.virtual_memory(), self._psutil.swap_memory(), self._disk_usage()
        return {
            "memory_percent": memory.percent,
            "memory_used_bytes": memory.total - memory.available,
            "memory_available_bytes": memory.available,
            "swap_percent": swap.percent,
            "swap_used_bytes": swap.used,
            "disk_percent": disk.percent if disk else None,
            "disk_free_bytes": disk.free if disk else None,
        }

    def _disk_usage(self) -> Any:
        try:
            return self._psutil.disk_usage(self._disk)
        except OSError:  # unmounted meanwhile: a sensor that is gone, not the end of the run
            return None

    def _counters(self) -> dict[str, int | None]:
        disk, network = self._psutil.disk_io_counters(), self._psutil.net_io_counters()
        return {
            "disk_read_bytes_per_s": disk.read_bytes if disk else None,
            "disk_write_bytes_per_s": disk.write_bytes if disk else None,
            "network_received_bytes_per_s": network.bytes_recv if network else None,
            "network_sent_bytes_per_s": network.bytes_sent if network else None,
        }

    def _rates(self) -> Fields:
        now, now_s = self._counters(), time.monotonic()
        rates = {name: _rate(self._before[name], now[name], now_s - self._before_s) for name in now}
        self._before, self._before_s = now, now_s
        return rates

    def _sensors(self) -> Fields:
        battery = self._battery()
        return {
            "temperature_c": self._hottest(),
            "battery_percent": round(battery.percent, 1) if battery else None,
            "on_battery": not battery.power_plugged if battery and battery.power_plugged is not None else None,
        }

    def _hottest(self) -> float | None:
        """Return the hottest sensor; psutil has none of them on macOS, and containers hide them."""
        read = getattr(self._psutil, "sensors_temperatures", None)
        found = read() if read is not None else {}
        return max((sensor.current for group in found.values() for sensor in group if sensor.current), default=None)

    def _battery(self) -> Any:
        read = getattr(self._psutil, "sensors_battery", None)
        return read() if read is not None else None


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    if before is None or now is None or seconds <= 0:
        return None
    return max(0.0, round((now - before) / seconds, 1))
