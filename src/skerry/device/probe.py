"""The probe: asks every reader of this room, measures what must be measured, and makes one profile of it.

A reader that fails becomes a note in the profile, never the end of the probe.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from skerry.device import cpu as processor
from skerry.device.accelerators import read_accelerators, reported_devices
from skerry.device.board import read_board
from skerry.device.energy import read_energy
from skerry.device.limits import usable_cores
from skerry.device.links import read_links
from skerry.device.memory import read_memory
from skerry.device.power import read_power
from skerry.device.storage import measure_fsync, read_storage
from skerry.device.thermal import read_thermal
from skerry.device.tree import Tree
from skerry.spec.errors import SkerryError
from skerry.spec.profile import Board, Cpu, DeviceProfile, Measurement, Memory, Storage, unit_of

if TYPE_CHECKING:
    from skerry.device.download import LinkRate

Answer = TypeVar("Answer")


def probe(
    root: Path = Path("/"),
    *,
    quick: bool = False,
    storage: Path | None = None,
    runtimes: Mapping[str, str] | None = None,
    metered: Mapping[str, bool] | None = None,
    link_url: str | None = None,
) -> DeviceProfile:
    """Find out what a machine is and can do.

    Parameters
    ----------
    root:
        The folder that stands for ``/``. For any other than ``/`` nothing is measured and no tool is asked.
    quick:
        Read only; measure nothing and load no inference library. Takes well under a second.
    storage:
        The folder whose file system is looked at; by default the current one.
    runtimes:
        The runtimes that Skerry has: name to ``""`` if usable here, or to the reason why not.
    metered:
        Interface name to whether its traffic costs money, where the user knows better.
    link_url:
        Where to download from to measure the link; ``None``: do not.

    Raises
    ------
    UsageError, DeviceError
        Only for ``link_url``, which the user asked for: it is wrong, or the link cannot be measured.
    """
    started = time.perf_counter()
    tree = Tree(root)
    still = quick or not tree.real
    # First, for a wrong URL should not cost the time of all the rest.
    rate = None if link_url is None else _download(link_url)
    profile = _read(tree, still, storage, runtimes, metered)
    if rate is not None:
        profile = _with_rate(tree, profile, rate)
    if still:
        why = "--quick reads only" if tree.real else f"{root} is another machine's tree"
        tree.note(f"not measured: bandwidth, matrix products, fsync ({why})")
    else:
        profile = _measure(tree, profile)
    name = profile.board.name or profile.cpu.model
    took = time.perf_counter() - started
    return msgspec.structs.replace(profile, name=name, probe_s=round(took, 3), notes=tuple(tree.notes))


def _read(
    tree: Tree,
    still: bool,
    storage: Path | None,
    runtimes: Mapping[str, str] | None,
    metered: Mapping[str, bool] | None,
) -> DeviceProfile:
    """Ask every reader; ``still`` keeps it to what lies in the tree, without starting tools or loading libraries."""
    none: list[dict[str, str]] = []
    cpus = _attempt(tree, "processors", lambda: processor.processors(tree), none)
    board = _attempt(tree, "board", lambda: read_board(tree, cpus), Board())
    return DeviceProfile(
        quick=still,
        system=platform.system() if tree.real else "Linux",
        kernel=platform.release() if tree.real else tree.text("/proc/sys/kernel/osrelease"),
        python=platform.python_version() if tree.real else None,
        board=board,
        cpu=_attempt(tree, "cpu", lambda: _read_cpu(tree, cpus), Cpu()),
        memory=_attempt(tree, "memory", lambda: read_memory(tree), Memory()),
        storage=_attempt(tree, "storage", lambda: _read_storage(tree, storage), Storage()),
        accelerators=_attempt(
            tree,
            "accelerators",
            lambda: read_accelerators(tree, runtimes, None if still else reported_devices(tree)),
            (),
        ),
        thermal=_attempt(tree, "thermal", lambda: read_thermal(tree, board.name), ()),
        power=_attempt(tree, "power", lambda: read_power(tree), ()),
        energy=_attempt(tree, "energy", lambda: read_energy(tree), ()),
        links=_attempt(tree, "links", lambda: read_links(tree, metered, ask_tools=not still), ()),
    )


def _download(url: str) -> LinkRate:
    from skerry.device.download import measure_link  # loads TLS, which nothing else here needs

    return measure_link(url)


def _attempt(tree: Tree, what: str, read: Callable[[], Answer], otherwise: Answer) -> Answer:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  no file of an odd machine may end the probe: it becomes a note
        tree.note(f"{what}: failed: {type(error).__name__}: {error}")
        return otherwise


def _read_cpu(tree: Tree, cpus: list[dict[str, str]]) -> Cpu:
    clusters = processor.clusters(tree, cpus)
    online = processor.online(tree, cpus)
    limit = usable_cores(tree, online)
    clocks = [cluster.max_frequency_hz for cluster in clusters if cluster.max_frequency_hz is not None]
    return Cpu(
        model=processor.model(cpus, clusters),
        vendor=processor.vendor(cpus),
        architecture=processor.architecture(tree, cpus),
        isa=processor.isa(cpus),
        logical_cores=len(online) or (os.cpu_count() if tree.real else None),
        physical_cores=processor.physical_cores(tree, cpus),
        usable_cores=limit.cores,
        limited_by=limit.limited_by,
        clusters=clusters,
        max_frequency_hz=max(clocks, default=None),
        last_level_cache_bytes=processor.last_level_cache_bytes(tree),
    )


def _read_storage(tree: Tree, folder: Path | None) -> Storage:
    if not tree.real and folder is None:
        tree.note("storage: another machine's tree does not tell the size of its disk")
        return Storage()
    return read_storage(tree, (folder or Path.cwd()).absolute())


def _with_rate(tree: Tree, profile: DeviceProfile, rate: LinkRate) -> DeviceProfile:
    """Put a measured download on the link that it went over."""
    place = next((index for index, link in enumerate(profile.links) if link.name == rate.interface), None)
    if place is None:
        tree.note(f"links: measured {rate.bits_per_s:.3g} bit/s, but over which interface is not known")
        return profile
    links = list(profile.links)
    links[place] = msgspec.structs.replace(
        links[place], measured_bits_per_s=rate.bits_per_s, round_trip_s=rate.round_trip_s
    )
    source = f"{rate.bytes_read} bytes downloaded over one connection"
    measurement = _measured(f"links.{place}.measured_bits_per_s", rate.bits_per_s, source)
    return msgspec.structs.replace(profile, links=tuple(links), measurements=(measurement,))


def _measure(tree: Tree, profile: DeviceProfile) -> DeviceProfile:
    """Run every measurement; each that fails leaves a note and its fields ``None``."""
    threads = max(1, math.floor(profile.cpu.usable_cores or 1))
    quota = profile.cpu.limited_by == "quota"
    none: list[Measurement] = []
    memory, bandwidths = _attempt(
        tree, "bandwidth", lambda: _measure_memory(tree, profile, threads, quota), (profile.memory, none)
    )
    cpu, gemms = _measure_cpu(tree, profile.cpu, threads, quota)
    storage, fsyncs = _attempt(tree, "fsync", lambda: _measure_storage(tree, profile.storage), (profile.storage, none))
    return msgspec.structs.replace(
        profile,
        memory=memory,
        cpu=cpu,
        storage=storage,
        measurements=(*profile.measurements, *bandwidths, *gemms, *fsyncs),
    )


def _measured(figure: str, value: float, source: str) -> Measurement:
    return Measurement(figure=figure, value=value, unit=unit_of(figure), how="measured", source=source)


def _measure_memory(tree: Tree, profile: DeviceProfile, threads: int, quota: bool) -> tuple[Memory, list[Measurement]]:
    from skerry.device.bandwidth import array_bytes, measure_bandwidth

    size = array_bytes(profile.cpu.last_level_cache_bytes, profile.memory.usable_bytes)
    if size < 2 * (profile.cpu.last_level_cache_bytes or 0):
        tree.note(
            "memory bandwidth: the arrays that fit into the usable memory are partly cached, so it shows too high"
        )
    seen = measure_bandwidth(size, threads, sustained=quota)
    source = f"STREAM in numpy, 3 arrays of {seen.array_bytes} bytes, {threads} threads, {seen.rounds} rounds or more"
    figures = {
        "bandwidth_bytes_per_s": max(seen.copy_bytes_per_s, seen.triad_bytes_per_s),
        "copy_bytes_per_s": seen.copy_bytes_per_s,
        "triad_bytes_per_s": seen.triad_bytes_per_s,
    }
    memory = msgspec.structs.replace(profile.memory, **figures)
    return memory, [_measured(f"memory.{name}", value, source) for name, value in figures.items()]


def _measure_cpu(tree: Tree, cpu: Cpu, threads: int, quota: bool) -> tuple[Cpu, list[Measurement]]:
    from skerry.device.gemm import GemmRate, measure_fp32, measure_int8

    asked: dict[str, Callable[[], GemmRate]] = {
        "gemm_fp32_flops": lambda: measure_fp32(sustained=quota),
        "gemm_int8_ops": lambda: measure_int8(threads, sustained=quota),
    }
    measurements = []
    for figure, ask in asked.items():
        seen = _measured_gemm(tree, figure, ask)
        if seen is not None:
            cpu = msgspec.structs.replace(cpu, **{figure: seen.ops_per_s})
            source = f"{seen.engine}, square matrices of {seen.side}, {seen.rounds} rounds"
            measurements.append(_measured(f"cpu.{figure}", seen.ops_per_s, source))
    return cpu, measurements


def _measured_gemm(tree: Tree, figure: str, ask: Callable[[], Answer]) -> Answer | None:
    """A rate, or ``None`` and a note: an error of ours speaks for itself, others are named by their class."""
    try:
        return ask()
    except SkerryError as error:
        tree.note(f"cpu.{figure}: {error.message} ({error.hint})")
    except Exception as error:  # noqa: BLE001  a library that crashes on this machine must not end the probe
        tree.note(f"cpu.{figure}: failed: {type(error).__name__}: {error}")
    return None


def _measure_storage(tree: Tree, storage: Storage) -> tuple[Storage, list[Measurement]]:
    if storage.path is None:
        return storage, []
    if storage.medium == "memory":
        tree.note(f"storage: {storage.path} is in memory; its fsync rate says nothing about a disk")
    seen = measure_fsync(Path(storage.path))
    source = f"{seen.writes} writes of 4096 bytes in place, each made durable before the next"
    figures = {"fsync_per_s": seen.per_s, "fsync_median_s": seen.median_s}
    known = msgspec.structs.replace(storage, **figures)
    return known, [_measured(f"storage.{name}", value, source) for name, value in figures.items()]
