"""Rotation: where a log's older lines are after its file was renamed, or copied and cut to nothing."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

PREFIX = 256
"""Bytes at the beginning of a file that tell it from others: more than a time and a message, less than a block."""

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4"})
_NUMBERED = re.compile(r"\.(\d{1,4})")
_DATED = re.compile(r"[-.]\d{6,}[\d.T_-]*")


class Mark(msgspec.Struct, frozen=True):
    """A place in a log: which file, known by its inode and its first bytes, and how far, in bytes."""

    inode: int
    offset: int
    fingerprint: str

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"inode": self.inode, "offset": self.offset, "fingerprint": self.fingerprint}


def fingerprint(prefix: bytes) -> str:
    """Return how long ``prefix`` is and a short digest of it, such as ``256:1f40fc92da241694``."""
    return f"{len(prefix)}:{hashlib.blake2b(prefix, digest_size=8).hexdigest()}"


def carries(descriptor: int, mark: Mark) -> bool:
    """Tell whether the open file begins as the marked one did and reaches as far."""
    length = int(mark.fingerprint.partition(":")[0])
    prefix = os.pread(descriptor, length, 0)
    return fingerprint(prefix) == mark.fingerprint and os.fstat(descriptor).st_size >= mark.offset


def is_generation(path: Path, of: Path) -> bool:
    """Tell whether ``path`` is named as an older generation of the log ``of`` (``x.1``, ``x-20261122``)."""
    if path.parent != of.parent or not path.name.startswith(of.name) or path == of:
        return False
    rest = path.name[len(of.name) :]
    return bool(_NUMBERED.fullmatch(rest) or _DATED.fullmatch(rest))


def generations(path: Path) -> list[Path]:
    """Return the readable older generations that lie beside a log, the oldest first."""
    try:
        beside = [other for other in path.parent.iterdir() if is_generation(other, path)]
    except OSError:
        return []
    return sorted(beside, key=lambda other: _age(other.name[len(path.name) :]))


def _age(suffix: str) -> tuple[int, int, str]:
    """Order suffixes by age: dates count up, and numbers count down to the newest, ``.1``."""
    numbered = _NUMBERED.fullmatch(suffix)
    return (1, -int(numbered[1]), "") if numbered else (0, 0, suffix)


def find(mark: Mark, candidates: list[Path]) -> Path | None:
    """Return the file of ``candidates`` (oldest first) that holds the marked place.

    The same inode is the file itself, renamed; else the newest one that begins the same, is long enough and has a
    line end at the place is a copy of it.
    """
    copy = None
    for path in candidates:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            if not carries(descriptor, mark):
                continue
            if os.fstat(descriptor).st_ino == mark.inode:
                return path
            if _ends_line(descriptor, mark.offset) and not mark.fingerprint.startswith("0:"):
                copy = path
        finally:
            os.close(descriptor)
    return copy


def _ends_line(descriptor: int, offset: int) -> bool:
    return offset == 0 or os.pread(descriptor, 1, offset - 1) == b"\n"
