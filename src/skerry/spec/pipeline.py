"""The pipeline file: sources, models with their budgets, stages and sinks."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from skerry.spec.budget import Budget
from skerry.spec.cloud import Cloud
from skerry.spec.units import Duration, Share, Size, Temperature

Policy = Literal["block", "drop_oldest", "drop_newest", "latest"]
OnError = Literal["drop", "retry", "dead_letter", "stop"]
Privacy = Literal["public", "internal", "personal"]
Task = Literal["embedding", "classification", "tensors", "null"]
"""``embedding`` and ``classification`` take text; ``tensors`` takes the named arrays that the model itself takes."""
Path = tuple[str | int, ...]
"""Keys and indexes that lead from the top of a file to a value in it."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of what a user writes: frozen, by name, unknown keys refused."""


class Queue(Strict, frozen=True, kw_only=True):
    """A bounded channel between two threads.

    ``items`` and ``bytes`` bound what waits (whichever is reached first), ``ttl`` how long a record may wait.
    The defaults hold a burst of a second of small records without a surprise in memory.
    """

    items: int = 1024
    bytes: Size = Size(64e6)
    ttl: Duration | None = None
    policy: Policy = "block"


class Data(Strict, frozen=True, kw_only=True):
    """Files with the user's own text: ``calibrate`` to choose by, ``evaluate`` to report by."""

    calibrate: str | None = None
    evaluate: str | None = None


class Model(Strict, frozen=True, kw_only=True):
    """A model, what it is for, and what it may cost."""

    from_: str = msgspec.field(name="from")
    task: Task = "embedding"
    part: str | None = None
    """Which of a model's graphs is meant where it has several, such as ``text`` and ``vision`` of CLIP."""
    allow_pickle: bool = False
    """Whether files may be opened whose reading can run code that their author put into them."""
    students: tuple[str, ...] = ()
    """Smaller models that a search may teach to answer as this one, named as ``from`` names it."""
    data: Data = Data()
    budget: Budget = Budget()
    runtime: str | None = None
    threads: int = 1
    max_tokens: int = 256
    shadow: str | None = None
    """A variant that answers beside the chosen one, to compare; its answers are counted, not used."""
    shadow_share: Share = Share(0.05)


class Ladder(Strict, frozen=True, kw_only=True):
    """When to step down to a cheaper variant and up again.

    A signal beyond its limit for ``patience`` steps down; all of them within ``up_share`` of their limits for
    ``recovery`` steps up. The gap between the two, and the waiting times, keep it from flapping. ``battery`` counts
    only while the machine runs on it.
    """

    missed_deadlines: Share = Share(0.05)
    memory_pressure: Share = Share(0.90)
    memory_stall: Share = Share(0.10)
    temperature: Temperature = Temperature(80.0)
    battery: Share = Share(0.20)
    up_share: Share = Share(0.80)
    patience: Duration = Duration(2.0)
    recovery: Duration = Duration(30.0)
    every: Duration = Duration(0.5)


class Duty(Strict, frozen=True, kw_only=True):
    """When a pipeline sleeps and wakes.

    Asleep, sources are not read and models are unloaded. ``every`` wakes by timer, ``gate`` names a cheap stage whose
    passing record wakes, ``event`` a file whose touching wakes; ``awake`` is how long it stays up after the
    last record.
    """

    awake: Duration
    every: Duration | None = None
    gate: str | None = None
    event: str | None = None


class Common(Strict, frozen=True, kw_only=True):
    """The keys that every stage takes beside its own options."""

    id: str | None = None
    after: str | list[str] | None = None
    when: str | None = None
    on_error: OnError = "drop"
    retries: int = 3
    workers: int = 1
    process: bool = False
    batch: int | None = None
    queue: Queue | None = None
    cloud: Cloud | None = None


class Endpoint(Strict, frozen=True, kw_only=True):
    """The keys that every source and sink takes beside its own options."""

    id: str | None = None
    after: str | list[str] | None = None
    queue: Queue | None = None
    fields: list[str] | None = None
    on_error: OnError = "retry"
    retries: int | None = None
    """How often a batch is tried again; ``null`` for as long as its queue has room."""
    restarts: int | None = None
    """How often it is brought up again after breaking; ``null`` for as long as the run lasts."""
    within: Duration | None = None
    """How long a source may take to come up at the start; ``null`` for as long as it takes."""


class StageEntry(Strict, frozen=True, kw_only=True):
    """One stage of the file: the plugin's name (or ``module:function``), its raw options and the common keys."""

    id: str
    kind: str
    common: Common
    options: Any
    path: Path


class EndpointEntry(Strict, frozen=True, kw_only=True):
    """One source or sink of the file: its URI, raw options and the common keys."""

    id: str
    uri: str
    common: Endpoint
    options: dict[str, Any]
    path: Path


class Pipeline(Strict, frozen=True, kw_only=True):
    """A whole pipeline file.

    ``deadline`` counts from the reading of an item. ``source`` or ``sources``, ``stages`` and ``sinks`` are raw here;
    :mod:`skerry.spec.reading` turns them into entries.
    """

    skerry: Literal[1]
    name: str
    source: Any = None
    sources: list[Any] = []
    models: dict[str, Model] = {}
    deadline: Duration | None = None
    stages: list[Any] = []
    sinks: list[Any] = []
    dead_letter: str | None = None
    privacy: dict[str, Privacy] = {}
    ladder: Ladder | None = None
    duty: Duty | None = None
    drain: Duration = Duration(10.0)
    """How long the work that is left at shutdown may take."""
    sync: Duration = Duration(0.5)
    """How long a written answer may wait to be made durable: what a power cut can undo (it is then done again)."""
    timing: Literal["adaptive", "every", "sampled"] = "adaptive"
    """Which records' stages are timed: up to 20,000 a second, every one, or one in sixteen."""
    insecure: bool = False
