"""Progress: what a build is doing, and for how long yet, a line each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TextIO


class Progress:
    """Writes lines such as ``[2/4] minilm: quantize to int8, about 3 s``; silent without a stream.

    Parameters
    ----------
    steps:
        How many steps there will be, at the most.
    seconds:
        How long all of it may take, where that is known and the number of steps is not: lines begin with the time
        that was spent, as ``[2:05 of 10:00]``.
    """

    def __init__(self, stream: TextIO | None, steps: int = 0, *, seconds: float = 0.0) -> None:
        self._stream = stream
        self._steps = steps
        self._step = 0
        self._seconds = seconds
        self._began = time.monotonic()

    @contextlib.contextmanager
    def step(self, what: str, about_s: float = 0.0) -> Iterator[None]:
        """Announce a step and how many seconds it may take, and tell afterwards how many it took."""
        self._step += 1
        place = self._place()
        self._say(f"{place} {what}, about {about_s:.0f} s" if about_s >= 1 else f"{place} {what}")
        start = time.monotonic()
        yield
        took = time.monotonic() - start
        if took >= 1:
            self._say(f"{' ' * len(place)} done in {took:.1f} s")

    def found(self, what: str) -> None:
        """Tell that a step was done by an earlier build."""
        self._step += 1
        self._say(f"{self._place()} {what}: in the cache")

    def _place(self) -> str:
        """Return how far it has come, in brackets."""
        if not self._seconds:
            return f"[{self._step}/{self._steps}]"
        spent = time.monotonic() - self._began
        return f"[{_minutes(spent)} of {_minutes(self._seconds)}]"

    def _say(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


def _minutes(seconds: float) -> str:
    """Return a time as minutes and seconds.

    >>> _minutes(125)
    '2:05'
    """
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02}"
