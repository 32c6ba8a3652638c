"""A signature: the arrays that a form of a model takes and gives, as its runtime tells them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.artifact import RUNTIMES, Artifact
from skerry.build.cache import Cache
from skerry.build.report import tool_versions
from skerry.run.tensors import said
from skerry.spec.errors import SpecError
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import TensorSpec
from skerry.spec.words import did_you_mean

LOGITS = "logits"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def said(self) -> str:
        """Return the inputs in words."""
        return ", ".join(map(said, self.inputs))


def signature_of(artifact: Artifact, cache: Cache) -> Signature:
    """Return the signature of a form that a runtime runs; it is loaded once, and remembered.

    Raises
    ------
    ModelError
        The runtime does not take it, for instance for an operator that it does not know.
    DependencyError
        The runtime is not installed.
    """
    runtime = RUNTIMES[artifact.form]

    def make(folder: Path) -> dict[str, Any]:
        session = load_plugin("skerry.runtimes", runtime, where=str(artifact.path))().load(artifact.path)
        try:
            told = session.describe()
        finally:
            session.close()
        return {"inputs": msgspec.to_builtins(told.inputs), "outputs": msgspec.to_builtins(told.outputs)}

    key = {"step": "signature", **artifact.key, "runtime": runtime, "tools": tool_versions(runtime)}
    return msgspec.convert(cache.entry(key, make).note.facts, Signature)


def judged_output(outputs: Sequence[TensorSpec], named: str | None) -> int:
    """Return the place of the output that is judged: the one named, else ``logits``, else the first.

    Raises ``SpecError`` for a name that no output has.
    """
    names = [spec.name for spec in outputs]
    if named is None:
        return names.index(LOGITS) if LOGITS in names else 0
    if named not in names:
        raise SpecError(
            f"the model has no output {named!r}", where="quality.output", expected=f"one of {', '.join(names)}",
            hint=did_you_mean(named, names),
        )  # fmt: skip
    return names.index(named)
