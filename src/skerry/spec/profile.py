"""The device profile: what a machine is, what it can do, and how it feels now.

Numbers are plain and in base units, and the unit stands in the name of the field. ``None`` means that it cannot
be known here; ``DeviceProfile.notes`` says why. ``DeviceProfile.measurements`` says of every figure that was not
simply read from the system how it came to be: measured, from a datasheet, or estimated.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ORIGINS = ("measured", "datasheet", "estimate")
Origin = Literal["measured", "datasheet", "estimate"]
AcceleratorKind = Literal["gpu", "npu", "tpu", "dsp"]
PowerKind = Literal["mains", "battery", "usb", "ups", "wireless", "other"]
LinkKind = Literal[
    "ethernet", "wifi", "cellular", "loopback", "bluetooth", "tunnel", "bridge", "can", "virtual", "other"
]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a profile: immutable, by keyword, with no unknown fields."""


# The unit by how the name of a field ends; the first that fits counts.
_UNITS = {
    "bytes_per_s": "bytes/s", "bits_per_s": "bit/s", "_bytes": "bytes", "_hz": "Hz", "_flops": "op/s", "_ops": "op/s",
    "_per_s": "1/s", "_s": "s", "_c": "°C", "_j": "J", "_w": "W", "cores": "cores", "_share": "share",
}  # fmt: skip


def unit_of(figure: str) -> str:
    """The unit of a field, from its name.

    >>> unit_of("memory.bandwidth_bytes_per_s")
    'bytes/s'

    Raises
    ------
    ValueError
        The name tells no unit.
    """
    for ending, unit in _UNITS.items():
        if figure.endswith(ending):
            return unit
    raise ValueError(f"the name {figure!r} tells no unit")


class Measurement(Part, frozen=True, kw_only=True):
    """Where one figure of the profile comes from.

    Attributes
    ----------
    figure:
        The field, as a path in the profile: ``cpu.gemm_fp32_flops``, ``accelerators.0.int8_ops``.
    value, unit:
        The figure and its unit in words, ``bytes/s``.
    how:
        ``measured`` on such a device, from the ``datasheet`` of its maker, or an ``estimate``.
    source:
        The method with its settings, or the URL or the name of the datasheet.
    """

    figure: str
    value: float
    unit: str
    how: Origin
    source: str


class Board(Part, frozen=True, kw_only=True):
    """The board or computer: names from the device tree or from DMI.

    ``compatible`` is the device tree's list, most special first. ``virtual`` and ``container`` tell whether this is
    a virtual machine or a container.
    """

    name: str | None = None
    vendor: str | None = None
    compatible: tuple[str, ...] = ()
    virtual: bool | None = None
    container: bool | None = None


class CpuCluster(Part, frozen=True, kw_only=True):
    """Cores of one kind: ``cores`` of ``model``, which clock up to ``max_frequency_hz`` (hertz)."""

    model: str
    cores: int
    max_frequency_hz: float | None = None


class Cpu(Part, frozen=True, kw_only=True):
    """The processor, and how much of it this process may use.

    Attributes
    ----------
    architecture:
        ``x86_64``, ``aarch64``, ``armv7l``, ``riscv64``, …
    isa:
        Instruction sets that decide how fast a model runs, those that **all** cores have, sorted; see
        ``skerry.device.cpu``.
    logical_cores, physical_cores:
        Cores that are online, with and without hyper-threads.
    usable_cores:
        Cores' worth of time that this process may use: the least of affinity, cpuset and quota; may be a fraction.
    limited_by:
        What set ``usable_cores``: ``affinity``, ``cpuset``, ``quota``, or ``None`` if nothing does.
    last_level_cache_bytes:
        The largest cache that the first core sees.
    gemm_fp32_flops:
        Floating-point operations per second in a matrix product, on all usable cores.
    gemm_int8_ops:
        The same in 8-bit integers; one multiply-add counts as two.
    """

    model: str | None = None
    vendor: str | None = None
    architecture: str | None = None
    isa: tuple[str, ...] = ()
    logical_cores: int | None = None
    physical_cores: int | None = None
    usable_cores: float | None = None
    limited_by: str | None = None
    clusters: tuple[CpuCluster, ...] = ()
    max_frequency_hz: float | None = None
    last_level_cache_bytes: int | None = None
    gemm_fp32_flops: float | None = None
    gemm_int8_ops: float | None = None


class Memory(Part, frozen=True, kw_only=True):
    """Main memory, and how much of it this process may use.

    Attributes
    ----------
    total_bytes, available_bytes, swap_bytes:
        As the kernel counts them for the machine.
    usable_bytes:
        The least of ``total_bytes`` and every memory limit above this process.
    limited_by:
        ``cgroup`` if a limit below ``total_bytes`` is in force, else ``None``.
    used_bytes:
        What is taken of ``usable_bytes`` and cannot be reclaimed at once.
    pressure_share:
        Share of the last 10 s in which some task waited for memory (PSI), 0 to 1.
    bandwidth_peak_bytes_per_s:
        What the memory bus can carry in theory (datasheets only).
    bandwidth_bytes_per_s:
        What is reached: the better of ``copy_bytes_per_s`` and ``triad_bytes_per_s``.
    """

    total_bytes: int | None = None
    usable_bytes: int | None = None
    limited_by: str | None = None
    used_bytes: int | None = None
    available_bytes: int | None = None
    swap_bytes: int | None = None
    pressure_share: float | None = None
    bandwidth_peak_bytes_per_s: float | None = None
    bandwidth_bytes_per_s: float | None = None
    copy_bytes_per_s: float | None = None
    triad_bytes_per_s: float | None = None


class Storage(Part, frozen=True, kw_only=True):
    """The file system that holds ``path``.

    Attributes
    ----------
    medium:
        ``nvme``, ``sd``, ``emmc``, ``disk``, ``memory``, ``virtual`` or ``network``.
    fsync_per_s:
        Writes of 4 KiB made durable one after another, per second.
    fsync_median_s:
        The median time of one of them, in seconds.
    """

    path: str | None = None
    filesystem: str | None = None
    medium: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    fsync_per_s: float | None = None
    fsync_median_s: float | None = None


class Accelerator(Part, frozen=True, kw_only=True):
    """A GPU, NPU, TPU or DSP, and whether Skerry can use it here and now.

    Attributes
    ----------
    nodes:
        Device nodes and sysfs paths by which it was found; empty if only a runtime reports it.
    runtime:
        The runtime that drives it, or would; ``None`` if Skerry knows none.
    usable:
        Whether Skerry has that runtime, and it works here.
    why:
        Why it is not usable, in words; empty if it is.
    memory_bytes:
        Its own memory; ``None`` if it shares the main memory or does not tell.
    int8_ops, fp16_flops:
        Operations per second, dense (without sparsity).
    """

    kind: AcceleratorKind
    name: str
    vendor: str
    nodes: tuple[str, ...] = ()
    runtime: str | None = None
    usable: bool = False
    why: str = ""
    memory_bytes: int | None = None
    int8_ops: float | None = None
    fp16_flops: float | None = None


class TripPoint(Part, frozen=True, kw_only=True):
    """A temperature (degrees Celsius) at which something happens: ``active``, ``passive``, ``hot``, ``critical``."""

    kind: str
    temperature_c: float


class ThermalZone(Part, frozen=True, kw_only=True):
    """A temperature sensor; ``limit_c`` is where slowing down (or, failing that, shutting down) begins."""

    name: str
    temperature_c: float | None = None
    limit_c: float | None = None
    trips: tuple[TripPoint, ...] = ()


class PowerSource(Part, frozen=True, kw_only=True):
    """A mains supply or a battery.

    ``capacity_share`` is the charge, 0 to 1. ``energy_j`` and ``energy_full_j`` are joules. ``power_w`` is what flows
    in or out at this moment, in watts.
    """

    name: str
    kind: PowerKind
    online: bool | None = None
    status: str | None = None
    capacity_share: float | None = None
    energy_j: float | None = None
    energy_full_j: float | None = None
    power_w: float | None = None


class EnergyCounter(Part, frozen=True, kw_only=True):
    """Something that tells how much energy is used.

    Attributes
    ----------
    kind:
        ``rapl`` counts joules; ``ina`` tells watts, which have to be integrated.
    path:
        The file or folder in sysfs.
    whole:
        Whether it belongs to the total: false for a part of what another counter includes.
    readable:
        Whether this process may read it.
    wraps_at_j:
        Where a counter of joules starts again from zero.
    power_w:
        Watts at this moment, for ``ina``.
    """

    name: str
    kind: Literal["rapl", "ina"]
    path: str
    whole: bool = True
    readable: bool = True
    wraps_at_j: float | None = None
    power_w: float | None = None


class Link(Part, frozen=True, kw_only=True):
    """A network interface.

    Attributes
    ----------
    state:
        The kernel's ``operstate``: ``up``, ``down``, ``unknown``, …
    metered:
        Whether traffic costs money, if NetworkManager or the user says so.
    advertised_bits_per_s:
        What the interface claims.
    measured_bits_per_s, round_trip_s:
        Download rate, and the time to open a connection, measured against the user's URL.
    """

    name: str
    kind: LinkKind
    state: str | None = None
    metered: bool | None = None
    advertised_bits_per_s: float | None = None
    measured_bits_per_s: float | None = None
    round_trip_s: float | None = None


class DeviceProfile(Part, frozen=True, kw_only=True):
    """What a machine is and can do: found by ``skerry probe``, or taken from the catalogue.

    Attributes
    ----------
    profile:
        The version of this structure.
    name:
        The board's name, or the catalogue's title.
    origin:
        ``probe`` or ``catalogue``.
    quick:
        True if nothing was measured, only read.
    system, kernel, python:
        ``Linux``, its release, and the version of Python.
    probe_s:
        Seconds that the probe took.
    notes:
        What could not be known, and why.
    """

    profile: Literal[1] = 1
    name: str | None = None
    origin: Literal["probe", "catalogue"] = "probe"
    quick: bool = False
    system: str | None = None
    kernel: str | None = None
    python: str | None = None
    probe_s: float | None = None
    board: Board = Board()
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    storage: Storage = Storage()
    accelerators: tuple[Accelerator, ...] = ()
    thermal: tuple[ThermalZone, ...] = ()
    power: tuple[PowerSource, ...] = ()
    energy: tuple[EnergyCounter, ...] = ()
    links: tuple[Link, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()


class Vitals(Part, frozen=True, kw_only=True):
    """How the machine feels now; what the degrade ladder looks at. ``None``: this machine does not tell.

    Attributes
    ----------
    memory_pressure:
        Share of the usable memory that is taken and cannot be reclaimed at once, 0 to 1: the worst of the machine and
        of every control group above this process. Above 0.9 is trouble.
    memory_stall:
        Share of the last 10 s in which some task waited for memory (PSI), 0 to 1. Above 0.1 is trouble. Some kernels
        do not tell it (by default, a Raspberry Pi's).
    hottest_c, limit_c:
        Of the sensor closest to its limit, or else the hottest: its temperature and that limit, degrees Celsius.
    battery_share:
        Charge of the emptiest battery, 0 to 1; ``None`` without one.
    on_mains:
        Whether a supply from outside is there; ``None`` if nothing tells.
    cpu_load:
        Share of the machine's cores that were busy since the last reading, 0 to 1.
    """

    memory_pressure: float | None = None
    memory_stall: float | None = None
    hottest_c: float | None = None
    limit_c: float | None = None
    battery_share: float | None = None
    on_mains: bool | None = None
    cpu_load: float | None = None
