"""Limits: what a measured child process may use: cores, memory, and its place among other processes.

Memory is limited by a control group where this process may make one, which counts what the budget counts: the memory
that is really held. It works with v2 where the controller is delegated (as systemd does for a user's session) and with
v1 as root. Sources: the kernel's ``cgroup-v1/memory`` and ``cgroup-v2`` documents.

Elsewhere ``RLIMIT_DATA`` limits the private memory that is asked for. Both are there to protect the machine and to end
what could not work; whether a budget is kept is judged by the peak that was measured.
``RLIMIT_AS`` is not used: it also counts what is only reserved (glibc reserves 64 MiB for every thread, a runtime maps
its model file and its libraries), so that a limit near the budget would end sound candidates.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

import msgspec

from skerry.device.cgroup import Group, groups
from skerry.device.cpu import parse_cpu_list
from skerry.device.limits import memory_limits
from skerry.device.tree import Tree
from skerry.spec.errors import SpecError

LEAST_MEMORY = 32 << 20
"""Bytes: less than Python with numpy takes, so that no model at all could be measured."""

_STACK = 8 << 20
"""Bytes that ``RLIMIT_DATA`` counts for a thread's stack, of which a few kilobytes are used."""

_SLACK = 64 << 20
"""Bytes asked for and hardly used by numpy, most of it room for its matrix products. With the stacks this is 112 MiB
for one thread, where ONNX Runtime with MiniLM asked for 50 to 80 MiB more than it held."""

_SPARE_THREADS = 4
"""Threads that a runtime or a library opens beside those that compute."""

_NAME = "skerry-trial"
_LONGEST_REMOVAL_S = 2.0

MemoryBy = Literal["cgroup-v2", "cgroup-v1", "rlimit", "none"]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate may use.

    Parameters
    ----------
    cores:
        How many cores, ``None`` for all that this process may use. The same ones are used by the baseline.
    memory_bytes:
        The most memory of the candidate's process; beyond that it is ended. ``None``: no limit. The baseline is not
        limited: it is the model whose size is the problem.
    niceness:
        Added to this process's own, 0 to 19. The default is 0: a child that gives way to everything else measures
        everything else.

    Raises
    ------
    SpecError
        A limit that cannot be.
    """

    cores: int | None = None
    memory_bytes: int | None = None
    niceness: int = 0

    def __post_init__(self) -> None:
        if self.cores is not None and self.cores < 1:
            raise SpecError(f"{self.cores} cores can measure nothing", expected="1 or more")
        if self.memory_bytes is not None and self.memory_bytes < LEAST_MEMORY:
            raise SpecError(
                f"a limit of {self.memory_bytes} bytes leaves no room for a process",
                expected=f"at least {LEAST_MEMORY >> 20} MiB",
            )
        if not 0 <= self.niceness <= 19:
            raise SpecError(f"a niceness of {self.niceness}", expected="0 to 19")


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What a child does to itself before anything else; an empty ``cores`` and ``None`` leave things as they are."""

    cores: tuple[int, ...] = ()
    data_bytes: int | None = None
    niceness: int = 0

    def apply(self) -> None:
        """Confine the calling process; what the system does not know (macOS has no affinity) is passed over."""
        if self.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)
        if self.niceness:
            os.nice(self.niceness)
        if self.data_bytes is not None:
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            most = self.data_bytes if hard == resource.RLIM_INFINITY else min(self.data_bytes, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def data_limit(memory_bytes: int, threads: int) -> int:
    """Return the ``RLIMIT_DATA`` in bytes that a process with ``memory_bytes`` in use does not meet needlessly."""
    return memory_bytes + _SLACK + _STACK * (threads + _SPARE_THREADS)


def choose_cores(count: int | None, tree: Tree | None = None) -> tuple[int, ...]:
    """Return the processors to pin to: ``count`` of those that this process may use, or none where that is unknown.

    The strongest first (``cpu_capacity`` of big.LITTLE), then one of each physical core before its twin, then the
    highest numbers, since interrupts are usually served by the lowest. All of them when ``count`` is ``None``.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    tree = tree or Tree()
    allowed = os.sched_getaffinity(0)
    ranked = sorted(allowed, key=lambda cpu: (-_capacity(tree, cpu), _twin(tree, cpu), -cpu))
    return tuple(sorted(ranked[:count]))


def _capacity(tree: Tree, cpu: int) -> int:
    return tree.integer(f"/sys/devices/system/cpu/cpu{cpu}/cpu_capacity", quiet=True) or 0


def _twin(tree: Tree, cpu: int) -> int:
    """Return 0 for the first hardware thread of a core, 1 for its twin."""
    text = tree.text(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", quiet=True)
    try:
        return sum(other < cpu for other in parse_cpu_list(text or ""))
    except ValueError:
        return 0


class MemoryGroup:
    """A control group of its own for one child; made by :func:`open_memory_group`, removed by :meth:`close`."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder = folder
        self.by: MemoryBy = "cgroup-v2" if version == 2 else "cgroup-v1"
        self._events = folder / ("memory.events" if version == 2 else "memory.oom_control")

    def entering(self, command: list[str]) -> list[str]:
        """Return the command that enters the group and becomes ``command``, so that all of its memory is counted."""
        script = 'echo 0 > "$1" && shift && exec "$@"'
        return ["/bin/sh", "-c", script, "sh", str(self.folder / "cgroup.procs"), *command]

    def kills(self) -> int:
        """Return how many processes the kernel has ended here for want of memory."""
        try:
            lines = self._events.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def close(self) -> None:
        """End whatever is left in the group and remove it; safe to call twice."""
        deadline = time.monotonic() + _LONGEST_REMOVAL_S
        while self.folder.exists() and time.monotonic() < deadline:
            for process in _members(self.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(OSError):  # busy while the last process is on its way out
                self.folder.rmdir()
                return
            time.sleep(0.01)


def open_memory_group(memory_bytes: int, tree: Tree | None = None) -> MemoryGroup | None:
    """Make a control group that is limited to ``memory_bytes``, or return ``None`` where that is not allowed.

    It is never wider than what limits this process itself.
    """
    tree = tree or Tree()
    above = groups(tree, "memory")
    most = min([memory_bytes, *(limit.limit_bytes for limit in memory_limits(tree, above))])
    for group in above:
        made = _made(tree, group, most)
        if made is not None:
            return made
    return None


_made_so_far = 0


def _made(tree: Tree, group: Group, memory_bytes: int) -> MemoryGroup | None:
    """Make a group below ``group``; ``None`` where the kernel or the owner does not allow it."""
    global _made_so_far  # noqa: PLW0603 - a number for the name, which no two groups of a process may share
    if group.version == 2 and "memory" not in (tree.text(f"{group.folder}/cgroup.subtree_control") or "").split():
        return None
    parent = tree.path(group.folder)
    _sweep(parent)
    _made_so_far += 1
    folder = parent / f"{_NAME}-{os.getpid()}-{_made_so_far}"
    made = MemoryGroup(folder, group.version)
    try:
        folder.mkdir()
        _limit(folder, group.version, memory_bytes)
        entered = subprocess.run(made.entering(["/bin/sh", "-c", ":"]), stderr=subprocess.DEVNULL, check=False)
    except OSError:
        made.close()
        return None
    except BaseException:
        made.close()
        raise
    if entered.returncode:
        made.close()
        return None
    return made


def _limit(folder: Path, version: int, memory_bytes: int) -> None:
    """Write the limit; swap is none of the memory that a budget means, so there is none where that can be said."""
    most, swap = ("memory.max", "memory.swap.max") if version == 2 else (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    )  # fmt: skip
    (folder / most).write_text(str(memory_bytes))
    with contextlib.suppress(OSError):  # a kernel without swap accounting has no such file
        (folder / swap).write_text("0" if version == 2 else str(memory_bytes))
    if version == 2:
        with contextlib.suppress(OSError):  # since Linux 4.19: end all of the group, not one process of it
            (folder / "memory.oom.group").write_text("1")


def _members(folder: Path) -> list[int]:
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text().split() if line != "0"]
    except OSError:
        return []


def _sweep(parent: Path) -> None:
    """Remove groups that were left by a build that was killed."""
    with contextlib.suppress(OSError):
        for left in parent.glob(f"{_NAME}-*"):
            owner = left.name.split("-")[2]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                MemoryGroup(left, 1).close()
