"""Serving: what ``skerry serve`` adds to a bare model, beside LitServe and BentoML, with one client for all.

``make bench-serve`` takes about three minutes; ``python -m bench.serve --quick`` one, and ``--only overhead,protocol``
measures some of the subjects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bench.serve_rows import overhead, protocol, startup
from bench.subjects import measure

SUBJECTS: dict[str, Callable[..., None]] = {
    "overhead": overhead.add_rows,
    "protocol": protocol.add_rows,
    "startup": startup.add_rows,
}
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "httptools", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print and write the report; return 1 when a bound is broken."""
    return measure("serve", __doc__, SUBJECTS, PACKAGES, arguments)


if __name__ == "__main__":
    sys.exit(main())
