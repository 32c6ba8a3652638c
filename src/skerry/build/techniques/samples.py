"""Samples: a few of the user's texts as the inputs of an ONNX model, and what the model does with them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from skerry.build.artifact import Artifact
from skerry.build.technique import Workbench
from skerry.build.techniques.graph import Graph
from skerry.run.pooling import normalized, pooled
from skerry.run.tokens import VocabularyTokens
from skerry.runtimes.onnxruntime import OnnxRuntime
from skerry.spec.errors import ModelKindError, SpecError
from skerry.spec.ports import Array, Session

SHARE_OUT = 64
"""How many texts activations are looked at for: they give some thousand tokens, and more change nothing."""

_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"


def chosen_texts(workbench: Workbench, count: int) -> list[str]:
    """Return at most ``count`` texts at even distances; raises ``SpecError`` where there is none."""
    texts = workbench.texts
    if not texts:
        raise SpecError("there is no text to calibrate on", expected="at least one text")
    step = max(len(texts) / count, 1.0)
    return [texts[int(place * step)] for place in range(min(count, len(texts)))]


class Samples:
    """Texts as token ids, one text at a time, so that no padding blurs what is seen.

    Raises ``SpecError`` without texts, ``DependencyError`` or ``ModelError`` for the tokenizer.
    """

    def __init__(self, artifact: Artifact, workbench: Workbench, count: int = SHARE_OUT) -> None:
        tokens = VocabularyTokens(artifact.vocabulary, artifact.max_tokens)
        self.ids = [list(tokens.one(text)) for text in chosen_texts(workbench, count)]
        self._artifact = artifact
        self._threads = workbench.threads

    def activations(self, graph: Graph, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Yield, for each text, the tensors named, of shape (..., channels)."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "watched.onnx"
            graph.save(path, watched=names)
            for outputs in self._runs(path, {}):
                yield {name: outputs[name] for name in names}

    def vectors(self, path: Path, extras: Sequence[Mapping[str, Array]] = ({},)) -> list[Array]:
        """Return the vectors of the texts, of length 1, for each set of further inputs.

        Each is float32 of shape (texts, dimension).
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
        """Return the vector of one text, float32 of shape (1, dimension)."""
        import numpy as np

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
        inputs = session.describe().inputs
        for ids in self.ids:
            yield session.run({spec.name: _input(spec, ids, extra) for spec in inputs})


def _input(spec: Any, ids: Sequence[int], extra: Mapping[str, Array]) -> Array:
    import numpy as np

    if spec.name in extra:
        return extra[spec.name]
    row = np.array([ids], dtype=spec.dtype)
    known = {_IDS: row, _MASK: np.ones_like(row), _TYPES: np.zeros_like(row)}
    if spec.name not in known:
        raise ModelKindError(f"the model has an input {spec.name!r} that texts do not fill", expected=", ".join(known))
    return known[spec.name]
