"""The decision: whether the cloud is asked for one record, and for what reason it is not. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

HARD: Final = "hard"
"""The reason for asking: the local answer is not sure enough."""
SURE: Final = "sure"
PERSONAL, OFFLINE, BROKEN, LATE = "personal", "offline", "breaker", "deadline"
BYTES, MONEY, BATTERY, HEAT = "bytes", "money", "battery", "heat"
LARGE: Final = "large"
MOST_BYTES: Final = 1_000_000
"""Bytes of one question: no text that a model reads to its end is longer, and a thin link would be busy for minutes."""
WAITS: Final = frozenset({OFFLINE, BROKEN, LATE, BYTES, MONEY, BATTERY, HEAT})
"""Reasons that pass with time: with ``offline: queue`` such a record waits for a better answer."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision looks at. ``None``: unknown or unlimited, and so no reason against asking.

    Parameters
    ----------
    score, threshold:
        How sure the local answer is, and from where on it stands; a ``threshold`` above 1 lets none stand.
    may_leave:
        Whether privacy lets what would be sent leave.
    linked:
        Whether the machine has a link to anywhere at all.
    closed:
        Whether the circuit breaker lets a request pass.
    left_s, predicted_s:
        Seconds until the record's deadline, and those that the exchange will take.
    bytes_needed, bytes_left:
        Of the exchange, and of the day's budget.
    cost, money_left:
        The same of money.
    battery, least_battery:
        Charge from 0 to 1; ``None`` on mains.
    temperature, most_temperature:
        In degrees Celsius.
    """

    score: float
    threshold: float
    may_leave: bool = True
    linked: bool | None = None
    closed: bool = True
    left_s: float | None = None
    predicted_s: float | None = None
    bytes_needed: float = 0.0
    bytes_left: float | None = None
    cost: float = 0.0
    money_left: float | None = None
    battery: float | None = None
    least_battery: float = 0.0
    temperature: float | None = None
    most_temperature: float = float("inf")


class Decision(msgspec.Struct, frozen=True):
    """Whether to ask the cloud, and why, or why not."""

    ask: bool
    reason: str


Policy = Callable[[Situation], str]
"""A reason against asking, or nothing."""


def sure(now: Situation) -> str:
    """Refuse where the local answer is as good as the calibration demands."""
    return SURE if now.score >= now.threshold else ""


def privacy(now: Situation) -> str:
    """Refuse where what would be sent is personal, and neither redacted nor consented to."""
    return "" if now.may_leave else PERSONAL


def connectivity(now: Situation) -> str:
    """Refuse without a link, and while the circuit breaker is open."""
    if now.linked is False:
        return OFFLINE
    return "" if now.closed else BROKEN


def size(now: Situation) -> str:
    """Refuse what no model would read to its end."""
    return LARGE if now.bytes_needed > MOST_BYTES else ""


def deadline(now: Situation) -> str:
    """Refuse where the predicted exchange does not fit the time that is left."""
    if now.left_s is None:
        return ""
    return LATE if now.left_s <= (now.predicted_s or 0.0) else ""


def budget(now: Situation) -> str:
    """Refuse where the day's bytes or money would not last."""
    if now.bytes_left is not None and now.bytes_needed > now.bytes_left:
        return BYTES
    return MONEY if now.money_left is not None and now.cost > now.money_left else ""


def vitals(now: Situation) -> str:
    """Refuse with a low battery, and when it is hot: a radio at work drains the one and adds to the other."""
    if now.battery is not None and now.battery < now.least_battery:
        return BATTERY
    return HEAT if now.temperature is not None and now.temperature > now.most_temperature else ""


POLICIES: tuple[Policy, ...] = (sure, privacy, size, vitals, budget, deadline, connectivity)
"""In this order, so that a record that may never leave is never counted as one that only had to wait. Connectivity is
the last: whoever passes it is the one that tries a broken circuit."""


def decide(now: Situation, policies: tuple[Policy, ...] = POLICIES) -> Decision:
    """Return the first reason against asking, or ask."""
    for policy in policies:
        reason = policy(now)
        if reason:
            return Decision(False, reason)
    return Decision(True, HARD)
