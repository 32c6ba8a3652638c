"""A step: one stage in one thread, how to call it, and what to do when it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from skerry.run.tally import NodeTally
from skerry.spec.pipeline import OnError
from skerry.spec.record import Outcome, Record

REOPEN_EVERY_NS = 30_000_000_000
"""Between two times that a stage is opened anew: opening may load a model, and does not mend bad data."""


class Step:
    """One stage in one thread: how to call it, what to do when it fails, and its tally."""

    __slots__ = (
        "batch",
        "close",
        "id",
        "on_error",
        "process",
        "process_batch",
        "reopened_ns",
        "restarts",
        "retries",
        "stage",
        "tally",
    )

    def __init__(
        self,
        name: str,
        process: Callable[[Record], Outcome],
        *,
        on_error: OnError = "drop",
        retries: int = 3,
        process_batch: Callable[[Sequence[Record]], Sequence[Outcome | Exception]] | None = None,
        batch: int = 1,
        stage: Any = None,
    ) -> None:
        self.id = name
        self.process = process
        self.process_batch = process_batch
        self.batch = batch
        self.on_error: OnError = on_error
        self.retries = retries
        self.stage = stage
        self.tally = NodeTally()
        self.restarts = 0
        self.reopened_ns = -REOPEN_EVERY_NS
