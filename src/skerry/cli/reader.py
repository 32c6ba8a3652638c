"""The reader of stdout: whether somebody is still there to take what a run prints."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import threading
from collections.abc import Callable, Iterator

_STDOUT = 1
_GLANCE_MS = 200  # how long the thread takes to notice that it is not needed any more


@contextlib.contextmanager
def watched_reader(gone: Callable[[], None]) -> Iterator[None]:
    """Call ``gone`` once, from another thread, when the reader of a pipe on stdout goes away, as ``head`` does.

    A run would notice with its next record only, and a quiet log may not give one for hours.
    """
    if not _is_pipe():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over, gone), name="skerry-reader", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_pipe() -> bool:
    try:
        mode = os.fstat(_STDOUT).st_mode
    except OSError:  # there is no stdout
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _watch(over: threading.Event, gone: Callable[[], None]) -> None:
    poll = select.poll()
    poll.register(_STDOUT, 0)  # errors and hang-ups are reported without being asked for
    while not over.is_set():
        if poll.poll(_GLANCE_MS):
            gone()
            return
