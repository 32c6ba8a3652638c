"""The degrade ladder: when to answer with a cheaper variant, and when with a better one again. Pure."""

from __future__ import annotations

import msgspec

from skerry.spec.pipeline import Ladder


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What the decision looks at. ``None``: unknown, and so no reason to step anywhere.

    ``missed_deadlines``, ``memory_pressure``, ``memory_stall`` and ``battery`` are shares from 0 to 1, ``temperature``
    is in degrees Celsius. ``battery`` is ``None`` on mains.
    """

    missed_deadlines: float | None = None
    memory_pressure: float | None = None
    memory_stall: float | None = None
    temperature: float | None = None
    battery: float | None = None


class LadderState(msgspec.Struct, frozen=True, kw_only=True):
    """Where on the ladder we stand (0 is the best variant), and since when signals have asked for a step."""

    rung: int = 0
    strained_since: float | None = None
    calm_since: float | None = None
    reason: str = ""


def decide(state: LadderState, signals: Signals, limits: Ladder, last_rung: int, now_s: float) -> LadderState:
    """Return the next state; at most one step at a time.

    Parameters
    ----------
    now_s:
        Seconds of a clock that only grows.
    """
    strained = strain(signals, limits)
    if strained:
        since = state.strained_since if state.strained_since is not None else now_s
        if now_s - since >= float(limits.patience) and state.rung < last_rung:
            return LadderState(rung=state.rung + 1, strained_since=now_s, reason=strained)
        return LadderState(rung=state.rung, strained_since=since, reason=state.reason)
    if state.rung and is_calm(signals, limits):
        since = state.calm_since if state.calm_since is not None else now_s
        if now_s - since >= float(limits.recovery):
            return LadderState(rung=state.rung - 1, calm_since=now_s, reason="recovered")
        return LadderState(rung=state.rung, calm_since=since, reason=state.reason)
    return LadderState(rung=state.rung, reason=state.reason)


def strain(signals: Signals, limits: Ladder) -> str:
    """Return in words which signal is beyond its limit; empty when none is."""
    for name in ("missed_deadlines", "memory_pressure", "memory_stall", "temperature"):
        value, limit = getattr(signals, name), float(getattr(limits, name))
        if value is not None and value > limit:
            return f"{name} {value:.3g} > {limit:g}"
    if signals.battery is not None and signals.battery < float(limits.battery):
        return f"battery {signals.battery:.3g} < {float(limits.battery):g}"
    return ""


def is_calm(signals: Signals, limits: Ladder) -> bool:
    """Tell whether every known signal is well within its limit."""
    share = float(limits.up_share)
    for name in ("missed_deadlines", "memory_pressure", "memory_stall", "temperature"):
        value = getattr(signals, name)
        if value is not None and value > share * float(getattr(limits, name)):
            return False
    return signals.battery is None or signals.battery * share >= float(limits.battery)
