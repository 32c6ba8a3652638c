"""A bag of words: a text model without weights, for tests of stages. Texts that share words have near vectors."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from skerry.spec.errors import ModelMissingError
from skerry.spec.ports import Array, TextModel


class BagOfWords:
    """Hashes each word to a place of the vector and counts; the same text always has the same vector.

    Parameters
    ----------
    dimension:
        How many numbers a vector has.
    seed:
        Another seed is another model. Changing ``seed`` and ``generation`` is what a swap does.
    """

    def __init__(self, dimension: int = 64, seed: int = 0) -> None:
        self.dimension = dimension
        self.seed = seed
        self.generation = 0
        self.calls: list[int] = []
        """How many texts each call had."""

    def swap(self, seed: int) -> None:
        """Become another model."""
        self.seed = seed
        self.generation += 1

    def embed(self, texts: Sequence[str]) -> Array:
        """Return one vector of length 1 per text: float32 of shape (len(texts), dimension)."""
        self.calls.append(len(texts))
        vectors = np.stack([self._tokens(text).sum(axis=0) for text in texts])
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.asarray(vectors / lengths, dtype=np.float32)

    def infer(self, texts: Sequence[str]) -> dict[str, list[Array]]:
        """Return one row per word and their mean, without padding."""
        self.calls.append(len(texts))
        tokens = [self._tokens(text) for text in texts]
        return {"last_hidden_state": tokens, "pooler_output": [rows.mean(axis=0) for rows in tokens]}

    def _tokens(self, text: str) -> Array:
        words = re.findall(r"\w+", text.lower()) or [""]
        rows = np.zeros((len(words), self.dimension), dtype=np.float32)
        for place, word in enumerate(words):
            rows[place, zlib.crc32(f"{self.seed} {word}".encode("utf-8", "replace")) % self.dimension] = 1.0
        return rows


def models_of(**models: TextModel) -> Callable[[str], TextModel]:
    """Return what a context calls to find a model by its name."""

    def find(name: str) -> TextModel:
        if name not in models:
            raise ModelMissingError(f"there is no model {name!r}", expected=f"one of {', '.join(models)}")
        return models[name]

    return find
