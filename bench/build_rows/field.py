"""The field: everybody who is measured, each in a process of its own on one core, who answer the same texts in turns.

The processes are those of Skerry's own trials (:mod:`skerry.build.trial`), pinned to the same core with one thread, and
only one of them works at a time. A text goes in and a vector comes out: splitting it into tokens is part of everybody's
time, by the same tokenizer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from bench.environments import ROOT, SILENT
from bench.measuring import Samples
from skerry.build import quality
from skerry.build.artifact import Artifact
from skerry.build.contender import Contender, ContenderError
from skerry.build.exchange import Answer, Answers, Times, Turn
from skerry.build.figures import Estimate
from skerry.build.limits import Confinement, Limits, MemoryGroup, choose_cores

ITEMS, LEAD = 4, 1
"""Texts of a turn that are timed, and texts before them that bring the caches back."""
WARM_UP = 8
LOAD_S, ANSWER_S = 120.0, 120.0
METRICS = ("agreement@10", "cosine")
_BATCH = 16


class Entrant(NamedTuple):
    """One who is measured; ``python`` and ``program`` where the process is a peer's and not Skerry's."""

    name: str
    artifact: Artifact
    python: Path | None = None
    program: Path | None = None


class Doorway(MemoryGroup):
    """No control group, but the place where one is entered: it leads into a peer's interpreter instead of ours."""

    def __init__(self, python: Path, program: Path) -> None:
        super().__init__(Path(os.devnull), 2)
        self.by = "none"
        self._python, self._program = python, program

    def entering(self, command: list[str]) -> list[str]:
        """Return the command of the peer's child; like ours it is told which process started it."""
        variables = [f"{name}={value}" for name, value in SILENT.items()]
        source = f"PYTHONPATH={ROOT / 'src'}"
        return ["/usr/bin/env", source, *variables, str(self._python), "-P", str(self._program), command[-1]]

    def kills(self) -> int:
        """None: there is no limit."""
        return 0

    def close(self) -> None:
        """Nothing to give back."""


class Race(NamedTuple):
    """The times of one set of texts: per entrant, milliseconds of each turn by the clock and of the processor."""

    wall: dict[str, Samples]
    cpu: dict[str, Samples]

    def speed(self, name: str, against: str, *, cpu: bool = False) -> Samples:
        """Return, turn by turn, how many times as fast ``name`` was as ``against``."""
        taken = self.cpu if cpu else self.wall
        return taken[against].over(taken[name])


class Field:
    """All entrants with their processes; a context manager. Who fails is left out from then on, with the reason.

    Attributes
    ----------
    failed:
        Why those are not in the running who once were entrants.
    load_ms, peak_bytes:
        Per entrant: from the request to the first answer, and the most memory after answering all held-out texts.
    """

    def __init__(self, entrants: Sequence[Entrant]) -> None:
        self._entrants = {entrant.name: entrant for entrant in entrants}
        self._contenders: dict[str, Contender] = {}
        self._stack = ExitStack()
        self._cores = choose_cores(Limits(cores=1).cores)
        self.failed: dict[str, str] = {}
        self.load_ms: dict[str, float] = {}
        self.peak_bytes: dict[str, int] = {}

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """Those in the running, in the order in which they were given."""
        return list(self._contenders)

    def size_bytes(self, name: str) -> int:
        """Return the bytes on disk, the tokenizer included."""
        return self._entrants[name].artifact.size_with_tokenizer

    def start(self, texts: Sequence[str]) -> None:
        """Start everybody, one after the other, and let them answer a few texts."""
        for name, entrant in self._entrants.items():
            try:
                contender = self._stack.enter_context(self._opened(entrant))
                self.load_ms[name] = contender.load(texts[0], LOAD_S).load_ms
                self._contenders[name] = contender
                contender.ask(Turn(lead=[], items=list(texts[:WARM_UP])), Times, ANSWER_S)
            except ContenderError as error:
                self._fail(name, error)

    def race(self, texts: Sequence[str], turns: int) -> Race:
        """Have the texts answered in turns, in an order that rotates; who fails on the way has no times at all."""
        taken: dict[str, list[Times]] = {name: [] for name in self.names}
        for turn in range(turns):
            start = turn * ITEMS
            request = Turn(
                lead=[texts[(start - 1 - step) % len(texts)] for step in range(LEAD)],
                items=[texts[(start + step) % len(texts)] for step in range(ITEMS)],
            )
            names = self.names
            shift = turn % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                try:
                    taken[name].append(self._contenders[name].ask(request, Times, ANSWER_S))
                except ContenderError as error:
                    self._fail(name, error)
        return Race(
            {name: Samples(tuple(sum(one.milliseconds) / ITEMS for one in taken[name])) for name in self.names},
            {name: Samples(tuple(one.cpu_ms / (ITEMS + LEAD) for one in taken[name])) for name in self.names},
        )

    def judge(self, texts: Sequence[str], reference: str) -> dict[str, dict[str, Estimate]]:
        """Return everybody's quality by metric, beside the entrant ``reference``, and note the peaks."""
        import numpy as np

        answers: dict[str, Any] = {}
        for name in self.names:
            try:
                answers[name] = self._vectors(name, texts)
            except ContenderError as error:
                self._fail(name, error)
        for name, vectors in list(answers.items()):
            if not np.isfinite(vectors).all():
                self._drop(name, "it answers with numbers that are none (NaN or infinity)")
        return {
            name: {metric: quality.evaluate(metric, answers[reference], answers[name]) for metric in METRICS}
            for name in self.names
        }

    def _vectors(self, name: str, texts: Sequence[str]) -> Any:
        """Return the vectors of texts, each answered alone: float32 of shape (len(texts), dimension)."""
        import numpy as np

        rows: list[Any] = []
        for start in range(0, len(texts), _BATCH):
            told = self._contenders[name].ask(Answer(items=list(texts[start : start + _BATCH])), Answers, ANSWER_S)
            rows += [tensor.array() for tensor in told.arrays]
            self.peak_bytes[name] = told.peak_bytes
        return np.stack(rows)

    def _opened(self, entrant: Entrant) -> Contender:
        door = None
        if entrant.python is not None and entrant.program is not None:
            door = Doorway(entrant.python, entrant.program)
        return Contender(entrant.artifact, 1, Confinement(cores=self._cores, data_bytes=None, niceness=0), door)

    def _fail(self, name: str, error: ContenderError) -> None:
        self._drop(name, f"{error.failure.kind}: {error.failure.reason}")

    def _drop(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        contender = self._contenders.pop(name, None)
        if contender is not None:
            contender.close()
