"""Energy: counters of joules (RAPL) and meters of watts (the INA chips of Jetson and other boards).

Sources: the kernel's ``power/powercap`` and ``hwmon/ina3221`` documents; NVIDIA's Jetson Linux developer guide for the
names of the rails.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from skerry.device.tree import Tree
from skerry.spec.profile import EnergyCounter

_POWERCAP = "/sys/class/powercap"
_HWMON = "/sys/class/hwmon"
_IIO = "/sys/bus/iio/devices"
_INA_CHIPS = ("ina3221", "ina3221x", "ina219", "ina226", "ina2xx", "ina238", "ina260")
# The rail that feeds the whole module; the others are parts of it.
_WHOLE_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_SYS_IN", "5V_IN")


def read_energy(tree: Tree) -> tuple[EnergyCounter, ...]:
    """Every counter and meter of energy that the kernel shows."""
    found = (*_rapl(tree), *_mark_whole([*_ina_hwmon(tree), *_ina_iio(tree)]))
    if not found:
        tree.note("energy: neither RAPL nor a power monitor (INA) is there, so the energy used is unknown")
    for counter in found:
        if not counter.readable:
            tree.note(f"energy: {counter.path} may only be read by root (since CVE-2020-8694)")
    return found


def _rapl(tree: Tree) -> list[EnergyCounter]:
    """Zones: ``intel-rapl:0`` is a package, ``intel-rapl:0:1`` a part of it. AMD uses the same names."""
    found = []
    for zone in tree.names(_POWERCAP):
        place = re.fullmatch(r"intel-rapl(?:-mmio)?:(\d+)(:\d+)?", zone)
        folder = f"{_POWERCAP}/{zone}"
        if place is None or not tree.exists(f"{folder}/energy_uj"):
            continue
        name = tree.text(f"{folder}/name") or zone
        found.append(
            EnergyCounter(
                name=name if not place[2] else f"package-{place[1]} {name}",
                kind="rapl",
                path=f"{folder}/energy_uj",
                whole=_counts_apart(zone, name, nested=place[2] is not None),
                readable=tree.integer(f"{folder}/energy_uj", quiet=True) is not None,
                wraps_at_j=tree.scaled(f"{folder}/max_energy_range_uj", 1e-6),
            )
        )
    return found


def _counts_apart(zone: str, name: str, *, nested: bool) -> bool:
    """Packages and their DRAM add up. ``psys`` holds the packages again, and ``-mmio`` mirrors them."""
    if "mmio" in zone:
        return False
    return name == "dram" if nested else name != "psys"


def _ina_hwmon(tree: Tree) -> list[EnergyCounter]:
    found = []
    for chip in tree.names(_HWMON):
        folder = f"{_HWMON}/{chip}"
        name = tree.text(f"{folder}/name")
        if name not in _INA_CHIPS:
            continue
        for number in (1, 2, 3):
            rail = tree.text(f"{folder}/in{number}_label", quiet=True) or f"{name} {number}"
            stem = f"{folder}/#{number}"
            watts = read_watts(tree, stem)
            if watts is not None:
                found.append(EnergyCounter(name=rail, kind="ina", path=stem, power_w=watts))
    return found


def _ina_iio(tree: Tree) -> list[EnergyCounter]:
    """JetPack 4 shows its power monitors as IIO devices with ``rail_name_N``."""
    found = []
    for device in tree.names(_IIO):
        for number in (0, 1, 2):
            path = f"{_IIO}/{device}/in_power{number}_input"
            rail = tree.text(f"{_IIO}/{device}/rail_name_{number}", quiet=True)
            watts = read_watts(tree, path)
            if rail is not None and watts is not None:
                found.append(EnergyCounter(name=rail, kind="ina", path=path, power_w=watts))
    return found


def _mark_whole(rails: list[EnergyCounter]) -> list[EnergyCounter]:
    """If a rail feeds the whole module, it alone is the total; otherwise the rails add up."""
    if not any(rail.name in _WHOLE_RAILS for rail in rails):
        return rails
    return [
        EnergyCounter(name=rail.name, kind="ina", path=rail.path, power_w=rail.power_w, whole=rail.name in _WHOLE_RAILS)
        for rail in rails
    ]


def read_watts(tree: Tree, path: str) -> float | None:
    """The watts of one rail: ``…/in_power0_input`` (milliwatts), or ``<hwmon folder>/#<channel>``.

    A channel of hwmon is its power (microwatts) where it has one, else volts times amperes.
    """
    folder, mark, number = path.partition("/#")
    if not mark:
        return tree.scaled(path, 1e-3)
    power = tree.scaled(f"{folder}/power{number}_input", 1e-6)
    if power is not None:
        return power
    volts = tree.scaled(f"{folder}/in{number}_input", 1e-3)
    amperes = tree.scaled(f"{folder}/curr{number}_input", 1e-3)
    return None if volts is None or amperes is None else volts * amperes


class EnergyMeter:
    """Tells the energy that the machine has used since the meter was made.

    Counters of joules are subtracted, with their wrap-around; meters of watts are integrated between readings by the
    trapezoid rule. Ask at least once per wrap of the counter (at 65 W a common one wraps within the hour), and often
    enough for the meters of watts: what happens between two readings is not seen.

    Parameters
    ----------
    tree:
        The machine.
    clock:
        Seconds that only grow.
    """

    def __init__(self, tree: Tree | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree or Tree()
        self._clock = clock
        usable = [counter for counter in read_energy(self._tree) if counter.whole and counter.readable]
        # Joules counted by RAPL and watts of an INA could be the same energy: counters win.
        kind = "rapl" if any(counter.kind == "rapl" for counter in usable) else "ina"
        self.counters = tuple(counter for counter in usable if counter.kind == kind)
        self._joules = 0.0
        self._at_s = clock()
        self._last = [self._read(counter) for counter in self.counters]

    def joules(self) -> float | None:
        """Joules since the meter was made; ``None`` if this machine has no counter that can be read."""
        if not self.counters:
            return None
        now = self._clock()
        for index, counter in enumerate(self.counters):
            value, last = self._read(counter), self._last[index]
            if value is not None and last is not None:
                self._joules += self._used(counter, last, value, now - self._at_s)
            self._last[index] = value if value is not None else last
        self._at_s = now
        return self._joules

    def _read(self, counter: EnergyCounter) -> float | None:
        """Joules of a counter, or watts of a meter."""
        if counter.kind == "rapl":
            return self._tree.scaled(counter.path, 1e-6)
        return read_watts(self._tree, counter.path)

    @staticmethod
    def _used(counter: EnergyCounter, last: float, value: float, seconds: float) -> float:
        if counter.kind == "ina":
            return (last + value) / 2.0 * seconds
        if value >= last:
            return value - last
        # A counter that wraps and does not tell where can only be taken to have started anew.
        return value - last + counter.wraps_at_j if counter.wraps_at_j else value
