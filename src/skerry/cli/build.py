"""``skerry build``: make the models of a pipeline fit the device."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skerry.cli.arguments import duration
from skerry.spec.errors import UsageError

if TYPE_CHECKING:
    from skerry.build.report import BudgetLine, ModelReport, Report, VariantReport
    from skerry.spec.reading import Project

_DESCRIPTION = """\
Take every model that the pipeline names, export it to ONNX, quantize it to int8, measure it against the
original, and write .skerry/NAME/ beside the pipeline file. What was made before is found in the cache
($SKERRY_CACHE, else ~/.cache/skerry), so that building again takes a second."""

_EXAMPLES = """\
examples:
  skerry build examples/log-triage
  skerry build examples/log-triage --time 3min      search for the best forms within the budget
  skerry build . --time 3min --device raspberry-pi-5   for a device that is not here, by prediction
  skerry build . --json | jq '.lock.models[].variants[0].figures'
"""


_MOST_SEED = 2**32 - 1
"""What all that draws by it takes."""


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
    parser.add_argument(
        "--time",
        metavar="TIME",
        type=duration,
        help="search within the budget, this long for each model",
    )
    parser.add_argument("--seed", metavar="N", type=_seed, help="decides what is random in a search (0)")
    parser.add_argument("--threads", metavar="N,…", type=_threads, help="thread counts to try: 1,2 (1)")
    parser.add_argument(
        "--device", metavar="NAME", help="plan for a device of the catalogue (skerry probe --list-devices)"
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="measure this machine first, so that predictions fit it: minutes, once",
    )
    parser.add_argument("--prune", action="store_true", help="let the search prune and distil too, which takes hours")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, and print the report; a budget that does not hold is said, and does not change the exit code."""
    from skerry.cli.signals import ending_like_ctrl_c
    from skerry.spec.reading import read_project

    _refuse_what_would_be_ignored(args)
    project = read_project(args.pipeline)
    try:
        with ending_like_ctrl_c():
            return _build(project, args) if args.time is None else _search(project, args)
    except KeyboardInterrupt:
        print("skerry: interrupted; what was finished is in the cache, and is not done again", file=sys.stderr)
        raise


def _refuse_what_would_be_ignored(args: argparse.Namespace) -> None:
    """Raise ``UsageError`` for an option of a search where there is none, and for one that a search does not know."""
    of_a_search = {
        "--device": args.device is not None, "--calibrate": args.calibrate, "--prune": args.prune,
        "--threads": args.threads is not None, "--seed": args.seed is not None,
    }  # fmt: skip
    option = next((name for name, given in of_a_search.items() if given), None)
    if args.time is None and option is not None:
        raise UsageError(f"{option} needs a search", where=option, hint="say how long with --time, such as --time 3min")
    if args.time is not None and args.keep_fp32:
        raise UsageError("a search keeps what wins", where="--keep-fp32", hint="leave out --keep-fp32 or --time")


def _build(project: Project, args: argparse.Namespace) -> int:
    """Make the one form that needs no search, and print its figures."""
    import msgspec

    from skerry.build.building import STEPS_PER_MODEL, build_project
    from skerry.build.cache import Cache, default_folder
    from skerry.build.progress import Progress

    progress = Progress(sys.stderr, STEPS_PER_MODEL * len(project.pipeline.models))
    report = build_project(project, Cache(default_folder()), progress, keep_fp32=args.keep_fp32)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _print(report)
    return 0


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 to {_MOST_SEED}")
    return int(text)


def _threads(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of thread counts, such as 1,2")
    return found


def _search(project: Project, args: argparse.Namespace) -> int:
    """Search within the budget, and print what was found."""
    import msgspec

    from skerry.build import table
    from skerry.build.cache import Cache, default_folder
    from skerry.build.model_search import Wish
    from skerry.build.progress import Progress
    from skerry.build.searching import missing_toolchains, search_project
    from skerry.build.technique import Kind
    from skerry.device.catalogue import load_device

    kinds: tuple[Kind, ...] = ("prune", "distill", "convert", "quantize") if args.prune else ("convert", "quantize")
    threads = args.threads or (1,)
    if args.device is None:  # a device's cores are looked at where it is planned for
        threads = _fitting(threads)
    wish = Wish(seconds=args.time, kinds=kinds, threads=threads, seed=args.seed or 0, device=args.device)
    if args.device is not None:
        load_device(args.device)  # a wrong name is told before anything is measured
    if args.calibrate:
        _calibrate()
    for name in missing_toolchains(kinds):
        print(f"without the forms of {name}: `skerry toolchain install {name}` would add them", file=sys.stderr)
    progress = Progress(sys.stderr, seconds=args.time * len(project.pipeline.models))
    searched = search_project(project, Cache(default_folder()), progress, wish)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(searched)).decode())
        return 0
    for findings in searched.models.values():
        print(table.render(findings, most=10))
    done = "written to" if searched.changed else "is up to date in"
    print(f"release {done} {searched.folder}, reports in {searched.folder}/reports ({searched.seconds:.1f} s)")
    return 0


def _fitting(threads: tuple[int, ...]) -> tuple[int, ...]:
    """Return the counts that this machine has cores for: more would take turns, and thousands fill the memory.

    Raises ``UsageError`` where that leaves none; what is left out of others is told.
    """
    from skerry.build.limits import choose_cores

    cores = len(choose_cores(None)) or os.cpu_count() or max(threads)
    found = tuple(count for count in threads if count <= cores)
    said = f"this machine has {cores} {'core' if cores == 1 else 'cores'}"
    if not found:
        raise UsageError(said, where=f"--threads {min(threads)}")
    if found != threads:
        print(f"without {max(threads)} threads: {said}", file=sys.stderr)
    return found


def _calibrate() -> None:
    """Measure how fast this machine computes, where that was not done before."""
    from skerry.build.cache import Cache, default_folder
    from skerry.build.latency.calibration import PASSES, SHAPES, calibrate
    from skerry.build.progress import Progress
    from skerry.runtimes.listing import survey

    usable = frozenset(each.name for each in survey() if each.usable)
    calibrate(Cache(default_folder()), Progress(sys.stderr, PASSES * len(SHAPES)), usable)


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
