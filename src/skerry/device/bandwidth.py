"""Memory bandwidth, measured: the copy and triad kernels of STREAM, in numpy, on all usable cores.

Method: J. D. McCalpin, "STREAM: Sustainable Memory Bandwidth in High Performance Computers", University of Virginia.
Bytes are counted as STREAM does: what the program reads plus what it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from skerry.device.stopwatch import Rounds, time_rounds

_BLOCK = 16_384  # float64 elements, 128 KiB: the triad's intermediate result stays in the second-level cache


class Bandwidth(NamedTuple):
    """Bytes per second for copy and triad, the bytes of one array, the threads, and the rounds of each."""

    copy_bytes_per_s: float
    triad_bytes_per_s: float
    array_bytes: int
    threads: int
    rounds: int


def array_bytes(cache_bytes: int | None, usable_bytes: int | None) -> int:
    """The size of each of the three arrays: far above the cache, far below the memory.

    Four times the last cache (STREAM's rule), at least 32 MiB and at most 256 MiB, and never more than a sixteenth of
    the usable memory, so that measuring cannot get a small device into trouble.
    """
    wanted = min(max(4 * (cache_bytes or 0), 32 << 20), 256 << 20)
    return max(1 << 20, min(wanted, (usable_bytes or wanted * 16) // 16))


def measure_bandwidth(size_bytes: int, threads: int, *, limit_s: float = 0.5, sustained: bool = False) -> Bandwidth:
    """Copy and add arrays for ``limit_s`` seconds each; the best round counts, as in STREAM.

    Parameters
    ----------
    size_bytes:
        Bytes of each of three float64 arrays.
    threads:
        Threads, each on its own part; numpy lets go of the interpreter lock in these loops.
    limit_s:
        Seconds for each kernel.
    sustained:
        See ``time_rounds``.

    Raises
    ------
    MemoryError
        The arrays do not fit.
    """
    import numpy as np

    count = max(_BLOCK, size_bytes // 8)
    bounds = [count * index // threads for index in range(threads + 1)]
    parts = [tuple(np.full(stop - start, fill) for fill in (0.0, 1.0, 2.0)) for start, stop in pairwise(bounds)]

    def copy(part: int) -> None:
        a, b, _ = parts[part]
        np.copyto(a, b)

    def triad(part: int) -> None:
        a, b, c = parts[part]
        for start in range(0, len(a), _BLOCK):
            piece = slice(start, start + _BLOCK)
            np.multiply(c[piece], 3.0, out=a[piece])
            np.add(a[piece], b[piece], out=a[piece])

    with ThreadPoolExecutor(threads) as pool:

        def everywhere(kernel: Callable[[int], None]) -> Rounds:
            work = partial(_on_all_parts, pool, kernel, threads)
            return time_rounds(work, limit_s=limit_s, sustained=sustained)

        copies, triads = everywhere(copy), everywhere(triad)
    rounds = min(copies.times, triads.times)
    return Bandwidth(16 * count / copies.seconds, 24 * count / triads.seconds, 8 * count, threads, rounds)


def _on_all_parts(pool: ThreadPoolExecutor, kernel: Callable[[int], None], threads: int) -> None:
    """One round: each thread runs the kernel on its part, and the last one to end ends the round."""
    list(pool.map(kernel, range(threads)))
