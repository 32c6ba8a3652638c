"""The lock on a state folder: one run of a project at a time, whatever became of the last one."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from skerry.spec.errors import StateBusyError, StateUnwritableError

LOCK_FILE = "lock"
_LONGEST_NUMBER = 20  # digits of a process id that are read back; Linux gives at most seven


class StateLock:
    """Holds a state folder, which is made where it is missing, until :meth:`release` or the end of the process.

    Two runs of one project would overwrite each other's positions, and both would write what they read: every line
    would come twice. The lock is a ``flock``, which the kernel takes back from a process that was killed; so the file
    stays, and only tells who held it. Children that are started by ``exec`` do not inherit it.

    Raises
    ------
    StateBusyError
        Another run holds the folder; the message names its process.
    StateUnwritableError
        The folder cannot be made, or not be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / LOCK_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unwritable(error, folder) from error
        # Also closed where nobody releases it, as by an engine that was made and never run.
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = _holder(descriptor)
            self._close()
            raise StateBusyError(
                f"this pipeline runs already, as {holder}",
                where=str(folder),
                expected="one run at a time for each folder and `name`",
                hint="end that run first, or give this pipeline a `name` of its own",
            ) from None
        except OSError as error:
            self._close()
            raise _unwritable(error, folder) from error

    def release(self) -> None:
        """Let the next run in; safe to call twice."""
        self._close()


def _holder(descriptor: int) -> str:
    """Say which process holds the lock, as far as its file tells: it may be about to write it."""
    number = os.pread(descriptor, _LONGEST_NUMBER, 0).decode("ascii", "replace").strip()
    return f"process {number}" if number.isdecimal() else "another process"


def _unwritable(error: OSError, folder: Path) -> StateUnwritableError:
    return StateUnwritableError(
        f"positions and state cannot be kept: {error.strerror or error}",
        where=str(folder),
        expected="a folder that may be written to, on a disk with space left",
        hint="a run keeps what it must remember beside the pipeline file, in .skerry/",
    )
