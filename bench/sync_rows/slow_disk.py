"""A slow disk: each sync takes a while longer, as on a card, for the outbox and for the floor alike."""

from __future__ import annotations

import time
from typing import Any

import apsw


class SlowDisk(apsw.VFS):
    """SQLite's own file layer, whose syncs take ``delay_s`` longer; its ``name`` is what a store is opened with."""

    def __init__(self, delay_s: float) -> None:
        self.name = f"slow-disk-{id(self)}"
        self.delay_s = delay_s
        super().__init__(self.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - the name that apsw calls
        """Open a file."""
        return _SlowFile(self.delay_s, name, flags)


class _SlowFile(apsw.VFSFile):
    def __init__(self, delay_s: float, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._delay_s = delay_s

    def xSync(self, flags: int) -> None:  # noqa: N802
        time.sleep(self._delay_s)
        super().xSync(flags)
