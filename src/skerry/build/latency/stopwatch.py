"""The stopwatch: the processor time that a form takes for texts of given lengths, in a process of its own.

The least of many short rounds counts, and processor time instead of the time that passed: what other processes do makes
a run longer and never shorter. So it is the latency on a core that is otherwise idle, with warm caches.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.build.artifact import Artifact
from skerry.build.contender import confined
from skerry.build.exchange import Asked, Times, Turn
from skerry.build.latency.encoders import text_of
from skerry.build.limits import Limits, choose_cores

ROUNDS = 6
ROUND_MS = 30.0
_LOAD_S = 180.0
_PATIENCE_S = 120.0


def times_ms(artifact: Artifact, lengths: Sequence[int], *, rounds: int = ROUNDS) -> dict[int, float]:
    """Return the milliseconds of processor time for a text of each length, with one thread.

    ``artifact`` is an encoder of :mod:`skerry.build.latency.encoders`, whose tokens are letters. Raises
    ``ContenderError`` when it cannot be loaded or fails.
    """
    limits = Limits(cores=1)
    least: dict[int, float] = {}
    with confined(artifact, 1, choose_cores(1), limits) as contender:
        contender.load(text_of(lengths[0]), _LOAD_S)

        def turn(length: int, repeats: int) -> float:
            texts: list[Asked] = [text_of(length)] * repeats
            times = contender.ask(Turn(lead=texts[:1], items=texts), Times, _PATIENCE_S)
            return times.cpu_ms / (repeats + 1)

        for length in lengths:
            least[length] = turn(length, 2)
        for _ in range(rounds):
            for length in lengths:
                repeats = max(1, min(40, round(ROUND_MS / max(least[length], 1e-3))))
                least[length] = min(least[length], turn(length, repeats))
    return least
