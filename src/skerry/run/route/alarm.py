"""An alarm: a door for whatever notices drift; while it rings, every answer that may is asked of the cloud."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

Alarm = Callable[[], bool]
"""Tells whether the data have drifted away from those that the threshold was calibrated on."""
ALARM_FILE = "drift"
"""In the build's folder, ``.skerry/<name>/``: while a file of this name is there, the alarm rings."""
_LOOK_EVERY_S = 1.0


class FileAlarm:
    """Rings while a file is there: another process, or a person with ``touch``, can raise and clear it."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._looked_s = float("-inf")
        self._rings = False

    def __call__(self) -> bool:
        """Tell whether the file is there; looks once a second."""
        now = self._clock()
        if now - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s, self._rings = now, self._file.exists()
        return self._rings
