"""The yardstick: a pipeline as it is usually written by hand, with a thread for each stage and ``queue.Queue`` between.

It does less than the engine: it counts nothing, times nothing, survives no exception and loses what is in its queues.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from skerry.spec.pipeline import Queue

CAPACITY = Queue().items
"""Items that each queue holds: as many as the engine's own by default."""


class QueuePipeline:
    """Threads for ``stages`` and ``take``, joined by queues; whoever calls ``put`` is the source's thread."""

    def __init__(self, stages: Sequence[Callable[[Any], Any]], take: Callable[[Any], object]) -> None:
        self._queues: list[queue.Queue[Any]] = [queue.Queue(CAPACITY) for _ in range(len(stages) + 1)]
        self.put: Callable[[Any], None] = self._queues[0].put
        self._threads = [
            threading.Thread(target=_stage, args=(function, before, after), name="bench-stage", daemon=True)
            for function, before, after in zip(stages, self._queues, self._queues[1:], strict=False)
        ]
        self._threads.append(
            threading.Thread(target=_sink, args=(take, self._queues[-1]), name="bench-sink", daemon=True)
        )
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let everything run empty, and end the threads."""
        self.put(None)
        for thread in self._threads:
            thread.join()


def _stage(function: Callable[[Any], Any], before: queue.Queue[Any], after: queue.Queue[Any]) -> None:
    while (item := before.get()) is not None:
        after.put(function(item))
    after.put(None)


def _sink(take: Callable[[Any], object], before: queue.Queue[Any]) -> None:
    while (item := before.get()) is not None:
        take(item)
