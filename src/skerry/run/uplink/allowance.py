"""The allowance: how many bytes of today's budget each class of link has left.

A day is counted down in seconds, so that no jump of the wall clock gives a device a second budget: within one boot only
the time that passed counts. Over a restart of the machine it is the wall clock's, and only forwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

DAY_S = 86400.0


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent in the present day.

    Parameters
    ----------
    spent:
        Bytes by class of link.
    left_s:
        Seconds until the next day begins, as of ``mono_s`` and ``wall_s``.
    boot:
        The boot of the machine in which ``mono_s`` holds.
    mono_s, wall_s:
        When this was brought up to date, on both clocks.
    """

    spent: dict[str, int] = {}
    left_s: float = DAY_S
    boot: str = ""
    mono_s: float = 0.0
    wall_s: float = 0.0


def brought_to(allowance: Allowance, boot: str, mono_s: float, wall_s: float, *, until_midnight_s: float) -> Allowance:
    """Return the allowance at a later moment; a new day begins when the old one is over.

    ``until_midnight_s`` is how long the new day would last by the wall clock, up to a day; every later one is whole.
    """
    same_boot = allowance.boot == boot
    passed = mono_s - allowance.mono_s if same_boot else wall_s - allowance.wall_s
    left = allowance.left_s - max(0.0, passed)
    begins = left <= 0.0
    length = min(max(until_midnight_s, 1.0), DAY_S)
    return Allowance(
        spent={} if begins else allowance.spent,
        left_s=length if begins else left,
        boot=boot,
        mono_s=mono_s,
        wall_s=wall_s,
    )


def charged(allowance: Allowance, link: str, size: int) -> Allowance:
    """Return the allowance with ``size`` more bytes spent; a negative size gives back what was set aside."""
    now = max(0, allowance.spent.get(link, 0) + size)
    return msgspec.structs.replace(allowance, spent={**allowance.spent, link: now})


def left(allowance: Allowance, budgets: Mapping[Any, float], link: str) -> int | None:
    """Return the bytes that a class of link has left today; ``None`` where it has no budget.

    A class without a budget of its own is not limited. What the system calls metered falls under ``metered``.
    """
    budget = budgets.get(link)
    if budget is None:
        return None
    return max(0, int(budget) - allowance.spent.get(link, 0))
