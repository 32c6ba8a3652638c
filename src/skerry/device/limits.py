"""Limits: how many cores and how much memory this process may really use.

The least of what the machine has, what the affinity mask allows, and what any control group above us allows.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from skerry.device.cgroup import Group, groups
from skerry.device.cpu import parse_cpu_list
from skerry.device.tree import Tree


class CoreLimit(NamedTuple):
    """Usable cores (maybe a fraction), and what limits them: ``affinity``, ``cpuset``, ``quota`` or ``None``."""

    cores: float | None
    limited_by: str | None


class MemoryLimit(NamedTuple):
    """A limit of a control group and what is used of it, in bytes; ``folder`` is the group's."""

    limit_bytes: int
    used_bytes: int | None
    folder: str


def usable_cores(tree: Tree, online: frozenset[int]) -> CoreLimit:
    """The cores' worth of time that this process may use.

    Parameters
    ----------
    tree:
        The machine.
    online:
        Processors that are switched on.
    """
    if not online:
        count = os.cpu_count() if tree.real else None
        return CoreLimit(None if count is None else float(count), None)
    # In this order the more telling name wins where two limits are equal: an affinity often only mirrors a cpuset.
    candidates: list[tuple[float, str | None]] = [(float(len(online)), None)]
    candidates += [(float(len(cpus & online)), "cpuset") for cpus in _cpusets(tree) if cpus & online]
    allowed = _affinity(tree) & online
    candidates += [(float(len(allowed)), "affinity")] if allowed else []
    candidates += [(quota, "quota") for quota in cpu_quotas(tree)]
    return CoreLimit(*min(candidates, key=lambda candidate: candidate[0]))


def _affinity(tree: Tree) -> frozenset[int]:
    status = tree.text("/proc/self/status", quiet=True) or ""
    found = re.search(r"^Cpus_allowed_list:[ \t]*(\S+)", status, re.MULTILINE)
    return _cpu_list(tree, "/proc/self/status", found[1] if found else "")


def _cpusets(tree: Tree) -> list[frozenset[int]]:
    sets = []
    for group in groups(tree, "cpuset"):
        names = ("cpuset.cpus.effective",) if group.version == 2 else ("cpuset.effective_cpus", "cpuset.cpus")
        for name in names:
            path = f"{group.folder}/{name}"
            sets.append(_cpu_list(tree, path, tree.text(path) or ""))
    return [cpus for cpus in sets if cpus]


def _cpu_list(tree: Tree, path: str, text: str) -> frozenset[int]:
    try:
        return parse_cpu_list(text)
    except ValueError:
        tree.note(f"{path}: not a list of processors: {text[:40]!r}")
        return frozenset()


def cpu_quotas(tree: Tree) -> list[float]:
    """Every CPU quota above this process, in cores."""
    quotas = [_quota_v2(tree, group) if group.version == 2 else _quota_v1(tree, group) for group in groups(tree, "cpu")]
    return [quota for quota in quotas if quota is not None]


def _quota_v2(tree: Tree, group: Group) -> float | None:
    """``cpu.max`` holds ``max 100000`` or ``<quota> <period>``, in microseconds."""
    path = f"{group.folder}/cpu.max"
    text = tree.text(path)
    if text is None or text.split()[0] == "max":
        return None
    found = re.fullmatch(r"(\d{1,18}) (\d{1,18})", text)
    if found and int(found[1]) and int(found[2]):
        return int(found[1]) / int(found[2])
    tree.note(f"{path}: not a quota and a period: {text[:40]!r}")
    return None


def _quota_v1(tree: Tree, group: Group) -> float | None:
    quota = tree.integer(f"{group.folder}/cpu.cfs_quota_us")
    period = tree.integer(f"{group.folder}/cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 and period > 0 else None


def memory_limits(tree: Tree, above: list[Group] | None = None) -> list[MemoryLimit]:
    """Every memory limit above this process; groups without one are left out.

    Parameters
    ----------
    tree:
        The machine.
    above:
        The groups, if the caller has looked for them before.
    """
    found: list[MemoryLimit] = []
    for group in groups(tree, "memory") if above is None else above:
        found += _memory_v2(tree, group.folder) if group.version == 2 else _memory_v1(tree, group.folder)
    return found


def _memory_v2(tree: Tree, folder: str) -> list[MemoryLimit]:
    """``memory.max`` kills, ``memory.high`` slows to a crawl: both end what one can use."""
    limits = [_bytes_or_max(tree, f"{folder}/{name}") for name in ("memory.max", "memory.high")]
    known = [limit for limit in limits if limit is not None]
    used = _working_set(tree, folder, "memory.current", "inactive_file")
    return [MemoryLimit(min(known), used, folder)] if known else []


def _memory_v1(tree: Tree, folder: str) -> list[MemoryLimit]:
    limits = [_bytes_or_max(tree, f"{folder}/memory.limit_in_bytes")]
    # This one also counts ancestors that a container cannot see.
    limits.append(_statistic(tree.text(f"{folder}/memory.stat"), "hierarchical_memory_limit"))
    known = [limit for limit in limits if limit is not None and limit < 1 << 62]  # about 2^63 means: none
    used = _working_set(tree, folder, "memory.usage_in_bytes", "total_inactive_file")
    return [MemoryLimit(min(known), used, folder)] if known else []


def _bytes_or_max(tree: Tree, path: str) -> int | None:
    return None if tree.text(path, quiet=True) == "max" else tree.integer(path)


def _working_set(tree: Tree, folder: str, usage: str, reclaimable: str) -> int | None:
    """What is used without file cache that the kernel can drop at once."""
    used = tree.integer(f"{folder}/{usage}")
    cache = _statistic(tree.text(f"{folder}/memory.stat"), reclaimable)
    return None if used is None else max(0, used - (cache or 0))


def _statistic(text: str | None, name: str) -> int | None:
    """The number in the line ``name <number>``."""
    found = re.search(rf"^{name} (\d{{1,20}})$", text or "", re.MULTILINE)
    return int(found[1]) if found else None


def parse_meminfo(text: str) -> dict[str, int]:
    """Read ``/proc/meminfo``: name to bytes.

    >>> parse_meminfo("MemTotal:  2 kB")
    {'MemTotal': 2048}
    """
    lines = re.findall(r"^(\w+):\s+(\d{1,18}) kB$", text, re.MULTILINE)
    return {name: int(amount) * 1024 for name, amount in lines}


def parse_pressure(text: str) -> float | None:
    """Read a PSI file: the share of the last 10 s in which some task waited, 0 to 1.

    >>> parse_pressure("some avg10=25.00 avg60=0.00 avg300=0.00 total=0")
    0.25
    """
    found = re.search(r"^some avg10=(\d{1,9}(?:\.\d{1,9})?)\b", text, re.MULTILINE)
    return min(1.0, float(found[1]) / 100.0) if found else None


def memory_pressure_file(tree: Tree) -> str | None:
    """The PSI file nearest to this process: its own group's, or the machine's; ``None`` if there is none."""
    own = [f"{group.folder}/memory.pressure" for group in groups(tree, "memory") if group.version == 2]
    for path in [*own, "/proc/pressure/memory"]:
        if parse_pressure(tree.text(path, quiet=True) or "") is not None:
            return path
    return None
