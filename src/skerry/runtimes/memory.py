"""Resident memory of this process."""

from __future__ import annotations

import ctypes
import functools
import io
import os
import re
import sys
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


def unmap_file_pages() -> None:
    """Take pages of files that this process only reads out of its memory: code of libraries, weights, tables.

    Most of a library's code runs once, while it is loaded, and weights that were rewritten are never read again.
    Nothing is lost: the pages stay in the system's cache, which may use their room for something else, and those
    that are needed come back from there, 16 at a time. With a small LiteRT model 43 MB of such pages become 18.

    With ``MADV_DONTNEED`` of ``madvise(2)`` on the mappings of ``/proc/self/maps`` that are of a file, not writable,
    and without a page of our own (as libraries have with relocations), which ``/proc/self/pagemap`` shows.
    Elsewhere than on Linux nothing happens.
    """
    if sys.byteorder != "little":
        return
    try:
        advise = ctypes.CDLL(None).madvise
        mappings = _ONLY_READ.findall(Path("/proc/self/maps").read_bytes())
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pages:
            for first, behind in mappings:
                start, end = int(first, 16), int(behind, 16)
                if not _has_own_pages(pages, start, end):
                    advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
    except (AttributeError, OSError, TypeError):
        return


def _has_own_pages(pages: io.FileIO, start: int, end: int) -> bool:
    """Tell whether a mapping has pages, in memory or swapped out, that are not those of its file."""
    size = os.sysconf("SC_PAGE_SIZE")
    first, behind = start // size * 8, end // size * 8
    pages.seek(first)
    for place in range(first, behind, _PIECE_BYTES):
        wanted = min(_PIECE_BYTES, behind - place)
        entries = pages.read(wanted)
        if len(entries) < wanted or entries[7::8].translate(None, _FILES_PAGES):
            return True
    return False


_ONLY_READ = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r-.[ps] \S+ \S+ [1-9]\d* +/(?!memfd:|dev/|SYSV)[^\n]*(?<!\(deleted\))$", re.MULTILINE
)
"""A mapping in ``proc(5)``'s list that is not writable and of a file on a disk, and not one in memory."""
_FILES_PAGES = bytes(byte for byte in range(256) if not byte & 0xC0 or byte & 0x20)
"""The highest bytes of entries in ``/proc/self/pagemap``, 64 bits each, of pages that are absent or the file's.

Bit 63: in memory, bit 62: swapped out, bit 61: a page of a file.
"""
_PIECE_BYTES = 1 << 18
"""Read of the page map at once: the entries of 128 MB."""
_MADV_DONTNEED = 4  # of <sys/mman.h>

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
