"""The subjects of a benchmark: its parts, which can be measured one by one, and its command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from bench.report import Report, table

Subjects = Mapping[str, Callable[..., None]]
"""What adds the rows of each subject to a report: called with the report and ``quick``."""


def measure(
    name: str, about: str, subjects: Subjects, packages: Sequence[str], arguments: Sequence[str] | None = None
) -> int:
    """Measure the subjects that were asked for, print and write the report; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and rounds: wider spreads, less time")
    parser.add_argument("--only", metavar="SUBJECTS", help=f"some of {','.join(subjects)}; nothing is written then")
    chosen = parser.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else list(subjects)
    if unknown := [one for one in names if one not in subjects]:
        parser.error(f"no subject {unknown[0]!r}; there are {', '.join(subjects)}")
    report = Report(name, packages=packages)
    for one in names:
        begin = time.monotonic()
        print(f"{one} …", file=sys.stderr, end="", flush=True)
        subjects[one](report, quick=chosen.quick)
        print(f" {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    if chosen.only:
        print(table(report.rows))
        return 1 if report.broken() else 0
    return report.finish()
