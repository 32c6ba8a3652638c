"""The watcher: takes a sample of the process every so often while a pipeline runs."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from skerry.run.engine import Engine

PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """The process at one moment: memory in MB, open files, threads, the rung of the ladder, and queues by stage."""

    at_s: float
    rss_mb: float
    files: int
    threads: int
    rung: int
    queues: dict[str, tuple[int, int]]


class Watcher:
    """Samples an engine and its process from a thread of its own."""

    def __init__(self, engine: Engine, every_s: float) -> None:
        self.samples: list[Sample] = []
        self._engine = engine
        self._every_s = every_s
        self._ended = threading.Event()
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            summary = self._engine.summary()
            queues = {stage.id: (stage.queue.items, stage.queue.max_items) for stage in summary.stages if stage.queue}
            at_s = time.monotonic() - self._begin
            self.samples.append(Sample(at_s, rss_mb(), open_files(), threading.active_count(), summary.rung, queues))

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join()

    def part(self, begin: float, end: float) -> Sequence[Sample]:
        """Return the samples between two shares (0 to 1) of the time."""
        count = len(self.samples)
        return self.samples[int(begin * count) : int(end * count)] or self.samples[-1:]

    def growth_mb(self) -> float:
        """Return how much memory grew after the warm-up, in MB.

        The median of the last fifth of the time is compared with that of the second, for each rung of the ladder by
        itself, since another model is in memory on each; the largest growth counts.
        """
        early, late = (self._medians(*share) for share in ((0.2, 0.4), (0.8, 1.0)))
        return max((late[rung] - early[rung] for rung in early.keys() & late.keys()), default=0.0)

    def _medians(self, begin: float, end: float) -> dict[int, float]:
        """Return the median of the memory by rung, in MB."""
        by_rung: dict[int, list[float]] = {}
        for sample in self.part(begin, end):
            by_rung.setdefault(sample.rung, []).append(sample.rss_mb)
        return {rung: statistics.median(values) for rung, values in by_rung.items()}


def rss_mb() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
