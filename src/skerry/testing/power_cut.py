"""A power cut: a file layer for SQLite that forgets, tears and reorders what was not synced when the power fails.

Files are real ones in a folder, written to through SQLite's own layer; beside them is kept what a disk would be bound
to have. At a cut, the folder is replaced by one that such a disk could hold: all that was synced, and of the rest any
selection, in any order, each write whole, cut off at a sector or with single sectors missing.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
"""Bytes that a disk writes whole; modern ones promise 4096, older ones and cards do not."""
_FATES = ("gone", "whole", "whole", "cut", "holes")


class Disk:
    """What a file holds for sure, and what was written since its last sync."""

    def __init__(self, content: bytes) -> None:
        self.synced = bytearray(content)
        self.unsynced: list[tuple[int, bytes | None]] = []
        """Offset and data of each write; no data for a truncation to that length."""

    def sync(self) -> None:
        """Make everything certain."""
        for offset, data in self.unsynced:
            _apply(self.synced, offset, data)
        self.unsynced.clear()

    def after_cut(self, chance: random.Random) -> bytes:
        """Return what the file could hold after a power cut now."""
        content = bytearray(self.synced)
        fates = [(write, chance.choice(_FATES)) for write in self.unsynced]
        if chance.random() < 0.5:
            chance.shuffle(fates)
        for (offset, data), fate in fates:
            if fate == "gone":
                continue
            if data is None or fate == "whole":
                _apply(content, offset, data)
            else:
                _apply_torn(content, offset, data, fate, chance)
        return bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, offset: int, data: bytes, fate: str, chance: random.Random) -> None:
    """Write sectors of the data: the first ones, or any."""
    edges = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
    sectors = list(itertools.pairwise(edges))
    kept = sectors[: chance.randrange(len(sectors))] if fate == "cut" else [s for s in sectors if chance.random() < 0.5]
    for start, end in kept:
        _apply(content, offset + start, data[start:end])


class PowerCutVfs(apsw.VFS):
    """The file layer; its ``name`` is what a store is opened with.

    Parameters
    ----------
    folder:
        Where the files are; what lies there now is taken as certain.
    seed:
        Of the choice of what survives.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.name = f"power-cut-{id(self)}"
        self._chance = random.Random(seed)
        self._disks: dict[int, Disk] = {}
        self._left: int | None = None
        self.operations = 0
        """How many writes, syncs and the like there were since the power came on."""
        super().__init__(self.name, base="")

    @property
    def is_off(self) -> bool:
        """Whether the power has failed."""
        return self._left is not None and self._left < 0

    def cut_after(self, operations: int) -> None:
        """Let the power fail after so many more operations."""
        self._left = operations

    def step(self) -> None:
        """Count an operation; raises ``apsw.IOError`` once the power has failed."""
        self.operations += 1
        if self._left is not None:
            self._left -= 1
        if self.is_off:
            raise apsw.IOError("the power is off")

    def disk_of(self, path: str) -> Disk:
        """Return what is known of a file; one that is met for the first time is certain as it is."""
        inode = Path(path).stat().st_ino
        if inode not in self._disks:
            self._disks[inode] = Disk(Path(path).read_bytes())
        return self._disks[inode]

    def restore(self, folder: Path) -> None:
        """Fill a folder with what the disk could hold after a cut at this moment, and go on there with power."""
        folder.mkdir(parents=True)
        for path in sorted(self.folder.iterdir()):
            if path.name.endswith("-shm"):
                continue  # memory that is shared between processes: nothing of it outlives them
            disk = self._disks.get(path.stat().st_ino)
            if disk is None:
                shutil.copy(path, folder / path.name)
            else:
                (folder / path.name).write_bytes(disk.after_cut(self._chance))
        shutil.rmtree(self.folder)
        self.folder, self._left, self.operations = folder, None, 0
        self._disks.clear()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - the name that apsw calls
        """Open a file through SQLite's own layer."""
        if self.is_off:
            raise apsw.CantOpenError("the power is off")
        return PowerCutFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete a file, for certain."""
        self.step()
        self._disks.pop(os.stat(filename).st_ino if os.path.exists(filename) else -1, None)  # noqa: PTH110, PTH116
        super().xDelete(filename, syncdir)


class PowerCutFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, layer: PowerCutVfs, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._layer = layer
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = layer.disk_of(path) if path else Disk(b"")

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        """Write, uncertain until the next sync; the write that the power fails in may still arrive."""
        content = bytes(data)
        if not self._layer.is_off:
            self._disk.unsynced.append((offset, content))
        self._layer.step()
        super().xWrite(content, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut the file short, uncertain until the next sync."""
        if not self._layer.is_off:
            self._disk.unsynced.append((newsize, None))
        self._layer.step()
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Make certain what was written."""
        self._layer.step()
        self._disk.sync()  # the real disk is spared: only this one counts
