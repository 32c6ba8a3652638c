"""``skerry build``: make the models of a pipeline fit the device."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skerry.build.report import BudgetLine, ModelReport, Report, VariantReport

_DESCRIPTION = """\
Take every model that the pipeline names, export it to ONNX, quantize it to int8, measure it against the
original, and write .skerry/NAME/ beside the pipeline file. What was made before is found in the cache
($SKERRY_CACHE, else ~/.cache/skerry), so that building again takes a second."""

_EXAMPLES = """\
examples:
  skerry build examples/log-triage
  skerry build . --json | jq '.lock.models[].variants[0].figures'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "build",
        help="make a model fit the device, by measurement",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", metavar="PIPELINE", type=Path, help="a pipeline file, or the folder of one")
    parser.add_argument("--keep-fp32", action="store_true", help="keep the fp32 form too, as the best variant")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, and print the report; a budget that does not hold is said, and does not change the exit code."""
    import msgspec

    from skerry.build.building import STEPS_PER_MODEL, build_project
    from skerry.build.cache import Cache, default_folder
    from skerry.build.progress import Progress
    from skerry.spec.reading import read_project

    project = read_project(args.pipeline)
    progress = Progress(sys.stderr, STEPS_PER_MODEL * len(project.pipeline.models))
    report = build_project(project, Cache(default_folder()), progress, keep_fp32=args.keep_fp32)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _print(report)
    return 0


def _print(report: Report) -> None:
    for name, model in report.lock.models.items():
        _print_model(name, model)
    done = "written to" if report.changed else "is up to date in"
    print(f"release {report.lock.release[:19]} {done} {report.folder} ({report.seconds:.1f} s)")


def _print_model(name: str, model: ModelReport) -> None:
    from skerry.cli.figures import milliseconds

    print(f"{name}: {model.source}")
    if model.reference is not None:
        print(
            f"  against fp32 ({milliseconds(model.reference.latency_p50_ms)} per text), "
            f"on {model.reference.texts} texts ({model.texts}):"
        )
    for variant in model.variants:
        print(f"  {_variant_line(variant, model)}")
    for line in model.budget:
        print(f"  budget: {_budget_line(line)}")


def _variant_line(variant: VariantReport, model: ModelReport) -> str:
    from skerry.cli.figures import milliseconds, size

    figures = variant.figures
    if figures is None or model.reference is None:
        return f"{variant.name}  {variant.runtime}  {size(variant.size)}"
    faster = model.reference.latency_p50_ms / figures.latency_p50_ms
    return (
        f"{variant.name}  {size(variant.size)}  {milliseconds(figures.latency_p50_ms)} ({faster:.1f}x)  "
        f"agreement {figures.agreement:.3f}  cosine {figures.cosine_mean:.4f}  peak {size(figures.peak_bytes)}"
    )


def _budget_line(line: BudgetLine) -> str:
    from skerry.cli.figures import milliseconds, size

    if line.value is None:
        return f"{line.limit} must be {line.must}: not measured"
    said = f"{line.value:.3f}"
    if line.limit.startswith("latency"):
        said = milliseconds(line.value * 1e3)
    elif line.limit in {"memory", "size"}:
        said = size(line.value)
    return f"{line.limit} must be {line.must}, is {said}: {'holds' if line.holds else 'DOES NOT HOLD'}"
