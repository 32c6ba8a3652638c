"""Main memory: what there is, what this process may use of it, and how scarce it is at the moment."""

from __future__ import annotations

import os

from skerry.device.limits import memory_limits, memory_pressure_file, parse_meminfo, parse_pressure
from skerry.device.tree import Tree
from skerry.spec.profile import Memory


def read_memory(tree: Tree) -> Memory:
    """Everything about memory that can be read without measuring (bytes; PSI as a share)."""
    machine = parse_meminfo(tree.text("/proc/meminfo") or "")
    total = machine.get("MemTotal") or _total_by_posix(tree)
    available = machine.get("MemAvailable")
    if total is None:
        tree.note("/proc/meminfo: no MemTotal in it, so the size of the memory is unknown")
    usable, limited_by = total, None
    used = None if total is None or available is None else total - available
    tightest = min(memory_limits(tree), default=None, key=lambda limit: limit.limit_bytes)
    if tightest is not None and (total is None or tightest.limit_bytes < total):
        usable, used, limited_by = tightest.limit_bytes, tightest.used_bytes, "cgroup"
    return Memory(
        total_bytes=total,
        usable_bytes=usable,
        limited_by=limited_by,
        used_bytes=used,
        available_bytes=available,
        swap_bytes=machine.get("SwapTotal"),
        pressure_share=_pressure(tree),
    )


def _total_by_posix(tree: Tree) -> int | None:
    """The size of the memory where there is no ``/proc``, such as macOS."""
    if not tree.real:
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _pressure(tree: Tree) -> float | None:
    path = memory_pressure_file(tree)
    if path is None:
        tree.note("memory pressure: this kernel gives no pressure stall information (boot it with psi=1)")
        return None
    return parse_pressure(tree.text(path) or "")
