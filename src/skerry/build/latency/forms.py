"""Forms of an encoder, one for each way of computing, made by the techniques themselves and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build import toolchain
from skerry.build.artifact import Artifact, Step
from skerry.build.cache import Cache
from skerry.build.latency.encoders import Shape, artifact_of, text_of, write_encoder
from skerry.build.progress import Progress
from skerry.build.technique import Workbench, techniques
from skerry.spec.errors import DependencyError, ModelError

VERSION = 2
"""Counts changes of what is made, so that older forms are not used."""

_Chain = tuple[tuple[str, dict[str, Any]], ...]

_EXPORT = ("export-onnx", dict[str, Any]())


def chains(lengths: Sequence[int]) -> dict[str, tuple[_Chain, ...]]:
    """Return the steps to each form, by the runtime that runs it; graphs of fixed shapes are made for these lengths."""
    convert: tuple[str, dict[str, Any]] = ("convert-litert", {"buckets": list(lengths), "smooth": 0.0})
    return {
        "onnxruntime": (
            (_EXPORT,),
            (_EXPORT, ("onnx-dynamic", {"smooth": 0.0})),
            (_EXPORT, ("onnx-static", {"smooth": 0.0})),
            (_EXPORT, ("onnx-weight-only", {"bits": 8})),
            (_EXPORT, ("onnx-weight-only", {"bits": 4})),
            (_EXPORT, ("onnx-fp16", {})),
        ),
        "openvino": (
            (_EXPORT, ("openvino", {"half": False})),
            (_EXPORT, ("nncf-weights", {"bits": 8, "zeros": False})),
            (_EXPORT, ("nncf-weights", {"bits": 4, "zeros": False})),
            (_EXPORT, ("nncf-ptq", {"texts": 24})),
        ),
        "litert": (
            (convert,),
            (convert, ("litert-int8", {})),
            (convert, ("litert-int8", {"bits": 4, "block": 32})),
        ),
    }


def forms(
    shape: Shape, lengths: Sequence[int], cache: Cache, progress: Progress, usable: frozenset[str]
) -> Iterator[Artifact]:
    """Yield an encoder in every form that a usable runtime runs and an installed toolchain makes, fp32 in ONNX first.

    A form that cannot be made is left out.
    """
    known = {name: kind() for name, kind in techniques().items()}
    bench = Workbench(
        texts=tuple(text_of(length) for length in lengths) * 8, progress=progress, toolchain=toolchain.run
    )
    for chain in (chain for runtime, those in chains(lengths).items() if runtime in usable for chain in those):
        artifact: Artifact | None = encoder(shape, cache)
        for name, settings in chain:
            artifact = None if artifact is None else _made(artifact, known[name], settings, bench, cache)
        if artifact is not None:
            yield artifact


def encoder(shape: Shape, cache: Cache) -> Artifact:
    """Return an encoder of random weights, kept in the cache."""
    entry = cache.entry(
        {"step": "encoder", "version": VERSION, "shape": msgspec.to_builtins(shape)},
        lambda folder: {"files": write_encoder(shape, folder)},
    )
    return artifact_of(shape, entry.folder)


def _made(
    artifact: Artifact, technique: Any, settings: dict[str, Any], bench: Workbench, cache: Cache
) -> Artifact | None:
    """Return what a technique makes of an encoder, from the cache where it is there; ``None`` where it cannot."""
    if technique.toolchain is not None and toolchain.find(technique.toolchain) is None:
        return None
    step = Step(technique=technique.name, version=technique.version, settings=settings)
    planned = msgspec.structs.replace(artifact, steps=(*artifact.steps, step))

    def make(folder: Path) -> dict[str, Any]:
        made: Artifact = technique.apply(artifact, settings, bench, folder)
        return made.noted()

    try:
        entry = cache.entry({"step": "encoder-form", "version": VERSION, **planned.key}, make)
    except (ModelError, DependencyError):
        return None
    return planned.found(entry.folder, entry.note.facts)
