"""The duty cycle: when a pipeline sleeps and when it wakes. Pure."""

from __future__ import annotations

import msgspec

from skerry.spec.pipeline import Duty


class DutyState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the pipeline is awake, since when, and how long it was so in all; times in seconds."""

    awake: bool = True
    since: float = 0.0
    awake_s: float = 0.0
    wakes: int = 0

    def total_awake(self, now_s: float) -> float:
        """Return the seconds awake up to now."""
        return self.awake_s + (now_s - self.since if self.awake else 0.0)


def next_duty(state: DutyState, duty: Duty, *, now_s: float, last_item_s: float, called: bool) -> DutyState:
    """Return the next state.

    Parameters
    ----------
    last_item_s:
        When the last item came in, on the clock of ``now_s``.
    called:
        Whether the gate or the event asks to wake, or to stay awake.
    """
    if state.awake:
        quiet = now_s - max(last_item_s, state.since)
        if called or quiet < float(duty.awake):
            return state
        return DutyState(awake=False, since=now_s, awake_s=state.total_awake(now_s), wakes=state.wakes)
    timer = duty.every is not None and now_s - state.since >= float(duty.every)
    if called or timer:
        return DutyState(awake=True, since=now_s, awake_s=state.awake_s, wakes=state.wakes + 1)
    return state
