"""The engine: what it costs, adds and weighs, beside bare loops, queues by hand, and servers of models.

``make bench-engine`` takes about four minutes; ``python -m bench.engine --quick`` one, with fewer repeats, and
``--only cost,latency`` measures some of the subjects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench.engine_rows import cost, frame, latency, serving, startup, throughput
from bench.subjects import measure

SUBJECTS: dict[str, Callable[..., None]] = {
    "throughput": throughput.add_rows,
    "cost": cost.add_rows,
    "latency": latency.add_rows,
    "serving": serving.add_rows,
    "frame": frame.add_rows,
    "startup": startup.add_rows,
}
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print and write the report; return 1 when a bound is broken."""
    return measure("engine", __doc__, SUBJECTS, PACKAGES, arguments)


if __name__ == "__main__":
    sys.exit(main())
