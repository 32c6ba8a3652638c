"""A way of computing: by which runtime, in which precision and at which lengths a form runs, by its steps. Pure.

A form that does not exist yet has steps all the same, so it can be predicted before it is made. A step that is not
known here (a technique from elsewhere) gives no way, and so no prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from skerry.build.artifact import RUNTIMES, Artifact, Step

PLAIN = "fp32"

BYTES = {
    "fp32": 4.0, "fp16": 2.0, "int8-dynamic": 1.01, "int8-static": 1.01, "int8": 1.01, "int8-weights": 1.01,
    "blocks8": 1.14, "blocks4": 0.64, "int4": 0.64, "int4-weights": 0.64,
}  # fmt: skip
"""On disk for each weight of a dense layer, scales included: one of 4 bytes for a column, or for a block of 32."""

TABLE_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.02, "int4": 0.58}
"""The same for each number of an embedding table."""


_WIDENED = {"openvino/fp16": "openvino/fp32"}
"""Ways that run as others do, since OpenVINO widens weights of 16 bits when it loads them."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a form runs.

    Parameters
    ----------
    runtime, precision:
        What rates are measured for: ``("onnxruntime", "int8-dynamic")``.
    spared, spared_precision:
        Names of layers of another precision, and that.
    table:
        The precision of embedding tables.
    lengths:
        The lengths that graphs are made for, where shapes are fixed; a text is padded to the next.
    """

    runtime: str
    precision: str = PLAIN
    spared: frozenset[str] = frozenset()
    spared_precision: str = PLAIN
    table: str = PLAIN
    lengths: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """The name of its rates."""
        name = f"{self.runtime}/{self.precision}"
        return _WIDENED.get(name, name)

    def padded(self, tokens: int) -> int:
        """Return the length at which a text of so many tokens is computed; the last one cuts it."""
        if not self.lengths:
            return tokens
        return next((length for length in self.lengths if length >= tokens), self.lengths[-1])


def way_of(artifact: Artifact) -> Way | None:
    """Return how an artifact runs, or will run; ``None`` where its steps do not tell."""
    way: Way | None = _given(artifact)
    for step in artifact.steps:
        if step.technique in _UNCHANGED:
            continue
        read = _READERS.get(step.technique)
        way = None if read is None else read(step, way)
        if way is None:
            return None
    return way


def shape_of(artifact: Artifact) -> tuple[Step, ...]:
    """Return the steps that decide what is computed: forms with equal ones, of equal sources, have equal work."""
    return tuple(step for step in artifact.steps if step.technique.startswith(("prune-", "trim-")))


_UNCHANGED = ("prune-layers", "prune-heads", "prune-ffn", "prune-sparse", "trim-vocabulary", "distill")
"""Techniques that change the model and not how it runs."""


def _given(artifact: Artifact) -> Way | None:
    """Return how the model that was given runs; a file that came in another form than fp32 is not known."""
    runtime = RUNTIMES.get(artifact.form)
    if artifact.steps:
        return Way(runtime="")
    return Way(runtime=runtime) if runtime == "onnxruntime" else None


def _onnx(step: Step, before: Way | None) -> Way:
    return Way(runtime="onnxruntime")


def _litert(step: Step, before: Way | None) -> Way:
    return Way(runtime="litert", lengths=tuple(step.settings.get("buckets", ())))


def _dynamic(step: Step, before: Way | None) -> Way:
    spared = "blocks8" if step.settings.get("spared", "blocks") == "blocks" else PLAIN
    return Way(
        runtime="onnxruntime", precision="int8-dynamic", table=_table(step.settings, "int8"),
        spared=frozenset(step.settings.get("exclude", ())), spared_precision=spared,
    )  # fmt: skip


def _static(step: Step, before: Way | None) -> Way:
    return Way(
        runtime="onnxruntime", precision="int8-static", table=_table(step.settings, "int8"),
        spared=frozenset(step.settings.get("exclude", ())),
    )  # fmt: skip


def _blocks(step: Step, before: Way | None) -> Way | None:
    if step.settings.get("compute", "int8") != "int8":
        return None
    return Way(
        runtime="onnxruntime", precision=f"blocks{step.settings.get('bits', 8)}", table=_table(step.settings, "int8"),
        spared=frozenset(step.settings.get("wide", ())), spared_precision="blocks8",
    )  # fmt: skip


def _half(step: Step, before: Way | None) -> Way:
    return Way(runtime="onnxruntime", precision="fp16", table="fp16")


def _openvino(step: Step, before: Way | None) -> Way:
    held = "fp16" if step.settings.get("half", True) else PLAIN
    return Way(runtime="openvino", precision=held, table=held)


def _nncf_weights(step: Step, before: Way | None) -> Way:
    bits = int(step.settings.get("bits", 8))
    small = bits == 4 and step.settings.get("embeddings")
    return Way(runtime="openvino", precision=f"int{bits}-weights", table="int4" if small else "int8")


def _nncf_ptq(step: Step, before: Way | None) -> Way:
    return Way(runtime="openvino", precision="int8", table="int8", spared=frozenset(step.settings.get("exclude", ())))


def _litert_int(step: Step, before: Way | None) -> Way | None:
    settings = step.settings
    if before is None or settings.get("compute", "int8") != "int8" or settings.get("exclude"):
        return None
    return msgspec.structs.replace(before, precision=f"int{settings.get('bits', 8)}", table=_table(settings, "int8"))


_READERS: Mapping[str, Callable[[Step, Way | None], Way | None]] = {
    "export-onnx": _onnx,
    "convert-litert": _litert,
    "onnx-dynamic": _dynamic,
    "onnx-static": _static,
    "onnx-weight-only": _blocks,
    "onnx-fp16": _half,
    "openvino": _openvino,
    "nncf-weights": _nncf_weights,
    "nncf-ptq": _nncf_ptq,
    "litert-int8": _litert_int,
}
"""What each technique makes of the way before it."""


def _table(settings: Mapping[str, Any], otherwise: str) -> str:
    return str(settings.get("embedding", otherwise))
