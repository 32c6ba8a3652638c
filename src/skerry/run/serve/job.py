"""A job: one request on its way through a model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Protocol

from skerry.run.serve.refusal import Refusal
from skerry.run.serve.servable import Inputs, Outputs

Done = Callable[["Job"], None]


class Owner(Protocol):
    """Who has a job until it is settled."""

    def cancel(self, job: Job) -> None:
        """Forget it: its client has left."""


class Job:
    """One request on its way through a model.

    Parameters
    ----------
    inputs:
        Arrays that the model admits.
    wanted:
        The outputs that were asked for.
    received:
        When the whole request was there, in seconds of ``time.monotonic``.
    on_done:
        Called once, by the server's thread, when ``outputs`` or ``refusal`` is set.
    deadline:
        When nobody wants the answer any more, on the same clock; 0 for never.
    """

    __slots__ = (
        "deadline", "group", "inputs", "is_settled", "on_done", "outputs", "owner", "parent", "received", "refusal",
        "rows", "timer", "wanted",
    )  # fmt: skip

    def __init__(
        self, inputs: Inputs, wanted: frozenset[str], received: float, on_done: Done, deadline: float = 0.0
    ) -> None:
        self.inputs = inputs
        self.wanted = wanted
        self.received = received
        self.deadline = deadline
        self.on_done = on_done
        self.rows = 1
        self.group: Hashable = None
        self.outputs: Outputs = {}
        self.refusal: Refusal | None = None
        self.is_settled = False
        self.timer: asyncio.TimerHandle | None = None
        self.owner: Owner | None = None
        self.parent: Job | None = None
        """The request that this is a slice of."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for the answer."""
        return not (self.is_settled or (self.parent is not None and self.parent.is_settled))

    def cancel(self) -> None:
        """Forget the request, because its client has left; it is not run where that has not begun."""
        if self.owner is not None:
            self.owner.cancel(self)
