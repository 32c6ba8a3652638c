"""The decision: what a free lane does now, send or wait. Pure: everything it needs is in the situation."""

from __future__ import annotations

from typing import Literal

import msgspec

from skerry.run.uplink.circuit import Circuit

Why = Literal["idle", "linger", "lanes", "put off", "pause", "quiet hours", "budget"]
"""Why nothing is sent now."""

AFTER_EVENT_S = 3600.0
"""A wait that ends with an event (a record, a receipt, a link); the time is only a net."""
SMALLEST_SEND = 600
"""Bytes that the smallest exchange takes: below this much of a budget nothing is begun."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at one moment.

    Parameters
    ----------
    now:
        Seconds of a monotonic clock, the circuit's.
    pending:
        Records that wait and are not on their way.
    full_at:
        Records of a full batch.
    waited_s:
        For how long the first of them waits.
    has_critical:
        Whether there is one of the class critical among them.
    in_flight, most_in_flight:
        Batches on their way, and how many there may be.
    circuit:
        Whether the hub is worth a try.
    quiet_s:
        For how many seconds more it is quiet.
    budget:
        Bytes of today's budget that are left and not set aside; ``None`` without a budget.
    day_left_s:
        Seconds until there is a new budget.
    linger_s:
        How long a batch that is not full waits for company.
    critical_in_quiet_hours, critical_over_budget:
        What records of the class critical may do.
    """

    now: float
    pending: int
    full_at: int
    waited_s: float
    has_critical: bool
    in_flight: int
    most_in_flight: int
    circuit: Circuit
    quiet_s: float = 0.0
    budget: int | None = None
    day_left_s: float = 86400.0
    linger_s: float = 0.0
    critical_in_quiet_hours: bool = True
    critical_over_budget: bool = False


class Send(msgspec.Struct, frozen=True):
    """Send a batch: of critical records only, and of at most so many bytes on the wire."""

    only_critical: bool = False
    most_bytes: int | None = None


class Wait(msgspec.Struct, frozen=True):
    """Wait so many seconds, or for an event."""

    seconds: float
    why: Why


def decide(at: Situation) -> Send | Wait:
    """Return what a free lane does. The first reason to wait, in the order below, is told."""
    if at.pending <= 0:
        return Wait(AFTER_EVENT_S, "idle")
    if at.in_flight >= at.circuit.most_in_flight(at.most_in_flight):
        return Wait(AFTER_EVENT_S, "lanes")
    if (pause := at.circuit.wait_s(at.now)) > 0:
        return Wait(pause, "put off" if at.circuit.told > at.now else "pause")
    if (linger := at.linger_s - at.waited_s) > 0 and at.pending < at.full_at and not at.has_critical:
        return Wait(linger, "linger")
    return _within_limits(at)


def _within_limits(at: Situation) -> Send | Wait:
    """Apply quiet hours and the budget, which critical records may pass where the options say so."""
    only_critical = False
    if at.quiet_s > 0:
        if not (at.has_critical and at.critical_in_quiet_hours):
            return Wait(at.quiet_s, "quiet hours")
        only_critical = True
    if at.budget is not None and at.budget < SMALLEST_SEND:
        if not (at.has_critical and at.critical_over_budget):
            return Wait(at.day_left_s, "budget")
        return Send(only_critical=True)
    return Send(only_critical=only_critical, most_bytes=at.budget)
