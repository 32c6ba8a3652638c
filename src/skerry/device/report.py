"""The report: a device profile as rows of plain text, for people."""

from __future__ import annotations

from skerry.spec.profile import Accelerator, DeviceProfile, EnergyCounter, Link, PowerSource, ThermalZone

Row = tuple[str, str]
_UNKNOWN = "unknown"


def profile_table(profile: DeviceProfile) -> list[Row]:
    """Tell a profile in rows of a label and a value.

    Parameters
    ----------
    profile:
        What the probe or the catalogue gave.

    Returns
    -------
    list[tuple[str, str]]
        In the order in which one would ask; a label may come several times, once per accelerator, link or note.
        Figures that were not read from the system say whether they are measured, from a datasheet or estimated.
    """
    rows = [*_machine(profile), *_speed(profile), *_storage(profile)]
    rows += [("accelerator", _accelerator(accelerator)) for accelerator in profile.accelerators]
    rows += [("temperature", _zone(zone)) for zone in profile.thermal]
    rows += [("power", _source(source)) for source in profile.power]
    rows += [("energy", _counter(counter)) for counter in profile.energy]
    rows += [("link", _link(link)) for link in profile.links]
    rows += [("note", note) for note in profile.notes]
    return rows


def si(value: float | None, unit: str) -> str:
    """A figure with three digits and a decimal prefix.

    >>> si(3.84e10, "B/s")
    '38.4 GB/s'
    >>> si(None, "W")
    'unknown'
    """
    if value is None:
        return _UNKNOWN
    for prefix, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    if value and abs(value) < 0.0009995:
        return f"{value * 1e6:.3g} µ{unit}"
    if value and abs(value) < 0.9995:
        return f"{value * 1e3:.3g} m{unit}"
    return f"{value:.3g} {unit}"


def gibibytes(value: int | None) -> str:
    """An amount of memory, as memory is sold: ``8 GiB``, ``512 MiB``."""
    if value is None:
        return _UNKNOWN
    return f"{value / 2**30:.3g} GiB" if value >= 2**30 else f"{value / 2**20:.3g} MiB"


def _machine(profile: DeviceProfile) -> list[Row]:
    board, cpu, memory = profile.board, profile.cpu, profile.memory
    kinds = [word for word, holds in (("virtual machine", board.virtual), ("container", board.container)) if holds]
    rows = [("device", ", ".join([profile.name or _UNKNOWN, *kinds]))]
    system = " ".join(filter(None, (profile.system, profile.kernel)))
    if profile.python:
        system += f", Python {profile.python}"
    rows += [("system", system)] if profile.kernel else []
    rows.append(("processor", " ".join(filter(None, (cpu.model or _UNKNOWN, f"({cpu.architecture or _UNKNOWN})")))))
    rows.append(("instruction sets", " ".join(cpu.isa) or _UNKNOWN))
    cores = f"{cpu.usable_cores:g} usable of {cpu.logical_cores}" if cpu.usable_cores is not None else _UNKNOWN
    rows.append(("cores", cores + _limited(cpu.limited_by) + _clock(cpu.max_frequency_hz)))
    amount = f"{gibibytes(memory.usable_bytes)} usable of {gibibytes(memory.total_bytes)}{_limited(memory.limited_by)}"
    amount += f", {gibibytes(memory.used_bytes)} used" if memory.used_bytes is not None else ""
    amount += f", pressure {memory.pressure_share:.0%}" if memory.pressure_share is not None else ""
    return [*rows, ("memory", amount)]


def _limited(by: str | None) -> str:
    return f" (limited by {by})" if by else ""


def _clock(hertz: float | None) -> str:
    return f", up to {si(hertz, 'Hz')}" if hertz else ""


def _speed(profile: DeviceProfile) -> list[Row]:
    cpu, memory = profile.cpu, profile.memory
    figures = (
        ("memory bandwidth", "memory.bandwidth_bytes_per_s", memory.bandwidth_bytes_per_s, "B/s"),
        ("matrix product fp32", "cpu.gemm_fp32_flops", cpu.gemm_fp32_flops, "op/s"),
        ("matrix product int8", "cpu.gemm_int8_ops", cpu.gemm_int8_ops, "op/s"),
    )
    origins = {measurement.figure: measurement.how for measurement in profile.measurements}
    return [
        (label, f"{si(value, unit)} ({origins.get(figure, 'read')})")
        for label, figure, value, unit in figures
        if value is not None
    ]


def _storage(profile: DeviceProfile) -> list[Row]:
    storage = profile.storage
    what = " ".join(filter(None, (storage.medium, storage.filesystem)))
    rows = []
    if storage.free_bytes is not None:
        size = f"{si(storage.free_bytes, 'B')} free of {si(storage.total_bytes, 'B')}"
        rows.append(("disk", f"{size} at {storage.path} ({what or _UNKNOWN})"))
    elif what:
        size = f", {si(storage.total_bytes, 'B')}" if storage.total_bytes else ""
        rows.append(("disk", what + size))
    if storage.fsync_per_s is not None:
        each = si(storage.fsync_median_s, "s")
        rows.append(("durable writes", f"{storage.fsync_per_s:.0f}/s, {each} each (measured)"))
    return rows


def _accelerator(accelerator: Accelerator) -> str:
    parts = [f"{accelerator.name} ({accelerator.kind})"]
    if accelerator.memory_bytes is not None:
        parts.append(gibibytes(accelerator.memory_bytes))
    if accelerator.int8_ops is not None:
        parts.append(f"{si(accelerator.int8_ops, 'op/s')} int8")
    if accelerator.fp16_flops is not None:
        parts.append(f"{si(accelerator.fp16_flops, 'op/s')} fp16")
    parts.append(f"usable with {accelerator.runtime}" if accelerator.usable else f"not usable: {accelerator.why}")
    return ", ".join(parts)


def _zone(zone: ThermalZone) -> str:
    now = _UNKNOWN if zone.temperature_c is None else f"{zone.temperature_c:.1f} °C"
    return f"{zone.name} {now}" + (f", limit {zone.limit_c:g} °C" if zone.limit_c is not None else "")


def _source(source: PowerSource) -> str:
    parts = [f"{source.name} ({source.kind})"]
    if source.online is not None:
        parts.append("online" if source.online else "offline")
    if source.status:
        parts.append(source.status)
    if source.capacity_share is not None:
        parts.append(f"{source.capacity_share:.0%}")
    if source.energy_full_j is not None:
        parts.append(f"{source.energy_full_j / 3600:.3g} Wh when full")
    if source.power_w is not None:
        parts.append(si(source.power_w, "W"))
    return ", ".join(parts)


def _counter(counter: EnergyCounter) -> str:
    if counter.power_w is not None:
        return f"{counter.name} {si(counter.power_w, 'W')} ({counter.kind})"
    return f"{counter.name} ({counter.kind}{'' if counter.readable else ', readable by root only'})"


def _link(link: Link) -> str:
    parts = [f"{link.name} ({link.kind})"]
    if link.state:
        parts.append(link.state)
    if link.metered is not None and link.kind != "loopback":
        parts.append("metered" if link.metered else "not metered")
    if link.advertised_bits_per_s is not None:
        parts.append(si(link.advertised_bits_per_s, "bit/s"))
    if link.measured_bits_per_s is not None:
        parts.append(f"{si(link.measured_bits_per_s, 'bit/s')} measured, {si(link.round_trip_s, 's')} to connect")
    return ", ".join(parts)
