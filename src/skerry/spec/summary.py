"""A summary: what a run did so far, in counts that balance."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from skerry.spec.record import Fate


class Percentiles(msgspec.Struct, frozen=True):
    """Latency in milliseconds; ``None`` while nothing was measured."""

    p50: float | None = None
    p99: float | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Records by fate.

    ``items_in = items_out + filtered + absorbed + dropped + expired + failed + in_flight`` for every stage. ``emitted``
    counts records that a stage sent on beyond those that it took; for the whole they stand on the left side.
    """

    items_in: int = 0
    items_out: int = 0
    filtered: int = 0
    absorbed: int = 0
    emitted: int = 0
    dropped: int = 0
    expired: int = 0
    failed: int = 0
    in_flight: int = 0

    def settled(self) -> int:
        """How many records met a fate here, of those that came in."""
        return (
            self.items_out + self.filtered + self.absorbed + self.dropped + self.expired + self.failed
        )  # fmt: skip


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits before a segment of stages, and what it can hold (bytes as read by the source)."""

    items: int
    bytes: int
    max_items: int
    max_bytes: int
    policy: str


class RouteState(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered at a stage that may ask a cloud: ``items = answered + cached + sum(local.values())``.

    ``local`` counts local answers by the reason why they stood, ``faults`` what went wrong with those that were asked
    for, ``agreed`` those of the cloud's answers that were the local ones. ``revised`` better answers came later,
    ``waiting`` are still to come. ``alarmed`` tells that drift is suspected, and so no local answer is sure.
    """

    threshold: float
    alarmed: bool = False
    items: int = 0
    answered: int = 0
    cached: int = 0
    agreed: int = 0
    local: dict[str, int] = {}
    faults: dict[str, int] = {}
    waiting: int = 0
    revised: int = 0
    requests: int = 0
    bytes: int = 0
    money: float = 0.0


class StageSummary(Counts, frozen=True, kw_only=True):
    """The counts of one source, stage or sink, each loss broken down by reason.

    ``reasons`` maps a fate (``dropped``, ``failed``, …) to counts by reason; ``latency_ms`` is the
    time inside the stage. ``counters`` are what a sink counts of its own.
    """

    id: str
    kind: str
    role: Literal["source", "stage", "sink"]
    reasons: dict[str, dict[str, int]] = {}
    latency_ms: Percentiles = Percentiles()
    queue: QueueState | None = None
    restarts: int = 0
    route: RouteState | None = None
    counters: dict[str, int] = {}
    state: str = ""
    """``running``, ``waiting`` (to come up again), ``done``, ``failed``; sleeping pipelines say ``asleep``."""


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """The variant that answers now, and how a shadow agrees with it (mean cosine over ``shadow_items``).

    ``shadow_dropped`` items were to be compared, but the shadow had no room for them.
    """

    variant: str
    runtime: str
    swaps: int = 0
    shadow: str | None = None
    shadow_items: int = 0
    shadow_agreement: float | None = None
    shadow_dropped: int = 0


class RunSummary(Counts, frozen=True, kw_only=True):
    """The whole run; what ``skerry run --json`` prints at its end.

    ``latency_ms`` is from reading an item to its last fate. ``energy_j`` is ``None`` where no counter exists.
    """

    pipeline: str
    status: Literal["running", "asleep", "done", "failed"] = "running"
    error: str | None = None
    release: str | None = None
    model: str | None = None
    runtime: str | None = None
    models: dict[str, ModelState] = {}
    rung: int = 0
    wall_s: float = 0.0
    awake_s: float = 0.0
    cpu_s: float = 0.0
    energy_j: float | None = None
    peak_rss_bytes: int = 0
    latency_ms: Percentiles = Percentiles()
    stages: list[StageSummary] = []
    last: list[dict[str, Any]] = []

    def imbalance(self) -> dict[str, int]:
        """Return by how many records each place breaks the conservation law; empty when it holds."""
        gaps = {stage.id: stage.items_in - stage.settled() - stage.in_flight for stage in self.stages}
        gaps["pipeline"] = self.items_in + self.emitted - self.settled() - self.in_flight
        return {place: gap for place, gap in gaps.items() if gap}


LOSSES: tuple[Fate, ...] = (Fate.FILTERED, Fate.ABSORBED, Fate.DROPPED, Fate.EXPIRED, Fate.FAILED)
"""The fates other than going out, in the order in which they are reported."""
