"""Changes: what a person wants to be told of, found between two summaries of a run."""

from __future__ import annotations

from collections.abc import Iterator

from skerry.spec.summary import RunSummary, StageSummary

BAD_FATES = ("dropped", "expired", "failed")
STATE_WORDS = {"waiting": "is down and tries to come up", "failed": "has failed"}


def changes(before: RunSummary | None, after: RunSummary) -> list[str]:
    """Return one line per event: sleeping and waking, a rung, a swap, a place that broke, a first loss of a kind."""
    return list(_changes(before or RunSummary(pipeline=after.pipeline), after))


def _changes(before: RunSummary, after: RunSummary) -> Iterator[str]:
    if {before.status, after.status} == {"running", "asleep"}:
        yield "asleep until something wakes it" if after.status == "asleep" else "awake"
    if before.rung != after.rung:
        way = "down to a cheaper" if after.rung > before.rung else "up to a better"
        yield f"stepped {way} variant: rung {before.rung} → {after.rung}"
    for name, model in after.models.items():
        old = before.models.get(name)
        if old is not None and old.variant != model.variant:
            yield f"model {name}: {old.variant} → {model.variant} ({model.runtime})"
    known = {stage.id: stage for stage in before.stages}
    for stage in after.stages:
        yield from _stage_changes(known.get(stage.id), stage)


def _stage_changes(before: StageSummary | None, after: StageSummary) -> Iterator[str]:
    if before is not None and before.state != after.state:
        again = "is up again" if before.state == "waiting" and after.state == "running" else None
        ended = "has ended" if after.state == "done" and after.role == "source" else None
        words = STATE_WORDS.get(after.state, again or ended)
        if words:
            yield f"{after.id} {words}"
    # Told at 1, 2, 4, 8, …: what restarts all the time must not drown the rest.
    if before is not None and after.restarts.bit_length() > before.restarts.bit_length():
        yield f"{after.id} broke and was opened anew ({after.restarts}× so far)"
    for fate in BAD_FATES:
        for reason, number in after.reasons.get(fate, {}).items():
            if not (before.reasons.get(fate, {}) if before else {}).get(reason) and number:
                yield f"{after.id}: the first {fate} for {reason} ({number} so far)"
