"""Storage: the file system that holds the data, and how often per second it makes a write durable."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from skerry.device.tree import Tree
from skerry.spec.profile import Storage

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "virtiofs")
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


def read_storage(tree: Tree, folder: Path) -> Storage:
    """Describe the file system of ``folder`` (sizes in bytes; free is what an ordinary user may still take)."""
    filesystem, device = _mount_of(tree, folder)
    total: int | None = None
    free: int | None = None
    try:
        sizes = os.statvfs(folder)
        total, free = sizes.f_blocks * sizes.f_frsize, sizes.f_bavail * sizes.f_frsize
    except OSError as error:
        tree.note(f"storage: {folder}: {error.strerror}")
    return Storage(
        path=str(folder),
        filesystem=filesystem,
        medium=_medium(tree, filesystem, device),
        total_bytes=total,
        free_bytes=free,
    )


def _mount_of(tree: Tree, folder: Path) -> tuple[str | None, str | None]:
    """The type of the file system and its device: of the mounts above ``folder``, the deepest and latest."""
    place, best = str(folder.absolute()), ("", None, None)
    found: tuple[str, str | None, str | None] = best
    for line in (tree.text("/proc/self/mountinfo", quiet=True) or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 2:
            continue
        point = fields[4].rstrip("/")
        if (place == point or place.startswith(point + "/")) and len(point) >= len(found[0]):
            found = (point, kind[0], kind[1])
    return found[1], found[2]


def _medium(tree: Tree, filesystem: str | None, device: str | None) -> str | None:
    if filesystem in _MEMORY:
        return "memory"
    if filesystem in _NETWORK:
        return "network"
    name = (device or "").removeprefix("/dev/")
    if name.startswith("mmcblk"):
        kind = tree.text(f"/sys/block/{name.partition('p')[0]}/device/type", quiet=True)
        return "sd" if kind == "SD" else "emmc"
    by_prefix = (("nvme", "nvme"), ("vd", "virtual"), ("xvd", "virtual"), ("sd", "disk"))
    return next((medium for prefix, medium in by_prefix if name.startswith(prefix)), None)


class FsyncRate(NamedTuple):
    """Durable writes: how many per second one after another, the median time of one in seconds, and how many."""

    per_s: float
    median_s: float
    writes: int


def measure_fsync(folder: Path, *, limit_s: float = 1.0, most: int = 400, block_bytes: int = 4096) -> FsyncRate:
    """Write and fsync small blocks, one after another, in a temporary file that is removed at the end.

    The block is overwritten in place, as a database does with its log, so that the file's size is not part of it.

    Parameters
    ----------
    folder:
        Where to write.
    limit_s:
        Seconds after which to stop.
    most:
        Writes after which to stop: flash wears.
    block_bytes:
        Bytes per write; 4096 is the page of SQLite and of most file systems.

    Raises
    ------
    OSError
        It cannot be written there.
    """
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        number, end = file.fileno(), time.perf_counter() + limit_s
        os.pwrite(number, b"\0" * block_bytes, 0)
        os.fsync(number)
        while len(times) < most and time.perf_counter() < end:
            block = len(times).to_bytes(8, "little") * (block_bytes // 8)
            started = time.perf_counter()
            os.pwrite(number, block, 0)
            os.fsync(number)
            times.append(time.perf_counter() - started)
    return FsyncRate(len(times) / sum(times), statistics.median(times), len(times))
