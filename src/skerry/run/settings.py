"""Settings: what a run is given beside its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from skerry.spec.pipeline import Duty, Ladder
from skerry.spec.ports import Log

Timing = Literal["adaptive", "every", "sampled"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one pipeline runs. Times are in seconds, deadlines in nanoseconds."""

    name: str
    home: Path
    state: Path
    log: Log
    deadline_ns: int = 0
    drain_s: float = 10.0
    sync_s: float = 0.5
    timing: Timing = "adaptive"
    insecure: bool = False
    release: str | None = None
    ladder: Ladder | None = None
    duty: Duty | None = None
