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
    """

    def __init__(self, stream: TextIO | None, steps: int = 0) -> None:
        self._stream = stream
        self._steps = steps
        self._step = 0

    @contextlib.contextmanager
    def step(self, what: str, about_s: float = 0.0) -> Iterator[None]:
        """Announce a step and how many seconds it may take, and tell afterwards how many it took."""
        self._step += 1
        head = f"[{self._step}/{self._steps}] {what}"
        self._say(f"{head}, about {about_s:.0f} s" if about_s >= 1 else head)
        start = time.monotonic()
        yield
        took = time.monotonic() - start
        if took >= 1:
            self._say(f"{' ' * len(f'[{self._step}/{self._steps}]')} done in {took:.1f} s")

    def found(self, what: str) -> None:
        """Tell that a step was done by an earlier build."""
        self._step += 1
        self._say(f"[{self._step}/{self._steps}] {what}: in the cache")

    def _say(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)
