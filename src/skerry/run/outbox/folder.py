"""The folder of outboxes: one store for each process that produces, and those that a process left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import weakref
from pathlib import Path

from skerry.spec.errors import OutboxError

_MOST_STORES = 1000  # processes that write into one folder: beyond it something starts them in a loop
SUFFIX = ".db"


class StoreLock:
    """Holds one store file for this process, until :meth:`release` or the end of the process, however that comes.

    The lock is a ``flock`` on a file beside the store. It is none of SQLite's locks, so that others may read.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let the next process have it; safe to call twice."""
        self._close()


def try_lock(path: Path) -> StoreLock | None:
    """Lock a store file, or return ``None`` when another one holds it; raises ``OutboxError`` without the right."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutboxError(
            f"the outbox cannot be locked: {error.strerror or error}",
            where=str(path),
            expected="a folder that may be written to",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.fstat(descriptor).st_ino == lock_file(path).stat().st_ino
    except FileNotFoundError:
        same = False
    except OSError:
        os.close(descriptor)
        return None
    if not same:  # its last holder has removed the store, and the lock with it
        os.close(descriptor)
        return try_lock(path)
    return StoreLock(path, descriptor)


def remove(path: Path) -> None:
    """Remove a store that is locked and closed, the lock last."""
    for part in ("-wal", "-shm", ".ballast", "", ".lock"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + part).unlink(missing_ok=True)


def lock_file(path: Path) -> Path:
    """Return the file that a store is locked by."""
    return path.with_name(path.name + ".lock")


def is_held(path: Path) -> bool:
    """Tell whether a process has the store open, without making a file."""
    try:
        descriptor = os.open(lock_file(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def first_file(path: Path) -> Path:
    """Return the first store file of what was named: a folder's is ``outbox.db``."""
    return path / f"outbox{SUFFIX}" if path.suffix != SUFFIX else path


def claim(path: Path) -> StoreLock:
    """Lock the first store of a family that nobody holds: ``outbox.db``, ``outbox-1.db``, ``outbox-2.db``, …

    Raises ``OutboxError`` without the right to write, or where all of a thousand are taken.
    """
    for number in range(_MOST_STORES):
        lock = try_lock(path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}"))
        if lock is not None:
            return lock
    raise OutboxError(f"{_MOST_STORES} processes have an outbox here", where=str(path.parent))


def family(path: Path) -> list[Path]:
    """Return the store files of a family that exist, the first one first."""
    pattern = re.compile(rf"{re.escape(path.stem)}(?:-(\d+))?{re.escape(path.suffix)}")
    found = []
    for candidate in path.parent.glob(f"{path.stem}*{path.suffix}") if path.parent.is_dir() else ():
        match = pattern.fullmatch(candidate.name)
        if match:
            found.append((int(match[1] or 0), candidate))
    return [candidate for _, candidate in sorted(found)]
