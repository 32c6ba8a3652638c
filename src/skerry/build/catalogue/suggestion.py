"""A suggestion: which models of the catalogue are predicted to fit limits, and which come near.

Pure: an entry and a device's profile in, an ordered list out. A model that fits is shown in the mildest precision that
does, because quality is what is left to choose once the limits hold. Models are ordered by the published figure of
their task's metric; figures of different metrics are not compared, so those without that figure follow, the smallest
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from skerry.build.catalogue import ModelEntry, Quality, Tasks
from skerry.build.catalogue.prediction import Prediction, Runtime, Setting, predictions
from skerry.spec.profile import DeviceProfile

LimitName = Literal["size", "memory", "latency"]
LEFT_OUT = ("language", "licence")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for.

    Attributes
    ----------
    task:
        A task of the catalogue.
    memory_bytes, size_bytes, latency_s:
        Limits in bytes and seconds; ``None`` for none.
    language:
        A code of ISO 639; ``None`` for any.
    licence:
        ``permissive``, ``commercial`` (conditions included), ``any``, or the identifier of one.
    runtime:
        The only one to use; ``None`` for any.
    """

    task: str
    memory_bytes: float | None = None
    size_bytes: float | None = None
    latency_s: float | None = None
    language: str | None = None
    licence: str = "any"
    runtime: Runtime | None = None


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that a prediction breaks: by the factor ``over`` (above 1; ``None`` where nothing can be predicted)."""

    limit: LimitName
    allowed: float
    predicted: float | None
    over: float | None


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """A model in one precision with one runtime, and the limits that it breaks: none if it fits."""

    model: ModelEntry
    prediction: Prediction
    quality: Quality | None = None
    breaks: tuple[Broken, ...] = ()


class Suggestions(NamedTuple):
    """What fits, best first; what comes near, nearest first; how many were left out, and for what."""

    fits: tuple[Suggestion, ...]
    near: tuple[Suggestion, ...]
    left_out: dict[str, int]


def suggest(
    models: Iterable[ModelEntry],
    wish: Wish,
    known: Tasks,
    device: DeviceProfile | None = None,
    setting: Setting | None = None,
) -> Suggestions:
    """Sort the models of a task into those that are predicted to fit and those that are not.

    Parameters
    ----------
    models:
        Entries, such as the values of ``catalogue()``.
    wish:
        The task and its limits. On a device, its usable memory is a limit too.
    known:
        The tasks and metrics, ``tasks()``.
    device, setting:
        As for ``predictions``.
    """
    task_metric = known.tasks[wish.task].metric
    asked = _on_device(wish, device)
    fits: list[Suggestion] = []
    near: list[Suggestion] = []
    left_out = dict.fromkeys(LEFT_OUT, 0)
    for model in models:
        if wish.task not in model.tasks:
            continue
        reason = left_out_for(model, wish)
        if reason is not None:
            left_out[reason] += 1
            continue
        found = best(model, asked, task_metric, device, setting)
        (near if found.breaks else fits).append(found)
    lower = known.metrics[task_metric].better == "lower"
    fits.sort(key=lambda one: _merit(one, lower=lower))
    near.sort(key=lambda one: (_worst(one.breaks), *_merit(one, lower=lower)))
    return Suggestions(tuple(fits), tuple(near), left_out)


def left_out_for(model: ModelEntry, wish: Wish) -> str | None:
    """Tell why a model is no candidate at all, whatever the limits: ``language``, ``licence`` or ``None``."""
    if wish.language is not None and not model.speaks(wish.language):
        return "language"
    licence = model.licence
    allowed = {"any": True, "permissive": licence.permissive, "commercial": licence.commercial != "no"}
    return None if allowed.get(wish.licence, licence.id == wish.licence) else "licence"


def best(
    model: ModelEntry, wish: Wish, metric: str, device: DeviceProfile | None = None, setting: Setting | None = None
) -> Suggestion:
    """The mildest precision that fits, or else the one that comes nearest."""
    quality = next((figure for figure in model.quality if figure.metric == metric), None)
    candidates = [
        Suggestion(model=model, prediction=one, quality=quality, breaks=broken(one, wish))
        for one in predictions(model, device, setting, runtime=wish.runtime)
    ]
    return min(candidates, key=lambda one: _worst(one.breaks))  # of equals the first, which is the mildest


def broken(prediction: Prediction, wish: Wish) -> tuple[Broken, ...]:
    """The limits that a prediction breaks, the worst first; what cannot be predicted keeps no limit."""
    pairs: tuple[tuple[LimitName, float | None, float | None], ...] = (
        ("size", wish.size_bytes, prediction.size_bytes),
        ("memory", wish.memory_bytes, prediction.memory_bytes),
        ("latency", wish.latency_s, prediction.latency_s),
    )
    found = [
        Broken(limit=name, allowed=allowed, predicted=value, over=_over(value, allowed))
        for name, allowed, value in pairs
        if allowed is not None and (value is None or value > allowed)
    ]
    return tuple(sorted(found, key=lambda one: -(one.over or float("inf"))))


def _over(value: float | None, allowed: float) -> float | None:
    """By what factor a limit is broken; ``None`` where that is no number: a limit of zero, or nothing predicted."""
    return None if value is None or allowed <= 0 else value / allowed


def _on_device(wish: Wish, device: DeviceProfile | None) -> Wish:
    usable = None if device is None else device.memory.usable_bytes
    limits = [float(limit) for limit in (wish.memory_bytes, usable) if limit is not None]
    return msgspec.structs.replace(wish, memory_bytes=min(limits, default=None))


def _worst(breaks: tuple[Broken, ...]) -> float:
    """How far the worst limit is missed, as a factor; 1 when nothing is broken."""
    return max((one.over or float("inf") for one in breaks), default=1.0)


def _merit(one: Suggestion, *, lower: bool) -> tuple[bool, float, float, str]:
    """The place in the order: those with the figure first, the better first, then the smaller, then by name."""
    if one.quality is None:
        return True, 0.0, one.prediction.size_bytes, one.model.name
    value = one.quality.value
    return False, value if lower else -value, one.prediction.size_bytes, one.model.name
