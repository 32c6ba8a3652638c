"""A whole write: bytes that reach a file all together, or not at all."""

from __future__ import annotations

import errno
import os
import select
import stat
import time

from skerry.spec.errors import SinkError, SinkFullError, SinkUnavailableError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sink_error(error: OSError, what: str) -> SinkError:
    """Return the sink error that an ``OSError`` amounts to."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return SinkFullError(f"{what} is full: {reason}", hint="free some space, or limit the sink (rotate, max_size)")
    return SinkUnavailableError(f"{what} refuses: {reason}")


def write_whole(descriptor: int, data: bytes, *, what: str, timeout_s: float = 5.0) -> None:
    """Write all of ``data``; a regular file is cut back to what it was when that fails.

    ``timeout_s`` is how long a reader that takes nothing is waited for on a non-blocking descriptor; what such a
    reader, or one that went away, has already taken cannot be called back.

    Raises
    ------
    SinkFullError
        No space is left.
    SinkUnavailableError
        The file or the reader refuses.
    """
    status = os.fstat(descriptor)
    regular = stat.S_ISREG(status.st_mode)
    view, deadline = memoryview(data), time.monotonic() + timeout_s
    try:
        while view:
            view = view[_write_some(descriptor, view, deadline) :]
    except OSError as error:
        if regular:
            _cut_back(descriptor, status.st_size, len(data) - len(view))
        raise sink_error(error, what) from error


def _write_some(descriptor: int, view: memoryview, deadline: float) -> int:
    try:
        return os.write(descriptor, view)
    except BlockingIOError:
        _, ready, _ = select.select([], [descriptor], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, "its reader takes nothing") from None
        return 0


def _cut_back(descriptor: int, size: int, written: int) -> None:
    """Undo a write that stopped half-way, at the end of the file or where the position was."""
    if written:
        end = os.lseek(descriptor, -written, os.SEEK_CUR)
        if end == size:
            os.ftruncate(descriptor, size)
