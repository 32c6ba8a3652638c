"""Samples: a few of the user's texts or rows as the inputs of an ONNX model, and what the model does with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from skerry.build.artifact import Artifact
from skerry.build.items import Row
from skerry.build.technique import Workbench
from skerry.build.techniques.graph import Graph
from skerry.run.pooling import normalized, pooled
from skerry.run.tensors import alone
from skerry.run.tokens import VocabularyTokens
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.ports import Array, Session

SHARE_OUT = 64
"""How many texts activations are looked at for: they give some thousand tokens, and more change nothing."""

T = TypeVar("T")

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"


def chosen_texts(workbench: Workbench, count: int) -> list[str]:
    """Return at most ``count`` texts at even distances; raises ``SpecError`` where there is none."""
    if not workbench.texts:
        raise SpecError("there is no text to calibrate on", expected="at least one text")
    return _spread(workbench.texts, count)


def chosen_rows(workbench: Workbench, count: int) -> list[Row]:
    """Return at most ``count`` rows of arrays at even distances; raises ``SpecError`` where there is none."""
    if not workbench.samples:
        raise SpecError("there is no row of arrays to calibrate on", expected="at least one row")
    return _spread(workbench.samples, count)


def _spread(found: Sequence[T], count: int) -> list[T]:
    step = max(len(found) / count, 1.0)
    return [found[int(place * step)] for place in range(min(count, len(found)))]


class Samples:
    """Texts as token ids, or rows of arrays, one at a time, so that no padding blurs what is seen.

    ``ids`` are the token ids of texts, and empty for a model of tensors; ``count`` tells how many samples there are.

    Raises ``SpecError`` without texts or rows, ``DependencyError`` or ``ModelError`` for the tokenizer.
    """

    def __init__(self, artifact: Artifact, workbench: Workbench, count: int = SHARE_OUT) -> None:
        self.ids: list[list[int]] = []
        self._rows: list[Row] = []
        if artifact.task == "tensors":
            self._rows = chosen_rows(workbench, count)
        else:
            tokens = VocabularyTokens(artifact.vocabulary, artifact.max_tokens)
            self.ids = [list(tokens.one(text)) for text in chosen_texts(workbench, count)]
        self.count = len(self._rows or self.ids)
        self._artifact = artifact
        self._output = workbench.output
        self._threads = workbench.threads
        self._is_flat = True

    def activations(self, graph: Graph, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Yield, for each sample, the tensors named, of shape (..., channels)."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "watched.onnx"
            graph.save(path, watched=names)
            for outputs in self._runs(path, {}):
                yield {name: outputs[name] for name in names}

    def vectors(self, path: Path, extras: Sequence[Mapping[str, Array]] = ({},)) -> list[Array]:
        """Return the vectors of the samples, of length 1, for each set of further inputs.

        Each is float32 of shape (samples, dimension).
        """
        import numpy as np

        session = self._open(path)
        try:
            return [
                np.concatenate([self.pooled(outputs) for outputs in self._answers(session, extra)]) for extra in extras
            ]
        finally:
            session.close()

    def pooled(self, outputs: Mapping[str, Array]) -> Array:
        """Return the vector of one sample, float32 of shape (1, dimension)."""
        import numpy as np

        if self._rows:
            answer = np.asarray(list(outputs.values())[self._output], dtype=np.float32)
            return normalized(
                answer.reshape(1, -1) if self._is_flat else answer.reshape(-1, answer.shape[-1]).mean(0)[None]
            )
        if self._artifact.pooling == "none":
            found = next(iter(outputs.values()))
            return normalized(np.asarray(found, dtype=np.float32).reshape(1, -1))
        tokens = next((array for array in outputs.values() if array.ndim == 3), None)
        if tokens is None:
            raise ModelKindError("the model gives no vector for each token", where=str(self._artifact.path))
        return normalized(pooled(tokens.astype(np.float32), None, self._artifact.pooling))

    def _runs(self, path: Path, extra: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        session = self._open(path)
        try:
            yield from self._answers(session, extra)
        finally:
            session.close()

    def _open(self, path: Path) -> Session:
        return OnnxRuntime().load(path, threads=self._threads)

    def _answers(self, session: Session, extra: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        told = session.describe()
        # Answers whose size depends on the sample are averaged, so that all vectors are of one length.
        self._is_flat = all(isinstance(size, int) for size in told.outputs[self._output].shape[1:])
        for row in self._rows:
            yield session.run({**alone(told.inputs, row), **extra})
        for ids in self.ids:
            yield session.run({spec.name: _input(spec, ids, extra) for spec in told.inputs})


def _input(spec: Any, ids: Sequence[int], extra: Mapping[str, Array]) -> Array:
    import numpy as np

    if spec.name in extra:
        return extra[spec.name]
    row = np.array([ids], dtype=spec.dtype)
    known = {_IDS: row, _MASK: np.ones_like(row), _TYPES: np.zeros_like(row)}
    if spec.name not in known:
        raise ModelKindError(f"the model has an input {spec.name!r} that texts do not fill", expected=", ".join(known))
    return known[spec.name]
