"""Reading a project: from a pipeline file to checked entries and their graph."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.document import Document, Keys, load_document
from skerry.spec.errors import GraphError, SpecError, SpecMissingError
from skerry.spec.graph import Graph, connect
from skerry.spec.pipeline import Common, Endpoint, EndpointEntry, Pipeline, StageEntry
from skerry.spec.words import did_you_mean

PIPELINE_FILE = "pipeline.yaml"
_ID = re.compile(r"\w[\w.-]*")


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline file, read and checked as far as that goes without its plugins."""

    document: Document
    pipeline: Pipeline
    sources: tuple[EndpointEntry, ...]
    stages: tuple[StageEntry, ...]
    sinks: tuple[EndpointEntry, ...]
    dead_letter: EndpointEntry | None
    graph: Graph
    path: Path

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline.name

    @property
    def home(self) -> Path:
        """The folder of the pipeline file, where relative paths start."""
        return self.path.parent

    @property
    def release_folder(self) -> Path:
        """Where ``skerry build`` writes, and ``skerry run`` reads, manifest and variants."""
        return self.home / ".skerry" / self.name


def read_project(target: Path) -> Project:
    """Read a pipeline file, or the ``pipeline.yaml`` of a folder.

    Raises ``SpecMissingError`` when there is none, ``SpecError`` for what is wrong in it, ``GraphError`` for cycles and
    names that do not exist.
    """
    try:
        path = target / PIPELINE_FILE if target.is_dir() else target
        exists = path.exists()
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise SpecMissingError(
            f"cannot read {target}: {error.strerror or error}", expected="a file that exists"
        ) from error
    if not exists:
        raise SpecMissingError(
            f"there is no {path}",
            expected=f"a pipeline file, or a folder with a {PIPELINE_FILE}",
            hint="`skerry init FOLDER` writes a working one",
        )
    return project_from(load_document(path), path.resolve())


def project_from(document: Document, path: Path) -> Project:
    """Check a document that was read from ``path``; see :func:`read_project`."""
    pipeline = document.convert(Pipeline)
    _check_name(document, pipeline.name)
    ids: set[str] = set()
    sources = tuple(_endpoint(document, keys, raw, "from", ids) for keys, raw in _sources(document, pipeline))
    stages = tuple(_stage(document, ("stages", index), raw, ids) for index, raw in enumerate(pipeline.stages))
    sinks = tuple(_endpoint(document, ("sinks", index), raw, "to", ids) for index, raw in enumerate(pipeline.sinks))
    dead_letter = None
    if pipeline.dead_letter is not None:
        dead_letter = EndpointEntry(
            id="dead_letter", uri=pipeline.dead_letter, common=Endpoint(), options={}, path=("dead_letter",)
        )
    entries: list[StageEntry | EndpointEntry] = [*sources, *stages, *sinks]
    places = {entry.id: document.place(entry.path) for entry in entries}
    graph = connect(
        [source.id for source in sources],
        [(stage.id, _after(stage.common.after)) for stage in stages],
        [(sink.id, _after(sink.common.after)) for sink in sinks],
        lambda name: places[name],
    )
    _check_references(document, pipeline, stages)
    return Project(
        document=document, pipeline=pipeline, sources=sources, stages=stages, sinks=sinks,
        dead_letter=dead_letter, graph=graph, path=path,
    )  # fmt: skip


def _check_name(document: Document, name: str) -> None:
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name) or name.startswith("."):
        raise SpecError(
            f"the name {name!r} cannot be a folder name",
            where=document.place(("name",)),
            expected="letters, digits, '-', '_' and '.'",
        )


def _sources(document: Document, pipeline: Pipeline) -> list[tuple[Keys, Any]]:
    if (pipeline.source is None) == (not pipeline.sources):
        raise SpecError(
            "there must be either `source` or `sources`",
            where=document.place(("source",) if pipeline.source is not None else ()),
            expected="source: tail:///var/log/syslog",
        )
    if pipeline.source is not None:
        return [(("source",), pipeline.source)]
    return [(("sources", index), raw) for index, raw in enumerate(pipeline.sources)]


def _endpoint(document: Document, keys: Keys, raw: Any, verb: str, ids: set[str]) -> EndpointEntry:
    """Read a URI, or a mapping with ``from:`` or ``to:``."""
    mapping = {verb: raw} if isinstance(raw, str) else raw
    if isinstance(mapping, dict) and len(mapping) == 1 and None in mapping.values():
        mapping = {verb: f"{next(iter(mapping))}:"}  # `- stdout:`, which YAML reads as a key without a value
    if not isinstance(mapping, dict) or not isinstance(mapping.get(verb), str):
        raise SpecError(
            f"this is no {'source' if verb == 'from' else 'sink'}",
            where=document.place(keys),
            expected=f"a URI, or a mapping with `{verb}: URI`",
        )
    uri = mapping[verb] if ":" in mapping[verb] else f"{mapping[verb]}:"
    rest = {key: value for key, value in mapping.items() if key != verb}
    common, options = _split(document, keys, rest, Endpoint)
    if verb == "from" and common.after is not None:
        raise GraphError("a source comes after nothing", where=document.place((*keys, "after")), expected="no `after`")
    scheme = uri.split(":")[0]
    name = _claim(document, keys, common.id, f"{scheme}-in" if verb == "from" else f"{scheme}-out", ids)
    return EndpointEntry(id=name, uri=uri, common=common, options=options, path=keys)


def _stage(document: Document, keys: Keys, raw: Any, ids: set[str]) -> StageEntry:
    """Read ``kind: options``, plain ``kind``, or ``use: module:function`` with ``with: options``."""
    if isinstance(raw, str):
        raw = {raw: {}}
    if not isinstance(raw, dict) or not raw:
        raise SpecError("this is no stage", where=document.place(keys), expected="`- kind: {options}`")
    if "use" in raw:
        return _used(document, keys, raw, ids)
    if len(raw) != 1:
        extra = list(raw)[1]
        raise SpecError(
            f"a stage has one kind, but here stand {', '.join(raw)}",
            where=document.place_of_key((*keys, extra)),
            expected="one key, with the options indented below it",
        )
    kind, value = next(iter(raw.items()))
    inner = (*keys, kind)
    if not isinstance(value, dict):
        common, options = Common(), {} if value is None else value
    else:
        common, options = _split(document, inner, value, Common)
    name = _claim(document, keys, common.id, kind, ids)
    return StageEntry(id=name, kind=kind, common=common, options=options, path=inner)


def _used(document: Document, keys: Keys, raw: dict[str, Any], ids: set[str]) -> StageEntry:
    kind = raw["use"]
    if not isinstance(kind, str) or kind.count(":") != 1:
        raise SpecError(
            f"use: {kind!r} names no function", where=document.place((*keys, "use")), expected="module:function"
        )
    rest = {key: value for key, value in raw.items() if key not in {"use", "with"}}
    common = document.convert(Common, keys, value=rest) if rest else Common()
    name = _claim(document, keys, common.id, kind.split(":")[1], ids)
    return StageEntry(id=name, kind=kind, common=common, options=raw.get("with", {}), path=(*keys, "with"))


def _split(document: Document, keys: Keys, mapping: dict[str, Any], kind: Any) -> tuple[Any, dict[str, Any]]:
    """Take the common keys out of a mapping; the rest are the plugin's own."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    ours = {key: value for key, value in mapping.items() if key in names}
    rest = {key: value for key, value in mapping.items() if key not in names}
    return document.convert(kind, keys, value=ours) if ours else kind(), rest


def _claim(document: Document, keys: Keys, wanted: str | None, fallback: str, ids: set[str]) -> str:
    """Return an id that no other node has; ids that the file does not give are numbered."""
    if wanted is not None and not _ID.fullmatch(wanted):
        raise SpecError(
            f"the id {wanted!r} cannot be a folder name",
            where=document.place(keys),
            expected="letters, digits, '-', '_' and '.', a letter or digit first",
        )
    if wanted is not None and wanted in ids:
        raise SpecError(f"the id {wanted!r} is taken", where=document.place(keys), expected="an id of its own")
    name, number = wanted or fallback, 2
    while name in ids:
        name, number = f"{fallback}-{number}", number + 1
    ids.add(name)
    return name


def _after(after: str | list[str] | None) -> tuple[str, ...] | None:
    if after is None:
        return None
    return (after,) if isinstance(after, str) else tuple(after)


def _check_references(document: Document, pipeline: Pipeline, stages: tuple[StageEntry, ...]) -> None:
    """Check names that point at models and stages."""
    for stage in stages:
        model = stage.options.get("model") if isinstance(stage.options, dict) else None
        if isinstance(model, str) and model not in pipeline.models:
            raise SpecError(
                f"there is no model {model!r}",
                where=document.place((*stage.path, "model")),
                expected=f"one of {', '.join(pipeline.models) or '(none is declared under `models`)'}",
                hint=did_you_mean(model, pipeline.models),
            )
        if stage.common.on_error == "dead_letter" and pipeline.dead_letter is None:
            raise SpecError(
                f"{stage.id} sends failures to the dead letter, which is not declared",
                where=document.place((*stage.path, "on_error")),
                expected="dead_letter: jsonl://dead.jsonl at the top of the file",
            )
    gate = pipeline.duty.gate if pipeline.duty else None
    names = [stage.id for stage in stages]
    if gate is not None and gate not in names:
        raise SpecError(
            f"there is no stage {gate!r} to be the gate",
            where=document.place(("duty", "gate")),
            expected=f"one of {', '.join(names)}",
            hint=did_you_mean(gate, names),
        )
