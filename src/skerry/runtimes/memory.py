"""Resident memory of this process."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path


def resident_bytes() -> int:
    """Return the bytes of main memory that this process holds now (RSS).

    Read from ``/proc/self/statm`` (second field, in pages) where there is one, from ``psutil`` elsewhere.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        import psutil

        return int(psutil.Process().memory_info().rss)
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back_free_memory() -> None:
    """Hand memory that was freed, but is still held by the C library, back to the system.

    With ``malloc_trim`` of glibc; elsewhere nothing happens. After loading MiniLM with ONNX Runtime this frees 30 MB
    of 134 MB (fp32) and 13 MB of 50 MB (int8), left over from reading and rewriting the graph.
    """
    _trim()(0)


_TRIM_BYTES = 8 << 20
"""Free memory at the end of a heap beyond this is given back; glibc starts with 128 kB, which costs page faults."""
_MMAP_BYTES = 32 << 20
"""From this size on memory comes straight from the system and goes straight back: the most that glibc lets one set."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # numbers of <malloc.h>
_USERS_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@functools.cache
def keep_heaps_small() -> None:
    """Let the C library give memory back when models come and go in threads; it counts for the whole process.

    glibc raises its thresholds to twice the largest block ever freed, up to 64 MB, so that the heaps of threads that
    loaded a model keep its room for good: 100 swaps of MiniLM (90 and 23 MB) moved the resident memory of a process
    between 159 and 183 MB; with fixed thresholds it stays at 159 MB. Thresholds from the environment are left alone,
    and so is another C library. See ``mallopt(3)``.
    """
    if any(name in os.environ for name in _USERS_CHOICE):
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return
    set_option(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    set_option(_M_TRIM_THRESHOLD, _TRIM_BYTES)


@functools.cache
def _trim() -> Callable[[int], int]:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return lambda padding: 0
    return lambda padding: int(trim(ctypes.c_size_t(padding)))
