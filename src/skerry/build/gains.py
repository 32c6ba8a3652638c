"""Gains: what a step gained, told from the figures of a candidate and of the same one without that step. Pure.

Some techniques change a model for the sake of hardware that exploits it, such as zeros among the weights. Whether this
machine does is measured, and said in a sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from skerry.build.artifact import Step
from skerry.build.figures import Estimate
from skerry.build.findings import Candidate, Measured

_SAME_SIZE = 0.02
"""Sizes that differ by less are called equal: scales and names of layers differ a little."""

_Key = tuple[str, int, tuple[str, ...]]


def with_gains(candidates: Iterable[Candidate], doubtful: Collection[str]) -> tuple[Candidate, ...]:
    """Return the candidates, those with a step of a ``doubtful`` technique with a note of what it gained.

    The same candidate without the step has the same runtime, threads and names of techniques: settings that were found
    by measuring the weights may differ. Where none was measured, nothing is noted.
    """
    every = tuple(candidates)
    plain = {_key(each, each.steps): each for each in reversed(every) if isinstance(each.outcome, Measured)}
    return tuple(_noted(each, plain, doubtful) for each in every)


def _noted(candidate: Candidate, plain: dict[_Key, Candidate], doubtful: Collection[str]) -> Candidate:
    kept = tuple(step for step in candidate.steps if step.technique not in doubtful)
    if len(kept) == len(candidate.steps) or not isinstance(candidate.outcome, Measured):
        return candidate
    other = plain.get(_key(candidate, kept))
    if other is None:
        return candidate
    dropped = next(step.technique for step in candidate.steps if step.technique in doubtful)
    return msgspec.structs.replace(candidate, note=_sentence(dropped, candidate, other))


def _key(candidate: Candidate, steps: tuple[Step, ...]) -> _Key:
    return candidate.runtime, candidate.threads, tuple(step.technique for step in steps)


def _sentence(technique: str, one: Candidate, other: Candidate) -> str:
    assert isinstance(one.outcome, Measured) and isinstance(other.outcome, Measured)
    new, old = one.outcome.figures, other.outcome.figures
    speed = f"no speed ({_times(new.speedup)}, without it {_times(old.speedup)})"
    if new.speedup.low > old.speedup.high:
        speed = f"speed ({_times(new.speedup)}, without it {_times(old.speedup)})"
    size = f"no room ({new.size_bytes / 1e6:.1f} MB, without it {old.size_bytes / 1e6:.1f})"
    if new.size_bytes < (1 - _SAME_SIZE) * old.size_bytes:
        size = size.removeprefix("no ")
    return f"{technique} gains {speed} and {size} on {one.runtime} here"


def _times(speedup: Estimate) -> str:
    return f"{speedup.value:.2f}×, {speedup.low:.2f} to {speedup.high:.2f}"
