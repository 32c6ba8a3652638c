"""A shadow: a variant that answers beside the one in use, to be compared with it; its answers go nowhere else."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from skerry.spec.errors import SkerryError
from skerry.spec.ports import Array

QUEUE_ITEMS = 64
"""How many texts may wait for the shadow; more are dropped and counted, so that it never holds memory or the answer.

64 log lines are some 10 kB of text and 100 kB of vectors.
"""

NICENESS = 10
"""How far the shadow's thread gives way to the others (``nice``); on Linux this is possible for one thread."""

log = logging.getLogger(__name__)


class Embeds(Protocol):
    """What can answer in the shadow."""

    def embed(self, texts: Sequence[str]) -> Array:
        """Return one vector per text."""

    def close(self) -> None:
        """Free the model."""


class Shadow:
    """Compares a share of the answers with those of another variant, in a thread of its own.

    Parameters
    ----------
    share:
        From 0 to 1: item number k (from 0) is taken when ``floor((k + 1) * share) > floor(k * share)``, which spreads
        the taken ones evenly and takes the same ones in every run.
    load:
        Loads and warms up the other variant; called in the shadow's thread when the first item comes.
    """

    def __init__(self, share: float, load: Callable[[], Embeds]) -> None:
        self.share = share
        self.items = 0
        self.dropped = 0
        self.failed = 0
        self._agreement = 0.0
        self._seen = 0
        self._load = load
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._closed = False

    @property
    def agreement(self) -> float | None:
        """The mean cosine between the two variants' vectors; ``None`` before the first comparison."""
        return self._agreement / self.items if self.items else None

    def offer(self, texts: Sequence[str], vectors: Array) -> None:
        """Take the share of these answers; never waits. ``vectors`` is float of shape (len(texts), dimension)."""
        with self._lock:
            first, self._seen = self._seen, self._seen + len(texts)
            if self._closed or math.floor(self._seen * self.share) == math.floor(first * self.share):
                return
            if self._worker is None:
                self._worker = _Worker(self._load, self._compare)
            worker = self._worker
        for place, text in enumerate(texts):
            number = first + place
            if math.floor((number + 1) * self.share) > math.floor(number * self.share):
                dropped = not worker.offer(text, vectors[place].copy())
                self.dropped += dropped

    def rest(self) -> None:
        """Free the model until the next item; what waits is not compared, the counts stay."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def close(self) -> None:
        """Free the model for good; safe to call twice."""
        self._closed = True
        self.rest()

    def _compare(self, model: Embeds, text: str, vector: Array) -> None:
        try:
            cosine = _cosine(vector, model.embed([text])[0])
        except SkerryError as error:
            self.failed += 1
            log.warning("the shadow variant failed: %s", error)
            return
        with self._lock:
            self._agreement += cosine
            self.items += 1


class _Worker:
    """The thread that holds the other variant, and the items that wait for it."""

    def __init__(self, load: Callable[[], Embeds], compare: Callable[[Embeds, str, Array], None]) -> None:
        self._load = load
        self._compare = compare
        self._queue: queue.Queue[tuple[str, Array] | None] = queue.Queue(QUEUE_ITEMS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="skerry-shadow", daemon=True)
        self._thread.start()

    def offer(self, text: str, vector: Array) -> bool:
        """Take an item, or tell that there is no room."""
        try:
            self._queue.put_nowait((text, vector))
        except queue.Full:
            return False
        return True

    def end(self) -> None:
        """End after the item at work, and wait for that."""
        self._ended.set()
        with contextlib.suppress(queue.Full):  # a full queue wakes the thread by itself
            self._queue.put_nowait(None)
        self._thread.join()

    def _work(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            model = self._load()
        except SkerryError as error:
            # The answer in use does not depend on its shadow: say it, and let its items count as dropped.
            log.warning("the shadow variant cannot be loaded: %s", error)
            return
        try:
            while (item := self._queue.get()) is not None and not self._ended.is_set():
                self._compare(model, *item)
        finally:
            model.close()


def _cosine(one: Any, other: Any) -> float:
    """Return the cosine of two vectors of shape (dimension,); 1 for two zeros, 0 for one."""
    lengths = math.sqrt(float(one @ one) * float(other @ other))
    if not lengths:
        return 1.0 if float(one @ one) == float(other @ other) else 0.0
    return float(one @ other) / lengths
