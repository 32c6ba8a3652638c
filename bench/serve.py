"""Serving: what ``skerry serve`` adds to a bare model, beside LitServe and BentoML, with one client for all.

``make bench-serve`` takes about three minutes; ``python -m bench.serve --quick`` one, and ``--only overhead,protocol``
measures some of the subjects.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from bench.report import Report, table
from bench.serve_rows import overhead, protocol, startup

SUBJECTS: dict[str, Callable[..., None]] = {
    "overhead": overhead.add_rows,
    "protocol": protocol.add_rows,
    "startup": startup.add_rows,
}
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "httptools", "uvicorn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print and write the report; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats: wider spreads, a minute")
    parser.add_argument("--only", metavar="SUBJECTS", help=f"some of {','.join(SUBJECTS)}; nothing is written then")
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(SUBJECTS)
    if unknown := [name for name in names if name not in SUBJECTS]:
        parser.error(f"no subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    report = Report("serve", packages=PACKAGES)
    for name in names:
        begin = time.monotonic()
        print(f"{name} …", file=sys.stderr, end="", flush=True)
        SUBJECTS[name](report, quick=chosen.quick)
        print(f" {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    if chosen.only:
        print(table(report.rows))
        return 1 if report.broken() else 0
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
