"""Assembly: from a project to an engine, with every plugin made and every option checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from skerry.run.conductor import Conductor
from skerry.run.engine import Engine
from skerry.run.expression import Expression
from skerry.run.lock import StateLock
from skerry.run.models import Models, open_models, read_manifest
from skerry.run.nodes import Node, SinkNode, SourceNode, StageNode
from skerry.run.plan import Plan, make_plan
from skerry.run.settings import Settings
from skerry.run.stages.function import FunctionOptions, FunctionStage
from skerry.run.wiring import DEAD_LETTER
from skerry.spec.address import parse_address
from skerry.spec.errors import SkerryError, SpecError
from skerry.spec.pipeline import EndpointEntry, StageEntry
from skerry.spec.plugins import Group, load_plugin
from skerry.spec.ports import Log, Options, RememberingStage, TickingStage
from skerry.spec.reading import Project


def assemble(project: Project, *, log: Log, models: Models | None = None) -> Engine:
    """Make everything that a project names, and hold its state folder; nothing is opened yet.

    Parameters
    ----------
    models:
        The project's models; by default those of its build.

    Raises
    ------
    SpecError
        A plugin does not exist, or an option of it is wrong.
    ModelMissingError
        A model was not built yet.
    StateBusyError, StateUnwritableError
        Another run holds the state folder, or it cannot be written to.
    """
    nodes = make_nodes(project)
    lock = StateLock(project.release_folder / "state")
    try:
        return _engine(project, nodes, lock, log, models)
    except BaseException:
        lock.release()
        raise


def _engine(project: Project, nodes: list[Node], lock: StateLock, log: Log, models: Models | None) -> Engine:
    """Put an engine together that lets go of the lock when its run is over."""
    pipeline = project.pipeline
    release = None
    if models is None and pipeline.models:
        manifest = read_manifest(project.release_folder)
        models, release = open_models(project.release_folder, manifest, pipeline.models), manifest.release
    settings = Settings(
        name=project.name,
        home=project.home,
        state=lock.folder,
        log=log,
        deadline_ns=pipeline.deadline.ns if pipeline.deadline else 0,
        drain_s=float(pipeline.drain),
        sync_s=float(pipeline.sync),
        timing=pipeline.timing,
        insecure=pipeline.insecure,
        release=release,
    )
    dead_letter = None
    if project.dead_letter is not None:
        dead_letter = _endpoint("skerry.sinks", project.dead_letter, project)
    conductor = _conductor(project, log, models)
    closers: list[Callable[[], None]] = [lock.release]  # called from the last to the first
    if models:
        closers.append(models.close)
    return Engine(
        nodes, project.graph, settings, models=models, conductor=conductor, dead_letter=dead_letter, closers=closers
    )  # fmt: skip


def make_nodes(project: Project) -> list[Node]:
    """Make every source, stage and sink of a project; raises ``SpecError`` for what is wrong with one."""
    sources = [
        SourceNode(
            id=entry.id,
            kind=entry.uri.split(":")[0],
            source=_endpoint("skerry.sources", entry, project),
            settings=entry.common,
        )
        for entry in project.sources
    ]
    stages = [_stage(entry, project) for entry in project.stages]
    sinks = [
        SinkNode(
            id=entry.id,
            kind=entry.uri.split(":")[0],
            sink=_endpoint("skerry.sinks", entry, project),
            settings=entry.common,
        )
        for entry in project.sinks
    ]
    if project.dead_letter is not None:
        entries: list[StageEntry | EndpointEntry] = [*project.sources, *project.stages, *project.sinks]
        for entry in entries:
            if entry.id == DEAD_LETTER:
                raise SpecError(
                    f"the id {DEAD_LETTER!r} is the dead letter's",
                    where=project.document.place(entry.path),
                    expected="another id",
                )
    return [*sources, *stages, *sinks]


def plan_of(project: Project) -> Plan:
    """Return how a project would be fused and cut, without opening anything."""
    return make_plan(project.graph, {node.id: node.trait() for node in make_nodes(project)})


def describe(project: Project) -> str:
    """Return the compiled graph as plain text: a line for each thread."""
    plan = plan_of(project)
    lines = [f"{name}  (source, its own thread)" for name in plan.live_sources]
    for segment in plan.segments:
        threads = f" × {segment.workers} threads" if segment.workers > 1 else ""
        before = ", ".join(project.graph.takes[segment.head])
        arrow = f"{before} ⇉ " if segment.source is None and before else ""
        lines.append(f"{arrow}{' → '.join(segment.nodes)}{threads}")
    return "\n".join(lines)


def _endpoint(group: Group, entry: EndpointEntry, project: Project) -> Any:
    """Make a source or sink from its URI and options."""
    document = project.document
    where = document.place(entry.path)
    address, query = parse_address(entry.uri, where=where)
    plugin = load_plugin(group, address.scheme, where=where)
    # Values of a query are text, which may stand for a number; those of the file say what they are.
    options = _options(plugin.Options, {**query, **entry.options}, project, entry.path, strict=not query)
    return _made(partial(plugin, address, options), where)


def _stage(entry: StageEntry, project: Project) -> StageNode:
    where = project.document.place(entry.path)
    if ":" in entry.kind:
        plugin: Any = FunctionStage
        given = project.document.convert(dict[str, Any], entry.path, value=entry.options)
        options: Any = _made(partial(FunctionOptions, use=entry.kind, with_=given), where)
    else:
        plugin = load_plugin("skerry.stages", entry.kind, where=where)
        options = _options(plugin.Options, entry.options, project, entry.path, strict=True)
    make: Callable[[], Any] = partial(plugin, options)
    route = None
    if entry.common.cloud is not None:
        from skerry.run.route.building import routed

        make, route = routed(entry, plugin, options, entry.common.cloud, project)
    probe = _made(make, where)
    workers = entry.common.workers
    if workers < 1:
        raise SpecError(f"{entry.id} has {workers} workers", where=where, expected="1 or more")
    if isinstance(probe, TickingStage) and (workers > 1 or entry.common.process):
        raise SpecError(
            f"{entry.id} keeps records between calls, which several workers cannot share",
            where=where,
            expected="workers: 1 and no process",
        )
    if isinstance(probe, RememberingStage) and workers > 1:
        raise SpecError(
            f"{entry.id} keeps {probe.remembers}, and each of several workers sees only some of the records",
            where=where,
            expected="workers: 1",
        )
    if entry.common.process:
        from skerry.run.process import ProcessStage

        make = partial(ProcessStage, plugin, options)
        probe = make()
    when = entry.common.when
    return StageNode(
        id=entry.id,
        kind=entry.kind,
        make=make,
        settings=entry.common,
        when=None if when is None else Expression(when, project.document.place((*entry.path, "when"))),
        probe=probe,
        route=route,
    )


def _options(
    kind: type[Options], given: Any, project: Project, keys: tuple[str | int, ...], *, strict: bool
) -> Options:
    if not isinstance(given, Mapping):
        if not kind.shorthand:
            raise SpecError(
                f"{keys[-1]} takes a mapping of options",
                where=project.document.place(keys),
                expected=", ".join(field.encode_name for field in msgspec.structs.fields(kind)) or "no options",
            )
        given = {kind.shorthand: given}
    return project.document.convert(kind, keys, value=given, strict=strict)


def _made(make: Callable[[], Any], where: str) -> Any:
    """Call a constructor, placing what it complains about."""
    try:
        return make()
    except SkerryError as error:
        error.where = error.where or where
        raise
    except ValueError as error:
        raise SpecError(str(error), where=where) from error


def _conductor(project: Project, log: Log, models: Models | None) -> Conductor:
    pipeline = project.pipeline
    vitals = joules = None
    if pipeline.ladder is not None:
        from skerry.device.pressure import VitalSigns

        vitals = VitalSigns().read
    if pipeline.duty is not None or pipeline.ladder is not None:
        from skerry.device.energy import EnergyMeter

        meter = EnergyMeter()
        joules = meter.joules if meter.counters else None
    return Conductor(
        log, ladder=pipeline.ladder, duty=pipeline.duty, models=models, vitals=vitals, joules=joules, home=project.home
    )  # fmt: skip
