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

        The second and the last fifth of the time are compared at their middle and at their peak, since the ladder
        swaps models and memory goes up and down with them; the larger growth counts.
        """
        before, after = ([sample.rss_mb for sample in self.part(*share)] for share in ((0.2, 0.4), (0.8, 1.0)))
        return max(statistics.median(after) - statistics.median(before), max(after) - max(before))


def rss_mb() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
