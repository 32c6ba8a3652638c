"""The batcher: a bounded queue before a model, and the thread that answers what is in it.

A run takes what is queued when it begins; nobody waits for it to fill (docs/decisions/0002). So a lone request pays
for one hand-over to the thread and one back, and batches grow exactly when the model does not keep up.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Any

from skerry.run.serve.job import Job
from skerry.run.serve.refusal import Refusal, refusal_of
from skerry.run.serve.servable import Servable
from skerry.run.serve.slices import ROWS, Slices
from skerry.run.serve.tally import Gauges, ModelTally


class Batcher:
    """A model's queue and its thread. All methods but those of the thread are called by the server's loop.

    Parameters
    ----------
    servable:
        The model; closed with this.
    loop:
        The loop that answers are handed to.
    max_batch, limit:
        The most rows of a run, and of the queue.
    max_rows:
        The most rows of one request.
    """

    def __init__(
        self, servable: Servable, loop: asyncio.AbstractEventLoop, *, max_batch: int, limit: int, max_rows: int
    ) -> None:
        self.servable = servable
        self.tally = ModelTally()
        self._loop = loop
        self._max_batch = max_batch
        self._limit = limit
        self._max_rows = max_rows
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: set[Job] = set()
        # Each is written by one thread only, so that their difference needs no lock.
        self._submitted_rows = self._taken_rows = 0
        self._sliced: dict[Job, Slices] = {}
        self._row_s = 0.0
        self._thread = threading.Thread(target=self._work, name=f"model-{servable.name}", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """How many requests have no answer yet."""
        return len(self._jobs)

    def gauges(self) -> Gauges:
        """Return what is held at the moment."""
        return Gauges(self._submitted_rows - self._taken_rows, len(self._jobs))

    def submit(self, job: Job) -> None:
        """Queue a request.

        Raises ``TensorError`` for arrays that the model does not take, ``Refusal`` for a request that is too large or
        too late, or a queue that is full.
        """
        job.rows = rows = self.servable.admit(job.inputs)
        if rows > self._max_rows:
            raise Refusal(413, f"{rows} rows are more than the {self._max_rows} that one request may have")
        queued = self._submitted_rows - self._taken_rows
        is_large = rows > ROWS and self.servable.takes_text
        if is_large:  # the slices that are still to come count against each other, not against small requests
            queued += sum(slices.coming_rows for slices in self._sliced.values())
        if queued and queued + rows > self._limit:
            wait_s = max(1, math.ceil(queued * self._row_s))
            raise Refusal(429, f"{queued} rows wait for {self.servable.name} already", retry_after_s=wait_s)
        job.group = self.servable.group(job.inputs)
        if job.deadline:
            if job.deadline <= time.monotonic():
                self.tally.expired += 1
                raise Refusal(504, "the deadline had passed before the request was queued")
            job.timer = self._loop.call_at(job.deadline, self._expire, job)
        job.owner = self
        self._jobs.add(job)
        if is_large:
            self._sliced[job] = Slices(job, self._put, self._finish)
            self._sliced[job].put_next()
        else:
            self._put(job)

    def cancel(self, job: Job) -> None:
        """Forget a request whose client has left."""
        if not job.is_settled:
            self.tally.cancelled += 1
            self._finish(job, Refusal(499, "the client left"), tell=False)

    def abandon(self) -> None:
        """Answer every request that is left with 503: the server ends."""
        for job in list(self._jobs):
            self._finish(job, Refusal(503, "the server ends", close=True))

    def stop(self, patience_s: float) -> None:
        """End the thread after the run under way, and free the model."""
        self._queue.put(None)
        self._thread.join(patience_s)
        if not self._thread.is_alive():  # a run that hangs keeps its model: freeing it now would crash the process
            self.servable.close()

    def _put(self, job: Job) -> None:
        self._submitted_rows += job.rows
        self._queue.put(job)

    def _expire(self, job: Job) -> None:
        if not job.is_settled:
            self.tally.expired += 1
            self._finish(job, Refusal(504, "the deadline passed before there was an answer"))

    def _finish(self, job: Job, refusal: Refusal | None, *, tell: bool = True) -> None:
        job.is_settled = True
        job.refusal = refusal
        self._jobs.discard(job)
        self._sliced.pop(job, None)
        if job.timer is not None:
            job.timer.cancel()
        if tell:
            job.on_done(job)

    def _settle(self, jobs: Sequence[Job], began: float, rows: int) -> None:
        """Answer what a run has answered; called in the loop."""
        tally = self.tally
        if rows:
            tally.batches.add(rows)
        for job in jobs:
            if job.is_settled:
                continue
            tally.waiting.add(began - job.received)
            if job.refusal is not None and job.refusal.status == 504:
                tally.expired += 1
            self._finish(job, job.refusal)

    def _work(self) -> None:
        """Answer batches until there is ``None`` in the queue; this is the thread."""
        held: Job | None = None
        while True:
            first = self._queue.get() if held is None else held
            if first is None:
                return
            held = None
            batch, rows, ends = [first], first.rows, False
            while rows < self._max_batch and not ends:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ends = True
                elif rows + following.rows > self._max_batch:
                    held = following
                    break
                else:
                    batch.append(following)
                    rows += following.rows
            self._taken_rows += rows
            self._answer(batch)
            if ends:
                return

    def _answer(self, batch: Sequence[Job]) -> None:
        """Run a batch in groups of what can share a run; what nobody waits for any more is not run."""
        now = time.monotonic()
        groups: dict[Hashable, list[Job]] = {}
        for job in batch:
            if not job.is_wanted:
                continue
            if job.deadline and job.deadline <= now:
                job.refusal = Refusal(504, "the deadline passed before the run began")
                self._post((job,), now, 0)
                continue
            groups.setdefault(id(job) if job.group is None else job.group, []).append(job)
        for jobs in groups.values():
            self._run(jobs)

    def _run(self, jobs: Sequence[Job]) -> None:
        began = time.monotonic()
        wanted = jobs[0].wanted if len(jobs) == 1 else frozenset[str]().union(*(job.wanted for job in jobs))
        try:
            answers = self.servable.run([job.inputs for job in jobs], wanted)
            for job, answer in zip(jobs, answers, strict=True):
                job.outputs = answer
        except Exception as error:  # noqa: BLE001 - a runtime may raise anything, and the others still want answers
            if len(jobs) > 1:
                for job in jobs:  # one of them spoiled the run for all
                    self._run((job,))
                return
            jobs[0].refusal = refusal_of(error)
        rows = sum(job.rows for job in jobs)
        each = (time.monotonic() - began) / max(rows, 1)
        self._row_s = each if not self._row_s else 0.9 * self._row_s + 0.1 * each
        self._post(jobs, began, rows)

    def _post(self, jobs: Sequence[Job], *rest: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, jobs, *rest)
        except RuntimeError:  # the loop has ended, and nobody waits any more
            return
