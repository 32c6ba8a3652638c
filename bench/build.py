"""The build: what ``skerry build`` finds beside what the best-known tools make of the same model, on held-out text.

``make bench-build`` searches for ten minutes the first time and installs the peers; later it takes about four minutes.
``python -m bench.build --quick`` takes one, with fewer turns. ``--small FOLDER`` names the release of a build with
distillation (``skerry build … --prune``), and ``--unseen FOLDER TEXT`` searches another model on another text.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.build_rows import compared, prediction, unseen
from bench.report import Report, table

PACKAGES = ("numpy", "onnxruntime", "ai-edge-litert", "openvino", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, print and write the report; return 1 when a bound is broken."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.unseen is not None:
            folder, text = chosen.unseen
            return unseen.measure(folder, text, seconds=chosen.time, quick=chosen.quick, packages=PACKAGES).finish()
        report = Report("build", packages=PACKAGES)
        if chosen.only != "prediction":
            compared.add_rows(report, quick=chosen.quick, small=chosen.small, fresh=chosen.fresh)
        if chosen.only != "peers":
            prediction.rows(report, chosen.quick)
        if chosen.only is None:
            return report.finish()
        print(table(report.rows))
        return 1 if report.broken() else 0
    except KeyboardInterrupt:
        print("interrupted: nothing was written; what peers and searches made is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.build", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns and sentences: wider intervals, a minute")
    parser.add_argument("--only", choices=("peers", "prediction"), help="one of the subjects; nothing is written then")
    parser.add_argument("--small", metavar="FOLDER", type=Path, help="the project or release of a distilled form")
    parser.add_argument("--fresh", action="store_true", help="have the peers make their forms anew")
    parser.add_argument(
        "--unseen", nargs=2, metavar=("FOLDER", "TEXT"), type=Path,
        help="search the model in FOLDER by the lines of TEXT, and show what composing gains on lines not seen",
    )  # fmt: skip
    parser.add_argument("--time", metavar="SECONDS", type=float, default=600.0, help="of the search of --unseen (600)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
