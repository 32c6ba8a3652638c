"""Slices: a large request, a part at a time, so that others are answered in between.

Two thousand texts in one run would hold everybody up for seconds, and could not be given up. So the next slice is
queued when the one before was answered, behind whatever came meanwhile. Texts are sorted by length first: those of one
length share a batch without padding, as they would if all were run at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from skerry.run.serve.job import Job
from skerry.run.serve.refusal import Refusal
from skerry.run.serve.servable import Outputs
from skerry.run.serve.texts import INPUT

ROWS = 64
"""Texts of a slice: beyond as many at once, batches of one length gain nothing (the table in ``run/buckets.py``)."""


class Slices:
    """One large request of texts.

    Parameters
    ----------
    job:
        The request; it may be settled by others meanwhile, and no slice follows then.
    put:
        Queues a slice.
    finish:
        Settles the request.
    """

    def __init__(self, job: Job, put: Callable[[Job], None], finish: Callable[[Job, Refusal | None], None]) -> None:
        texts = job.inputs[INPUT].tolist()
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        self._job = job
        self._put = put
        self._finish = finish
        self._parts = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        self._place = 0
        self._found: Outputs = {}

    @property
    def coming_rows(self) -> int:
        """How many texts were not queued yet."""
        return sum(len(part) for part in self._parts[self._place + 1 :])

    def put_next(self) -> None:
        """Queue the next slice."""
        job, part = self._job, self._parts[self._place]
        piece = Job({INPUT: job.inputs[INPUT][part]}, job.wanted, time.monotonic(), self._done)
        piece.rows, piece.group, piece.parent = len(part), job.group, job
        self._put(piece)

    def _done(self, piece: Job) -> None:
        """Keep what a slice gave, and go on or settle the request."""
        job = self._job
        if job.is_settled:
            return
        if piece.refusal is not None:
            self._finish(job, piece.refusal)
            return
        self._keep(piece.outputs)
        self._place += 1
        if self._place < len(self._parts):
            self.put_next()
        else:
            job.outputs = self._found
            self._finish(job, None)

    def _keep(self, outputs: Outputs) -> None:
        import numpy as np

        part: Any = self._parts[self._place]
        for name, array in outputs.items():
            if name not in self._found:
                self._found[name] = np.empty((self._job.rows, *array.shape[1:]), dtype=array.dtype)
            self._found[name][part] = array
