"""The user's own functions in the pipeline of the soak; copied beside its file."""

from __future__ import annotations

import random
import time
from typing import Any

_chance = random.Random(3)


def unreliable(fields: dict[str, Any]) -> dict[str, Any] | list[dict[str, Any]] | None:
    """Fail, stop, multiply and dawdle now and then."""
    draw = _chance.random()
    if draw < 0.02:
        raise ValueError("bad luck")
    if draw < 0.05:
        return None
    if draw < 0.08:
        return [fields, {**fields, "copy": True}]
    if draw < 0.09:
        time.sleep(0.05)
    return fields


def busy(fields: dict[str, Any]) -> dict[str, Any]:
    """Keep a core busy for a moment, in a process of its own; die now and then."""
    if _chance.random() < 0.0005:
        import os

        os._exit(7)
    fields["letters"] = sum(ord(letter) for letter in str(fields.get("text", ""))[:200])
    return fields
