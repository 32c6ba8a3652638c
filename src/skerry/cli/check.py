"""``skerry check``: validates a pipeline file without running it, and shows how it would run."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from skerry.spec.errors import CalibrationError, LabelsError, ModelError, SkerryError

if TYPE_CHECKING:
    from skerry.run.plan import Plan
    from skerry.spec.pipeline import StageEntry
    from skerry.spec.reading import Project

EXAMPLES = """\
What is checked: keys, values and units, names, the graph, the options of every source, stage and sink, expressions,
label files, and your own Python (a function is imported, a class opened and closed again). No source, sink or model is
opened. A model that is not built yet, and data that are not there yet, are warnings: both can come later.

examples:
  skerry check watch
  skerry check watch/pipeline.yaml --json
"""


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Something that would keep the pipeline from running as it stands, but is no mistake in the file."""

    message: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What ``skerry check --json`` prints for a valid file.

    ``threads`` lists what each thread runs: a live source, or stages and sinks one after the other. ``takes`` are the
    nodes before it, from which a queue leads to it.
    """

    valid: bool = True
    file: str
    name: str
    sources: list[str]
    stages: list[str]
    sinks: list[str]
    threads: list[dict[str, Any]]
    warnings: list[Warned]


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``check`` and its arguments."""
    parser = commands.add_parser(
        "check",
        help="validate a pipeline file without running it",
        description="Validate a pipeline file without running it, and show its graph.",
        epilog=EXAMPLES,
    )
    parser.add_argument("target", metavar="TARGET", type=Path, help="a project folder or a pipeline file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print what was found; errors in the file are raised."""
    from skerry.cli.run import project_at
    from skerry.spec.reading import read_project

    project = read_project(project_at(args.target))
    checked = check_project(project)
    if args.json:
        print(msgspec.json.encode(checked).decode())
    else:
        print("\n".join(checked_lines(checked)))
    return 0


def check_project(project: Project) -> Checked:
    """Check everything that can be checked without opening a source, a sink or a model.

    Raises ``SpecError`` for a wrong option or expression, ``DependencyError`` for a plugin that cannot be imported,
    ``LabelsError`` for a label file that is none.
    """
    from skerry.run.assembly import make_nodes, plan_of

    if project.dead_letter is not None:  # it is no node of the graph, but its options can be as wrong
        make_nodes(msgspec.structs.replace(project, sinks=(project.dead_letter,), dead_letter=None))
    for stage in project.stages:
        if ":" in stage.kind:
            _check_function(stage, project)
        elif stage.kind == "classify" and isinstance(stage.options.get("labels"), str):
            _check_labels(stage, project)
    return Checked(
        file=str(project.path),
        name=project.name,
        sources=[entry.id for entry in project.sources],
        stages=[entry.id for entry in project.stages],
        sinks=[entry.id for entry in project.sinks],
        threads=_threads(plan_of(project), project),
        warnings=[*_model_warnings(project), *_path_warnings(project), *_route_warnings(project)],
    )


def _check_function(stage: StageEntry, project: Project) -> None:
    """Import a user's function, or make, open and close an object of a user's class."""
    import logging
    import tempfile
    import threading

    from skerry.run.stages.function import FunctionOptions, FunctionStage
    from skerry.spec.ports import Context

    function = FunctionStage(FunctionOptions(use=stage.kind, with_=stage.options))
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            name=stage.id,
            home=project.home,
            state=Path(folder),
            stop=threading.Event(),
            log=logging.getLogger("skerry"),
        )
        try:
            function.open(context)
        except SkerryError as error:
            error.where = project.document.place(stage.path)
            raise
        finally:
            function.close()


def _check_labels(stage: StageEntry, project: Project) -> None:
    from skerry.run.labels import read_labels

    try:
        read_labels(project.home / stage.options["labels"])
    except LabelsError as error:
        error.hint = error.hint or f"named at {project.document.place((*stage.path, 'labels'))}"
        raise


def _threads(plan: Plan, project: Project) -> list[dict[str, Any]]:
    live: list[dict[str, Any]] = [{"nodes": [name], "takes": [], "threads": 1} for name in plan.live_sources]
    return live + [
        {
            "nodes": list(segment.nodes),
            "takes": list(project.graph.takes[segment.head]),
            "threads": segment.workers,
        }
        for segment in plan.segments
    ]


def _model_warnings(project: Project) -> Iterator[Warned]:
    """Yield a warning for a build that is missing or does not fit the file."""
    if not project.pipeline.models:
        return
    from skerry.run.models import open_models, read_manifest

    try:
        manifest = read_manifest(project.release_folder)
        open_models(project.release_folder, manifest, project.pipeline.models).close()
    except ModelError as error:
        yield Warned(message=error.message, where=error.where, hint=error.hint)


def _path_warnings(project: Project) -> Iterator[Warned]:
    """Yield a warning for each file that is named and not there."""
    for keys, paths in _named_paths(project):
        if not any(_exists(project.home / path) for path in paths):
            yield Warned(
                message=f"there is no {', nor '.join(paths)}",
                where=project.document.place(keys),
                hint="" if Path(paths[0]).is_absolute() else f"looked for in {project.home}",
            )


def _route_warnings(project: Project) -> Iterator[Warned]:
    """Yield a warning for each stage with a cloud that was not calibrated yet."""
    from skerry.run.route.evidence import read_evidence

    for stage in project.stages:
        if stage.common.cloud is not None:
            try:
                read_evidence(project.release_folder, stage.id)
            except CalibrationError as error:
                where = project.document.place_of_key((*stage.path, "cloud"))
                yield Warned(message=error.message, where=where, hint=error.hint)


def _exists(path: Path) -> bool:
    text = str(path)
    return bool(glob.glob(text)) if glob.has_magic(text) else path.exists()  # noqa: PTH207 - it may be absolute


def _named_paths(project: Project) -> Iterator[tuple[tuple[str | int, ...], list[str]]]:
    """Yield the paths to be read that the file names, of which one has to be there, and the keys where they stand."""
    from skerry.spec.address import parse_address

    for source in project.sources:
        address, _ = parse_address(source.uri)
        if address.scheme in {"file", "tail"} and address.path:
            yield source.path, [address.path, *source.options.get("also", [])]
    for name, model in project.pipeline.models.items():
        if ":" not in model.from_:
            yield ("models", name, "from"), [model.from_]
        for key, path in (("calibrate", model.data.calibrate), ("evaluate", model.data.evaluate)):
            if path is not None:
                yield ("models", name, "data", key), [path]


def checked_lines(checked: Checked) -> list[str]:
    """Return what was found as lines for people: the threads with what flows through them, and the warnings."""
    counts = [
        f"{len(nodes)} {noun}{'' if len(nodes) == 1 else 's'}"
        for nodes, noun in ((checked.sources, "source"), (checked.stages, "stage"), (checked.sinks, "sink"))
    ]
    lines = [f"{checked.file}: valid ({', '.join(counts)})", "", f"{checked.name} runs in {_count(checked)}:"]
    for thread in checked.threads:
        before = f"{', '.join(thread['takes'])} ⇉ " if thread["takes"] else ""
        many = f"  (×{thread['threads']})" if thread["threads"] > 1 else ""
        lines.append(f"  {before}{' → '.join(thread['nodes'])}{many}")
    if any(thread["takes"] for thread in checked.threads):
        lines.append("  (→ in the same thread, ⇉ through a queue)")
    if checked.warnings:
        lines += ["", "warnings"]
        for warning in checked.warnings:
            lines.append(f"  {warning}" + (f"\n    hint: {warning.hint}" if warning.hint else ""))
    return lines


def _count(checked: Checked) -> str:
    number = sum(thread["threads"] for thread in checked.threads)
    return f"{number} thread{'' if number == 1 else 's'}"
