"""Temperatures: the kernel's thermal zones and the sensors of hwmon, each with the limit that matters.

Sources: the kernel's ``thermal/sysfs-api`` and ``hwmon/sysfs-interface`` documents; both tell millidegrees Celsius.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from skerry.device.tree import Tree
from skerry.spec.profile import ThermalZone, TripPoint

_ZONES = "/sys/class/thermal"
_HWMON = "/sys/class/hwmon"
_PLAUSIBLE_C = (-60.0, 250.0)  # beyond these a sensor is broken or not connected

# Boards whose firmware slows the clock before the kernel's own trip points: name, degrees Celsius.
# Raspberry Pi documentation, "Frequency management and thermal control": the cores are throttled from 80.
_FIRMWARE_LIMITS_C = {"Raspberry Pi": 80.0}


class Sensor(NamedTuple):
    """A temperature sensor: the file to read, and all that stays the same from reading to reading."""

    path: str
    zone: ThermalZone

    def now(self, tree: Tree) -> ThermalZone:
        """The zone with its temperature at this moment."""
        return msgspec.structs.replace(self.zone, temperature_c=_degrees(tree, self.path))


def read_thermal(tree: Tree, board: str | None = None) -> tuple[ThermalZone, ...]:
    """Every temperature sensor, with its temperature now.

    Parameters
    ----------
    tree:
        The machine.
    board:
        The board's name: the firmware of some boards has a limit of its own.
    """
    found = tuple(sensor.now(tree) for sensor in read_sensors(tree, board))
    if not found:
        tree.note("thermal: this machine has no temperature sensor that the kernel knows")
    return found


def read_sensors(tree: Tree, board: str | None = None) -> tuple[Sensor, ...]:
    """Find the sensors and their limits; a sensor that neither reads nor has limits is left out."""
    zones = [_zone(tree, name) for name in tree.names(_ZONES) if name.startswith("thermal_zone")]
    seen = {sensor.zone.name for sensor in zones}
    # hwmon repeats thermal zones under the same name; only what is new there is taken.
    chips = [sensor for sensor in _chips(tree) if sensor.zone.name.partition(" ")[0] not in seen]
    found = [Sensor(path, _with_firmware_limit(zone, board)) for path, zone in [*zones, *chips]]
    return tuple(sensor for sensor in found if sensor.zone.trips or _degrees(tree, sensor.path) is not None)


def _zone(tree: Tree, name: str) -> Sensor:
    folder = f"{_ZONES}/{name}"
    trips = []
    for file in tree.names(folder):
        number = re.fullmatch(r"trip_point_(\d+)_temp", file)
        limit = _degrees(tree, f"{folder}/{file}") if number else None
        if number and limit is not None and limit > 0:  # 0 or below: switched off
            kind = tree.text(f"{folder}/trip_point_{number[1]}_type") or "unknown"
            trips.append(TripPoint(kind=kind, temperature_c=limit))
    trips.sort(key=lambda trip: trip.temperature_c)
    title = tree.text(f"{folder}/type") or name
    return Sensor(f"{folder}/temp", ThermalZone(name=title, limit_c=_limit(trips), trips=tuple(trips)))


def _limit(trips: list[TripPoint]) -> float | None:
    """Where slowing down begins, or else where the machine switches itself off."""
    for kinds in (("passive",), ("hot", "critical")):
        limits = [trip.temperature_c for trip in trips if trip.kind in kinds]
        if limits:
            return min(limits)
    return None


def _chips(tree: Tree) -> list[Sensor]:
    found = []
    for chip in tree.names(_HWMON):
        folder = f"{_HWMON}/{chip}"
        name = tree.text(f"{folder}/name") or chip
        numbers = [re.fullmatch(r"temp(\d+)_input", file) for file in tree.names(folder)]
        found += [_channel(tree, f"{folder}/temp{number[1]}", name) for number in numbers if number]
    return found


def _channel(tree: Tree, stem: str, chip: str) -> Sensor:
    limits = (("max", "hot"), ("crit", "critical"))
    read = [(kind, _degrees(tree, f"{stem}_{suffix}")) for suffix, kind in limits]
    trips = [TripPoint(kind=kind, temperature_c=limit) for kind, limit in read if limit is not None and limit > 0]
    label = tree.text(f"{stem}_label", quiet=True)
    title = f"{chip} {label}" if label else chip
    return Sensor(f"{stem}_input", ThermalZone(name=title, limit_c=_limit(trips), trips=tuple(trips)))


def _degrees(tree: Tree, path: str) -> float | None:
    value = tree.scaled(path, 1e-3)
    if value is None or not _PLAUSIBLE_C[0] <= value <= _PLAUSIBLE_C[1]:
        return None
    return value


def _with_firmware_limit(zone: ThermalZone, board: str | None) -> ThermalZone:
    for name, limit in _FIRMWARE_LIMITS_C.items():
        if board and board.startswith(name) and "cpu" in zone.name and (zone.limit_c or 1e9) > limit:
            trips = (TripPoint(kind="firmware", temperature_c=limit), *zone.trips)
            return msgspec.structs.replace(zone, limit_c=limit, trips=trips)
    return zone


def closeness(zone: ThermalZone) -> tuple[bool, float]:
    """The order of worry: zones with a limit by how near they are to it, then zones without, then those that fail."""
    if zone.temperature_c is None:
        return False, -1e9
    return zone.limit_c is not None, zone.temperature_c - (zone.limit_c or 0.0)
