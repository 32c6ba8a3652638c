"""The processor: its name, its cores, and the instruction sets that decide how fast a model runs.

Sources: ``/proc/cpuinfo`` and ``/sys/devices/system/cpu``. Flag names are the kernel's (x86: ``cpufeatures.h``; Arm:
the hwcap names), except that Arm's are spelled as people say them: ``asimd`` is ``neon``, ``asimddp`` is ``dotprod``.
"""

from __future__ import annotations

import platform
from collections import Counter

from skerry.device.arm import IMPLEMENTERS, core_name
from skerry.device.tree import Tree
from skerry.spec.profile import CpuCluster

_CPUS = "/sys/devices/system/cpu"

# What a kernel calls an instruction set, and what we call it. Left out: all that no inference kernel asks for.
ISA_NAMES = {
    "sse4_2": "sse4_2", "avx": "avx", "avx2": "avx2", "fma": "fma", "f16c": "f16c",
    "avx_vnni": "avx_vnni", "avx_vnni_int8": "avx_vnni_int8", "avx_ifma": "avx_ifma",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512vl": "avx512vl", "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16", "avx512_fp16": "avx512_fp16",
    "amx_tile": "amx_tile", "amx_int8": "amx_int8", "amx_bf16": "amx_bf16", "amx_fp16": "amx_fp16",
    "neon": "neon", "asimd": "neon", "asimddp": "dotprod", "asimdhp": "fp16", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve", "sve2": "sve2", "svei8mm": "svei8mm", "svebf16": "svebf16", "sme": "sme", "sme2": "sme2",
}  # fmt: skip


def parse_cpuinfo(text: str) -> list[dict[str, str]]:
    """Split ``/proc/cpuinfo`` into blocks of fields; each processor is a block that has ``processor``."""
    blocks: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if not line.strip():
            blocks.append({})
        elif colon:
            blocks[-1][key.strip()] = value.strip()
    return [block for block in blocks if block]


def parse_cpu_list(text: str) -> frozenset[int]:
    """Read the kernel's list format.

    >>> sorted(parse_cpu_list("0-2,7"))
    [0, 1, 2, 7]

    Raises
    ------
    ValueError
        It is not in that format.
    """
    cpus: set[int] = set()
    for span in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = span.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < 1 << 16:  # no kernel is built for more
            raise ValueError(f"not a list of processors: {span!r}")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


def processors(tree: Tree) -> list[dict[str, str]]:
    """The blocks of ``/proc/cpuinfo`` that are processors."""
    blocks = parse_cpuinfo(tree.text("/proc/cpuinfo") or "")
    found = [block for block in blocks if _is_number(block.get("processor", ""))]
    if not found:
        tree.note("/proc/cpuinfo: no processor in it, so the processor and its instruction sets are unknown")
    return found


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10


def isa(cpus: list[dict[str, str]]) -> tuple[str, ...]:
    """The instruction sets that all cores have: a model may run on any of them."""
    sets = [{ISA_NAMES[flag] for flag in _flags(cpu) if flag in ISA_NAMES} | _riscv_vector(cpu) for cpu in cpus]
    return tuple(sorted(frozenset.intersection(*map(frozenset, sets)))) if sets else ()


def _flags(cpu: dict[str, str]) -> list[str]:
    return (cpu.get("flags") or cpu.get("Features") or "").lower().split()


def _riscv_vector(cpu: dict[str, str]) -> set[str]:
    """RISC-V tells its extensions as ``rv64imafdcv_zicsr…``; ``v`` is the vector unit."""
    base = cpu.get("isa", "").lower().partition("_")[0]
    return {"rvv"} if base.startswith("rv") and "v" in base[4:] else set()


def architecture(tree: Tree, cpus: list[dict[str, str]]) -> str | None:
    """The name as ``uname -m`` has it; for a foreign tree, from what ``/proc/cpuinfo`` shows."""
    if tree.real:
        return platform.machine() or None
    if not cpus:
        return None
    first = cpus[0]
    if "flags" in first:
        return "x86_64" if "lm" in _flags(first) else "i686"
    if "isa" in first:
        return "riscv64" if first["isa"].startswith("rv64") else "riscv32"
    if "Features" in first:
        return "aarch64" if "asimd" in _flags(first) else "armv7l"
    return None


def vendor(cpus: list[dict[str, str]]) -> str | None:
    """Who designed the cores."""
    if not cpus:
        return None
    named = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD"}
    maker = cpus[0].get("vendor_id")
    if maker:
        return named.get(maker, maker)
    number = _hexadecimal(cpus[0].get("CPU implementer"))
    return None if number is None else IMPLEMENTERS.get(number)


def _hexadecimal(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


def core_model(cpu: dict[str, str]) -> str | None:
    """The name of one core: Arm's from its part number, others as the kernel spells it."""
    implementer, part = _hexadecimal(cpu.get("CPU implementer")), _hexadecimal(cpu.get("CPU part"))
    if implementer is not None and part is not None:
        return core_name(implementer, part)
    return cpu.get("model name") or cpu.get("uarch") or cpu.get("cpu model")


def clusters(tree: Tree, cpus: list[dict[str, str]]) -> tuple[CpuCluster, ...]:
    """Cores of one model and one top clock belong together; the fastest clusters come first."""
    counted: Counter[tuple[str, float]] = Counter()
    for cpu in cpus:
        counted[core_model(cpu) or "unknown", max_frequency_hz(tree, int(cpu["processor"])) or 0.0] += 1
    fastest_first = sorted(counted.items(), key=lambda item: -item[0][1])
    return tuple(
        CpuCluster(model=model, cores=cores, max_frequency_hz=clock or None) for (model, clock), cores in fastest_first
    )


def max_frequency_hz(tree: Tree, cpu: int) -> float | None:
    """The highest clock that the governor may set (the kernel tells kilohertz)."""
    return tree.scaled(f"{_CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq", 1e3)


def model(cpus: list[dict[str, str]], found: tuple[CpuCluster, ...]) -> str | None:
    """A name for people: the kernel's, or the clusters put together."""
    if cpus and cpus[0].get("model name") and "CPU part" not in cpus[0]:
        return cpus[0]["model name"]
    known = [cluster for cluster in found if cluster.model != "unknown"]
    return " + ".join(f"{cluster.cores}x {cluster.model}" for cluster in known) or None


def physical_cores(tree: Tree, cpus: list[dict[str, str]]) -> int | None:
    """Cores without hyper-threads; ``None`` if neither cpuinfo nor sysfs tells the topology."""
    seen: set[tuple[object, object]] = set()
    for cpu in cpus:
        folder = f"{_CPUS}/cpu{cpu['processor']}/topology"
        package = cpu.get("physical id") or tree.text(f"{folder}/physical_package_id")
        # On a big.LITTLE chip core_id may start anew in each cluster; cluster_id keeps them apart.
        cluster = tree.text(f"{folder}/cluster_id")
        core = cpu.get("core id") or tree.text(f"{folder}/core_id")
        if core is None:
            return None
        seen.add(((package, cluster), core))
    return len(seen) or None


def last_level_cache_bytes(tree: Tree) -> int | None:
    """The largest data cache that the first core sees."""
    folder = f"{_CPUS}/cpu0/cache"
    sizes = [tree.text(f"{folder}/{name}/size") for name in tree.names(folder) if name.startswith("index")]
    return max(filter(None, map(_kilobytes, sizes)), default=None)


def _kilobytes(text: str | None) -> int | None:
    """Read sysfs' cache sizes: ``1024K``."""
    if text is None or not text.endswith("K") or not _is_number(text[:-1]):
        return None
    return int(text[:-1]) * 1024


def online(tree: Tree, cpus: list[dict[str, str]]) -> frozenset[int]:
    """The numbers of the processors that are switched on."""
    text = tree.text(f"{_CPUS}/online")
    try:
        listed = parse_cpu_list(text or "")
    except ValueError as error:
        tree.note(f"{_CPUS}/online: {error}")
        listed = frozenset()
    return listed or frozenset(int(cpu["processor"]) for cpu in cpus)
