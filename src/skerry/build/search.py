"""The search: which forms of a model are made, for how long each is measured, and which of them win.

Techniques are composed in the order prune → distill → convert → quantize, the forms nearest to the given model first. A
form is discarded before it is made when a prediction has it far from the budget (:class:`Outlook`), and before it is
measured when its size on disk, which is known, breaks the budget. The others pass the rungs of
:mod:`skerry.build.halving`. Whatever fails, fails alone and is told with its reason.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from skerry.build import toolchain
from skerry.build.artifact import RUNTIMES, Artifact, Form
from skerry.build.cache import Cache
from skerry.build.contender import Failure
from skerry.build.figures import Figures, plain
from skerry.build.findings import Candidate, Discarded, Failed, FigureName, Measured, outcome_of
from skerry.build.gains import with_gains
from skerry.build.halving import RUNGS, Rung, affordable, choice, front, keeps, ladder, survivors
from skerry.build.latency.way import way_of
from skerry.build.measure import machine_digest
from skerry.build.naming import Names
from skerry.build.omissions import Omissions
from skerry.build.relaxation import NearMiss, near_misses
from skerry.build.report import TOOLS, tool_versions
from skerry.build.rows import row_digest
from skerry.build.task import Task
from skerry.build.technique import Kind, LateError, Workbench
from skerry.build.verdict import verdict
from skerry.spec.budget import Budget
from skerry.spec.errors import DependencyError, DeviceError, ModelError, SkerryError

KINDS: tuple[Kind, ...] = ("prune", "distill", "convert", "quantize")
MAKING_SHARE = 0.5
"""Of a short search, at most this share of the time goes into making forms; the rest is for measuring them."""
MEASURING_S = 1200.0
"""What measuring may take of a long one: for some two hundred forms, which is more than there are."""
TEACHING_SHARE = 0.5
"""After this share of the time for making forms no further student is begun: it would learn less than the last."""
LEAST_MAKING_S = 60.0
"""What the first form that fits may take in any case: a search that finds none is of no use."""
SETTINGS = 4
"""Of a technique's settings, which come the most promising first, so many are tried on one form."""

SMALLEST = 3
"""Of forms that are all too large, so many are measured."""

_FAR = 2
"""Places that a technique with a toolchain stands behind others: an environment may have to be made for it."""

_LARGEST = 1 << 50
"""More bytes than any form has."""

_LAST = len(KINDS)
"""More changes of a model than there can be: what a technique that says it is ``late`` counts as."""

_FAILURES: dict[str, Any] = {
    "crash": "crashed", "out-of-memory": "out of memory", "timeout": "out of time", "error": "failed",
}  # fmt: skip


class Trier(Protocol):
    """Measures an artifact beside the baseline: :class:`skerry.build.trial.Trials`."""

    def run(self, candidate: Artifact, rung: Rung, *, threads: int = 1, starts: int = 1) -> Figures | Failure:
        """Return its figures, or why there are none."""


class Outlook(Protocol):
    """Tells what is not worth trying: :class:`skerry.build.latency.foresight.Foresight`."""

    def learn(self, artifact: Artifact) -> None:
        """Look at a form that was made, whose descendants may be predicted from it."""

    def hopeless(self, artifact: Artifact, threads: int = 1) -> Discarded | None:
        """Return why a form, which need not be there yet, is not to be tried; ``None`` where it may be."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found; names are those of ``candidates``.

    ``artifacts`` are the forms that can be run, by candidate; ``chosen`` is ``None`` where nothing could be measured.
    """

    candidates: tuple[Candidate, ...]
    artifacts: dict[str, Artifact]
    chosen: str | None
    front: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
    making_s: float = 0.0
    measuring_s: float = 0.0


class Search:
    """One search; :meth:`run` does it once.

    Parameters
    ----------
    origin:
        The model that was given.
    techniques:
        Instances by name.
    threads:
        The thread counts to try.
    seconds:
        The time that the search may take.
    runtimes:
        Names of those that work here.
    outlook:
        Gives up forms before they are made or measured; ``None`` gives up none.
    predicted:
        Names of the figures that the trier reckons for a device instead of measuring them.
    """

    def __init__(
        self,
        origin: Artifact,
        techniques: Mapping[str, Any],
        workbench: Workbench,
        cache: Cache,
        *,
        budget: Budget,
        runtimes: frozenset[str],
        metric: str = "agreement@10",
        threads: Sequence[int] = (1,),
        seconds: float = 600.0,
        rungs: Sequence[Rung] = RUNGS,
        outlook: Outlook | None = None,
        predicted: tuple[FigureName, ...] = (),
    ) -> None:
        self._origin = origin
        self._techniques = dict(techniques)
        self._workbench = workbench
        self._cache = cache
        self._budget = budget
        self._runtimes = runtimes
        self._metric = metric
        self._threads = tuple(threads)
        self._seconds = seconds
        self._rungs = tuple(rungs)
        self._outlook = outlook
        self._predicted = predicted
        self._names = Names()
        self._outcomes: dict[str, Candidate] = {}
        self._in_vain: set[str] = set()  # techniques for runtimes that are not here
        self._taught = False  # whether there is a student
        self._fits = False  # whether there is a form to be measured: until then, making may take longer
        # What calibrated and taught techniques depend on beside the model.
        texts = hashlib.sha256(msgspec.json.encode(workbench.texts)).hexdigest()
        self._bench_key: dict[str, Any] = {"texts": texts, "seed": workbench.seed, "tools": tool_versions(*TOOLS)}
        if workbench.samples:
            self._bench_key |= {"samples": [*map(row_digest, workbench.samples)], "output": workbench.output}
        self._omissions = Omissions(cache, self._key())
        self._began = time.monotonic()

    def _key(self) -> dict[str, Any]:
        """Return all that decides what this search does, beside how fast the machine was at the time."""
        return {
            "origin": self._origin.key, "budget": repr(self._budget), "metric": self._metric,
            "techniques": {name: each.version for name, each in self._techniques.items()}, "threads": self._threads,
            "seconds": self._seconds, "runtimes": sorted(self._runtimes), "machine": machine_digest(),
            "rungs": msgspec.to_builtins(self._rungs), **self._bench_key,
        }  # fmt: skip

    def run(self, trier: Trier) -> Found:
        """Make forms, measure them rung by rung, and choose."""
        self._began = time.monotonic()
        artifacts = self.runnable()
        made = time.monotonic()
        finalists = self._measure(artifacts, trier)
        self._omissions.keep()
        doubtful = frozenset(name for name, each in self._techniques.items() if getattr(each, "doubtful", False))
        verdicts = {name: verdict(self._budget, figures) for name, figures in finalists.items()}
        chosen = choice(finalists, self._budget, self._metric) if finalists else None
        alike = {} if chosen is None else _interchangeable(finalists, chosen, artifacts)
        lower = self._budget.lower_is_better(self._metric)
        return Found(
            candidates=with_gains(self._outcomes.values(), doubtful),
            artifacts={name: artifact for name, (artifact, _) in artifacts.items()},
            chosen=chosen,
            front=tuple(front(finalists, self._metric, lower=lower)),
            ladder=tuple(ladder(alike, chosen, self._metric, lower=lower)) if chosen is not None else (),
            near_misses=near_misses(verdicts),
            making_s=made - self._began,
            measuring_s=time.monotonic() - made,
        )

    # Making

    def runnable(self) -> dict[str, tuple[Artifact, int]]:
        """Return the forms that a runtime here runs and that are not hopeless, with their threads, by name."""
        found: dict[str, tuple[Artifact, int]] = {}
        large: list[Artifact] = []
        for artifact in self._forms():
            if RUNTIMES.get(artifact.form) not in self._runtimes:
                continue
            size, limit = artifact.size_with_tokenizer, self._budget.size
            if limit is not None and size > float(limit):
                reason = f"{size / 1e6:.1f} MB on disk, over the limit of {float(limit) / 1e6:.1f} MB"
                self._note(artifact, 1, Discarded(reason=reason, by="size"))
                large.append(artifact)
                continue
            for threads in self._promising(artifact):
                self._fits = True
                found[self._names.of(artifact, threads)] = (artifact, threads)
        if not found:  # the smallest ones tell by how much the limit is missed, and what could be had instead
            large.sort(key=lambda artifact: artifact.size_with_tokenizer)
            found = {self._names.of(each, self._threads[0]): (each, self._threads[0]) for each in large[:SMALLEST]}
        return found

    def _promising(self, artifact: Artifact) -> list[int]:
        """Return the thread counts with which a form, which need not be there yet, is worth trying; note the others."""
        found: list[int] = []
        for threads in self._threads:
            why = None if self._outlook is None else self._outlook.hopeless(artifact, threads)
            if why is None:
                found.append(threads)
            else:
                self._note(artifact, threads, why)
        return found

    def _forms(self) -> Iterator[Artifact]:
        """Yield the given model and what techniques make of it; the least changed, and the cheapest, come first."""
        number = itertools.count()
        waiting: list[tuple[int, int, int, Task]] = []

        def queue(task: Task, place: int) -> None:
            heapq.heappush(waiting, (self._changes(task), place, next(number), task))

        def follow(artifact: Artifact, place: int, rank: int = 0) -> None:
            # One place for each: the first settings of one technique are tried before those of the next are looked for.
            for index, technique in enumerate(self._following(artifact)):
                task = Task(artifact, technique, circumstances=self._circumstances(technique))
                if technique.kind == "distill":  # it takes longest: of everybody's first choices, the smallest first
                    queue(task, rank * _LARGEST + artifact.size)
                else:
                    queue(task, place + index + (_FAR if technique.toolchain else 0))

        def shown(artifact: Artifact) -> Artifact:
            if self._outlook is not None:
                self._outlook.learn(artifact)
            return artifact

        yield shown(self._origin)
        follow(self._origin, 0)
        while waiting:
            _, place, _, task = heapq.heappop(waiting)
            if self._omissions.decided(f"make {task.planned().digest}", self._is_late(task)):
                self._note(task.planned(), 1, Discarded(reason="no time was left to make it", by="time"))
            elif task.settings is None:
                for index, settings in enumerate(self._choices(task)):
                    queue(task._replace(settings=settings, rank=index), place + index)
            elif self._is_worth_making(task) and (made := self._made(task)) is not None:
                self._taught = self._taught or task.technique.kind == "distill"
                yield shown(made)
                follow(made, place, task.rank)

    def _circumstances(self, technique: Any) -> str:
        """Return the digest of what decides a step beside its settings; see :class:`skerry.build.artifact.Step`."""
        told: dict[str, Any] = {}
        if technique.toolchain is not None:
            told["toolchain"] = toolchain.place(technique.toolchain).name  # its pins and this Python
        if technique.kind == "distill":
            told |= {"seconds": self._seconds, "forbidden": sorted(self._workbench.forbidden)}
        return hashlib.sha256(msgspec.json.encode(told)).hexdigest() if told else ""

    def _is_worth_making(self, task: Task) -> bool:
        """Tell whether a form may be tried, or something that is made of it."""
        return task.technique.kind != KINDS[-1] or bool(self._promising(task.planned()))

    def _is_late(self, task: Task) -> bool:
        """Tell whether the time for making is over; for another student half of it has to be left."""
        share = TEACHING_SHARE if self._taught and task.technique.kind == "distill" else 1.0
        return time.monotonic() - self._began > share * self._making_s()

    def _making_s(self) -> float:
        """Return the seconds that making may take: all of the time, and a minute at the least, while nothing fits."""
        return making_s(self._seconds) if self._fits else max(self._seconds, LEAST_MAKING_S)

    def _following(self, artifact: Artifact) -> Iterator[Any]:
        """Yield the techniques that may come next."""
        latest = max((KINDS.index(kind) for kind in self._kinds(artifact)), default=-1)
        found = [
            each for each in self._techniques.values()
            if KINDS.index(each.kind) > latest and not each.refuses(artifact) and self._can_run(each)
        ]  # fmt: skip
        # What was pruned is poor before it is taught: where it can be, it is not made anything else of.
        teaching = [each for each in found if each.kind == "distill"]
        yield from teaching if teaching and "prune" in self._kinds(artifact) else found

    def _can_run(self, technique: Any) -> bool:
        """Tell whether a runtime is here for what a technique makes; where not, that is noted once."""
        form: Form | None = getattr(technique, "makes", None)
        runtime = RUNTIMES.get(form) if form is not None else None
        if runtime is None or runtime in self._runtimes:
            return True
        if technique.name not in self._in_vain:
            self._in_vain.add(technique.name)
            reason = f"the runtime {runtime} is not usable here: `skerry runtimes` tells why"
            self._note(Task(self._origin, technique).planned(), 1, Discarded(reason=reason, by="device"))
        return False

    def _kinds(self, artifact: Artifact) -> list[Kind]:
        return [self._techniques[step.technique].kind for step in artifact.steps if step.technique in self._techniques]

    def _changes(self, task: Task) -> int:
        """How often the model itself is changed: whole models come before pruned and taught ones, late ones last."""
        changes = sum(kind in {"prune", "distill"} for kind in [*self._kinds(task.artifact), task.technique.kind])
        changes += int(task.technique.kind == "distill")  # what was taught is made use of before another is taught
        return changes + (_LAST if getattr(task.technique, "late", False) else 0)

    def _choices(self, task: Task) -> list[dict[str, Any]]:
        """Return the settings worth trying; finding them may measure, so they are remembered."""
        technique, artifact = task.technique, task.artifact

        def make(folder: Path) -> dict[str, Any]:
            return {"choices": technique.candidates(artifact, self._workbench)}

        key = {
            "step": "candidates", "technique": technique.name, "version": technique.version,
            "circumstances": task.circumstances,
        }  # fmt: skip
        try:
            entry = self._cache.entry({**key, **artifact.key, **self._bench_key}, make)
        except DeviceError:
            raise  # a full disk is no fault of the technique
        except LateError as error:
            self._omissions.add(f"make {task.planned().digest}")
            self._note(task.planned(), 1, Discarded(reason=error.message, by="time"))
            return []
        except SkerryError as error:
            self._note(task.planned(), 1, Failed(kind="refused", reason=error.message))
            return []
        choices: list[dict[str, Any]] = entry.note.facts["choices"]
        return choices[:SETTINGS]

    def _made(self, task: Task) -> Artifact | None:
        """Return what a technique makes, from the cache where it lies there; ``None`` when it fails."""
        artifact, technique, planned = task.artifact, task.technique, task.planned()
        settings = task.settings or {}

        def make(folder: Path) -> dict[str, Any]:
            with self._workbench.progress.step(f"make {planned.name()}"):
                made: Artifact = technique.apply(artifact, settings, self._workbench, folder)
            return made.noted()

        try:
            entry = self._cache.entry({"step": "technique", **planned.key, **self._bench_key}, make)
        except DependencyError as error:
            self._note(planned, 1, Failed(kind="refused", reason=f"{error.message} ({error.hint})"))
            return None
        except LateError as error:
            self._omissions.add(f"make {planned.digest}")
            self._note(planned, 1, Discarded(reason=error.message, by="time"))
            return None
        except ModelError as error:
            self._note(planned, 1, Failed(kind="failed", reason=error.message))
            return None
        return planned.found(entry.folder, entry.note.facts)

    def first_reason(self) -> str:
        """Return why the first form that failed did so; empty where none did."""
        return next((reason for each in self._outcomes.values() if (reason := getattr(each.outcome, "reason", ""))), "")

    # Measuring

    def _measure(self, artifacts: Mapping[str, tuple[Artifact, int]], trier: Trier) -> dict[str, Figures]:
        """Take the forms up the rungs; return the figures of those that reached the last one.

        Where none of them keeps the budget beyond doubt, one that was left behind may: then all are returned.
        """
        finalists: dict[str, Figures] = {}
        everybody: dict[str, Figures] = {}
        names = list(artifacts)
        room = affordable(self._seconds - making_s(self._seconds), self._rungs)  # the same whatever the cache holds
        for index, rung in enumerate(self._rungs, 1):
            here: dict[str, Figures] = {}
            for name in names:
                late = bool(here) and time.monotonic() - self._began > self._seconds
                if self._omissions.decided(f"measure {index} {artifacts[name][0].digest} {artifacts[name][1]}", late):
                    self._late(name, artifacts[name])
                    continue
                figures = self._tried(artifacts[name], rung, index, trier)
                if figures is not None:
                    here[name] = figures
            if not here:
                break
            finalists = here
            everybody |= here
            following = room[index] if index < len(room) else None
            names = survivors(here, self._budget, self._metric, at_most=following)
        return finalists if any(keeps(self._budget, each) for each in finalists.values()) else everybody

    def _tried(self, candidate: tuple[Artifact, int], rung: Rung, index: int, trier: Trier) -> Figures | None:
        artifact, threads = candidate
        answer = trier.run(artifact, rung, threads=threads)
        if isinstance(answer, Failure):
            kind = _FAILURES[answer.kind]
            self._note(artifact, threads, Failed(kind=kind, reason=answer.reason, rung=index))
            return None
        outcome = outcome_of(plain(answer), self._budget, rung=index, predicted=self._predicted)
        self._note(artifact, threads, outcome)
        return outcome.figures if isinstance(outcome, Measured) else None

    def _late(self, name: str, candidate: tuple[Artifact, int]) -> None:
        if name not in self._outcomes:
            self._note(*candidate, Discarded(reason="no time was left to measure it", by="time"))

    def _note(self, artifact: Artifact, threads: int, outcome: Measured | Failed | Discarded) -> None:
        name = self._names.of(artifact, threads)
        self._outcomes[name] = Candidate(
            name=name, runtime=_runtime(artifact), threads=threads, steps=artifact.steps, digest=artifact.digest,
            outcome=outcome,
        )  # fmt: skip


def making_s(seconds: float) -> float:
    """Return how many seconds of a search's time making forms may take."""
    return max(MAKING_SHARE * seconds, seconds - MEASURING_S)


def _interchangeable(
    finalists: Mapping[str, Figures], chosen: str, artifacts: Mapping[str, tuple[Artifact, int]]
) -> dict[str, Figures]:
    """Return the forms that read texts as the chosen one does: a model that steps down keeps its tokenizer."""
    kept = artifacts[chosen][0].tokenizer
    return {name: figures for name, figures in finalists.items() if artifacts[name][0].tokenizer == kept}


def _runtime(artifact: Artifact) -> str:
    """Return what runs an artifact, or will run it: one that was only planned still has the form that it comes from."""
    way = way_of(artifact)
    return way.runtime if way is not None and way.runtime else RUNTIMES.get(artifact.form, artifact.form)
