"""Findings: what a finished search hands to its reports. Data only; ``report.json`` is exactly this."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from skerry.build.artifact import Step
from skerry.build.figures import Estimate, Figures
from skerry.build.halving import merit
from skerry.build.relaxation import NearMiss
from skerry.build.verdict import Line, total_excess, verdict
from skerry.spec.budget import Budget

FigureName = Literal[
    "quality", "latency_p50_ms", "latency_p99_ms", "speedup", "items_per_s", "load_ms", "peak_bytes", "size_bytes",
    "cpu_ms", "energy_j",
]  # fmt: skip
"""The fields of :class:`Figures` that can be predicted for a device that is not at hand."""

FailureKind = Literal["refused", "failed", "crashed", "out of memory", "out of time", "wrong answers"]
"""``refused``: the technique or the runtime does not take the model; ``failed``: it raised; ``crashed``: it died."""

Split = Literal["calibrate", "select", "report"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag_field="outcome"):
    """What became of a candidate."""


class Measured(Outcome, frozen=True, kw_only=True, tag="measured"):
    """It was measured.

    Parameters
    ----------
    figures:
        Of the last, longest trial.
    lines:
        How these stand against the budget.
    rung:
        The last rung of successive halving that it reached, 1 for the shortest trial.
    predicted:
        Figures that were not measured: scaled to the device that the search planned for.

    Raises ``ValueError`` for a figure that is no finite number; :func:`outcome_of` makes a failure of those.
    """

    figures: Figures
    lines: tuple[Line, ...] = ()
    rung: int = 1
    predicted: tuple[FigureName, ...] = ()

    def __post_init__(self) -> None:
        if strange := not_finite(self.figures):
            raise ValueError(f"{strange} is no finite number")

    @property
    def keeps_budget(self) -> bool:
        """Whether every line of the budget holds."""
        return all(line.holds for line in self.lines)


class Failed(Outcome, frozen=True, kw_only=True, tag="failed"):
    """It could not be made, or died in its trial; ``rung`` is 0 where it was never measured."""

    kind: FailureKind
    reason: str
    rung: int = 0


class Discarded(Outcome, frozen=True, kw_only=True, tag="discarded"):
    """It was not tried: predicted far from the budget, too large, without a runtime here, or the time was up."""

    reason: str
    by: Literal["prediction", "size", "time", "device"] = "prediction"


def outcome_of(
    figures: Figures, budget: Budget, *, rung: int = 1, predicted: tuple[FigureName, ...] = ()
) -> Measured | Failed:
    """Hold figures against a budget; one that is no finite number (vectors with NaN give such) is a failure."""
    if strange := not_finite(figures):
        return Failed(kind="wrong answers", reason=f"{strange} is no finite number", rung=rung)
    return Measured(figures=figures, lines=verdict(budget, figures), rung=rung, predicted=predicted)


def not_finite(figures: Figures) -> str:
    """Return the name of a figure that JSON could not hold; empty where all are sound."""
    for name in figures.__struct_fields__:
        value = getattr(figures, name)
        for part, found in value.items() if isinstance(value, dict) else ((name, value),):
            numbers = (found.value, found.low, found.high) if isinstance(found, Estimate) else (found or 0,)
            if not all(math.isfinite(number) for number in numbers):
                return part
    return ""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way of running the model: the steps that make it, the runtime and the number of threads.

    ``note`` is a sentence on what a step gained, where the technique leaves that in doubt.
    """

    name: str
    runtime: str
    threads: int = 1
    steps: tuple[Step, ...] = ()
    digest: str = ""
    outcome: Measured | Failed | Discarded
    note: str = ""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The model as it was given, in the same run; ``quality`` of its figures is what all others are held against.

    ``predicted`` names figures that were not measured: see :class:`Measured`.
    """

    name: str
    runtime: str
    threads: int = 1
    figures: Figures
    predicted: tuple[FigureName, ...] = ()

    def __post_init__(self) -> None:
        if strange := not_finite(self.figures):
            raise ValueError(f"{strange} of the baseline is no finite number")


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The model that was given.

    Parameters
    ----------
    source:
        As the pipeline file names it, and ``digest`` of what was found there.
    base_model:
        Its id on the Hugging Face hub, where it has one.
    licence:
        The SPDX identifier of its weights; empty where it is not known.
    """

    source: str
    digest: str = ""
    task: str = "embedding"
    base_model: str = ""
    licence: str = ""
    parameters: int | None = None


class TextsUsed(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of one split, or what else the items are called; ``labelled`` tells that right answers came along."""

    split: Split
    origin: str
    count: int
    digest: str = ""
    called: str = "texts"
    labelled: bool = False


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how the search was done; all that it takes to do it again.

    Parameters
    ----------
    machine:
        In words: processor, cores, memory.
    device:
        The device of the catalogue that the search planned for; empty for the machine itself.
    predicted_within:
        By what factor the figures predicted for that device may be off, to either side.
    versions:
        Of Skerry, Python, runtimes and tools.
    allowed_s, spent_s:
        Seconds that ``--time`` gave and that were used; ``phases`` says on what.
    finished:
        When, as ISO 8601 with its offset.
    commands:
        Lines for a shell that do the search again.
    """

    machine: str
    device: str = ""
    predicted_within: float | None = None
    versions: dict[str, str] = {}
    seed: int = 0
    allowed_s: float | None = None
    spent_s: float = 0.0
    phases: dict[str, float] = {}
    finished: str = ""
    texts: tuple[TextsUsed, ...] = ()
    commands: tuple[str, ...] = ()


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found.

    Parameters
    ----------
    name:
        Of the model in the pipeline file.
    metric:
        Of :attr:`Figures.quality`, the one that the search went by.
    lower_is_better:
        Whether less of it is better.
    candidates:
        All that were thought of, each with what became of it; their names differ.
    chosen:
        The name of the winner, ``None`` where nothing could be measured.
    front:
        Names of those that no other beats in both quality and latency.
    ladder:
        Names of the rungs of the degrade ladder, the chosen one first.
    near_misses:
        When nothing keeps the budget: what to relax, the smallest change first.
    rungs:
        How many rungs successive halving had.

    Raises ``ValueError`` where two candidates have one name, or a name is that of no measured candidate.
    """

    name: str
    metric: str = "agreement@10"
    lower_is_better: bool = False
    origin: Origin
    baseline: Baseline
    candidates: tuple[Candidate, ...] = ()
    chosen: str | None = None
    front: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
    rungs: int = 3
    environment: Environment

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) < len(names):
            raise ValueError("two candidates have the same name")
        measured = {candidate.name for candidate in self.candidates if isinstance(candidate.outcome, Measured)}
        named = {*self.front, *self.ladder, *([] if self.chosen is None else [self.chosen])}
        if strangers := named - measured:
            raise ValueError(f"no measured candidate is named {min(strangers)!r}")


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A measured candidate with its place, 1 for the best, and what it is to the search."""

    rank: int
    candidate: Candidate
    measured: Measured
    chosen: bool
    on_front: bool
    ladder_step: int | None
    """0 for the one that answers while the device is well."""

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name


def ranked(findings: Findings) -> list[Ranked]:
    """Return the measured candidates, the chosen one first, then as :func:`skerry.build.halving.order` sorts."""

    def key(pair: tuple[Candidate, Measured]) -> tuple[bool, float, float, float, str]:
        candidate, measured = pair
        excess, lower = total_excess(measured.lines), findings.lower_is_better
        standing = merit(measured.figures, excess, findings.metric, lower=lower)
        return candidate.name != findings.chosen, *standing, candidate.name

    pairs = [(each, each.outcome) for each in findings.candidates if isinstance(each.outcome, Measured)]
    return [
        Ranked(
            rank=rank, candidate=candidate, measured=measured, chosen=candidate.name == findings.chosen,
            on_front=candidate.name in findings.front,
            ladder_step=findings.ladder.index(candidate.name) if candidate.name in findings.ladder else None,
        )
        for rank, (candidate, measured) in enumerate(sorted(pairs, key=key), 1)
    ]  # fmt: skip


def field_of(line: Line) -> FigureName:
    """Return the figure that a line of the budget limits."""
    fields: dict[str, FigureName] = {
        "latency_p50": "latency_p50_ms", "latency_p99": "latency_p99_ms", "memory": "peak_bytes", "size": "size_bytes",
        "energy": "energy_j",
    }  # fmt: skip
    return fields.get(line.limit, "quality")


def failures(findings: Findings) -> list[tuple[Candidate, Failed]]:
    """Return the candidates that failed, in the order in which they were tried."""
    return [(each, each.outcome) for each in findings.candidates if isinstance(each.outcome, Failed)]


def discards(findings: Findings) -> list[tuple[Candidate, Discarded]]:
    """Return the candidates that were not tried."""
    return [(each, each.outcome) for each in findings.candidates if isinstance(each.outcome, Discarded)]


def write_json(findings: Findings) -> bytes:
    """Return ``report.json``: indented, the same bytes for the same findings."""
    return msgspec.json.format(msgspec.json.encode(findings, order="deterministic"), indent=2) + b"\n"


def read_json(content: bytes) -> Findings:
    """Read ``report.json``; raises ``msgspec.ValidationError`` for anything else."""
    return msgspec.json.decode(content, type=Findings)
