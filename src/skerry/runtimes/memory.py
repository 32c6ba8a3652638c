"""Resident memory of this process."""

from __future__ import annotations

import os
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
