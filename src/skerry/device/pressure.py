"""Vital signs: how the machine feels at this moment, cheap enough to ask before every decision.

What can be looked up once (which sensors, which limits, which files) is looked up when the reader is made, so that a
reading opens only a handful of small files.
"""

from __future__ import annotations

from skerry.device.board import read_board
from skerry.device.cgroup import groups
from skerry.device.limits import memory_limits, memory_pressure_file, parse_meminfo, parse_pressure
from skerry.device.power import emptiest_battery, on_mains, read_power
from skerry.device.thermal import closeness, read_sensors
from skerry.device.tree import Tree
from skerry.spec.profile import Vitals


class VitalSigns:
    """Reads the vital signs of a machine again and again.

    Parameters
    ----------
    tree:
        The machine; the one that we run on by default.
    """

    def __init__(self, tree: Tree | None = None) -> None:
        self._tree = tree or Tree()
        self._sensors = read_sensors(self._tree, read_board(self._tree, []).name)
        self._has_supplies = bool(read_power(self._tree))
        self._stalls = memory_pressure_file(self._tree)
        above = groups(self._tree, "memory")
        self._limiting = above if memory_limits(self._tree, above) else []
        self._ticks = _cpu_ticks(self._tree)
        self._load: float | None = None

    def read(self) -> Vitals:
        """The vital signs now. What this machine does not tell is ``None``; nothing is raised."""
        zones = [sensor.now(self._tree) for sensor in self._sensors]
        worst = max(zones, key=closeness, default=None)
        supplies = read_power(self._tree) if self._has_supplies else ()
        return Vitals(
            memory_pressure=self._memory_pressure(),
            memory_stall=self._memory_stall(),
            hottest_c=None if worst is None else worst.temperature_c,
            limit_c=None if worst is None else worst.limit_c,
            battery_share=emptiest_battery(supplies),
            on_mains=on_mains(supplies),
            cpu_load=self._cpu_load(),
        )

    def _memory_stall(self) -> float | None:
        return parse_pressure(self._tree.text(self._stalls, quiet=True) or "") if self._stalls else None

    def _memory_pressure(self) -> float | None:
        """The worst of the machine and of every control group above us: any of them can run out."""
        machine = parse_meminfo(self._tree.text("/proc/meminfo", quiet=True) or "")
        shares = []
        total, available = machine.get("MemTotal"), machine.get("MemAvailable")
        if total and available is not None:
            shares.append(1.0 - available / total)
        limits = [(limit.used_bytes, limit.limit_bytes) for limit in memory_limits(self._tree, self._limiting)]
        shares += [used / most for used, most in limits if used is not None and most > 0]
        return min(1.0, max(0.0, *shares)) if shares else None

    def _cpu_load(self) -> float | None:
        """Busy share since the reading before; readings within one clock tick repeat the last answer."""
        ticks = _cpu_ticks(self._tree)
        if ticks is not None and self._ticks is not None:
            busy, total = ticks[0] - self._ticks[0], ticks[1] - self._ticks[1]
            if total > 0:
                self._load = min(1.0, max(0.0, busy / total))
                self._ticks = ticks
        return self._load


def _cpu_ticks(tree: Tree) -> tuple[int, int] | None:
    """Busy and total ticks of all cores since boot: the first line of ``/proc/stat``; waiting for disks is idle."""
    first = (tree.text("/proc/stat", quiet=True) or "").partition("\n")[0].split()
    numbers = [int(field) for field in first[1:9] if field.isdecimal() and len(field) < 19]
    if first[:1] != ["cpu"] or len(numbers) < 5:
        return None
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)
