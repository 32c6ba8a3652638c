"""Power: the mains supplies and batteries, and warnings of a weak supply.

Source: the kernel's ``power/power_supply_class`` and ``ABI/testing/sysfs-class-power`` documents (micro-units).
"""

from __future__ import annotations

from skerry.device.tree import Tree
from skerry.spec.profile import PowerKind, PowerSource

_SUPPLIES = "/sys/class/power_supply"
_KINDS: dict[str, PowerKind] = {
    "Mains": "mains", "Battery": "battery", "UPS": "ups", "USB": "usb", "USB_PD": "usb", "USB_C": "usb",
    "USB_DCP": "usb", "USB_CDP": "usb", "Wireless": "wireless",
}  # fmt: skip


def read_power(tree: Tree) -> tuple[PowerSource, ...]:
    """Every supply of the machine itself; the batteries of its mouse and keyboard are left out."""
    names = [name for name in tree.names(_SUPPLIES) if tree.text(f"{_SUPPLIES}/{name}/scope") != "Device"]
    sources = tuple(_source(tree, name) for name in names)
    if not sources:
        tree.note("power: no supply or battery is reported; most machines without a battery report none")
    _warn_of_low_voltage(tree)
    return sources


def _source(tree: Tree, name: str) -> PowerSource:
    folder = f"{_SUPPLIES}/{name}"
    online = tree.integer(f"{folder}/online", quiet=True)
    capacity = tree.scaled(f"{folder}/capacity", 0.01)
    now, full = _energy_j(tree, folder, "now"), _energy_j(tree, folder, "full")
    if capacity is None and now is not None and full:
        capacity = now / full
    return PowerSource(
        name=name,
        kind=_KINDS.get(tree.text(f"{folder}/type") or "", "other"),
        online=None if online is None else online > 0,
        status=(tree.text(f"{folder}/status", quiet=True) or "").lower() or None,
        capacity_share=None if capacity is None else min(1.0, max(0.0, capacity)),
        energy_j=now,
        energy_full_j=full,
        power_w=_power_w(tree, folder),
    )


def _energy_j(tree: Tree, folder: str, moment: str) -> float | None:
    """Microwatt-hours, or microampere-hours at the design voltage, as joules."""
    energy = tree.scaled(f"{folder}/energy_{moment}", 3600e-6)
    if energy is not None:
        return energy
    charge = tree.scaled(f"{folder}/charge_{moment}", 3600e-6)
    volts = tree.scaled(f"{folder}/voltage_min_design", 1e-6) or tree.scaled(f"{folder}/voltage_now", 1e-6)
    return None if charge is None or volts is None else charge * volts


def _power_w(tree: Tree, folder: str) -> float | None:
    power = tree.scaled(f"{folder}/power_now", 1e-6)
    if power is not None:
        return abs(power)
    amperes, volts = tree.scaled(f"{folder}/current_now", 1e-6), tree.scaled(f"{folder}/voltage_now", 1e-6)
    return None if amperes is None or volts is None else abs(amperes * volts)


def _warn_of_low_voltage(tree: Tree) -> None:
    """The Raspberry Pi's firmware tells when its supply is too weak; it then slows down, and figures mislead."""
    for chip in tree.names("/sys/class/hwmon"):
        folder = f"/sys/class/hwmon/{chip}"
        if tree.text(f"{folder}/name") == "rpi_volt" and tree.integer(f"{folder}/in0_lcrit_alarm") == 1:
            tree.note("power: under-voltage was detected since boot; the supply or the cable is too weak")


def on_mains(sources: tuple[PowerSource, ...]) -> bool | None:
    """Whether power comes from outside; ``None`` if nothing tells."""
    outside = [source.online for source in sources if source.kind != "battery" and source.online is not None]
    if outside:
        return any(outside)
    states = [source.status for source in sources if source.kind == "battery" and source.status]
    if not states or "unknown" in states:
        return None
    return "discharging" not in states


def emptiest_battery(sources: tuple[PowerSource, ...]) -> float | None:
    """The charge of the emptiest battery, 0 to 1; ``None`` without one."""
    shares = [source.capacity_share for source in sources if source.kind == "battery"]
    return min((share for share in shares if share is not None), default=None)
