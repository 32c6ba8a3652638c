"""Pooling: one vector per text out of one vector per token."""

from __future__ import annotations

from typing import Any, Literal

from skerry.spec.ports import Array

Pooling = Literal["mean", "cls", "max", "none"]

SMALLEST_LENGTH = 1e-12
"""A shorter vector is divided by this instead: zeros stay zeros. The bound of ``torch.nn.functional.normalize``."""


def pooled(tokens: Array, mask: Array | None, pooling: Pooling) -> Array:
    """Pool the vectors of a batch's tokens.

    Parameters
    ----------
    tokens:
        Float of shape (texts, tokens, dimension); (texts, dimension) for ``none``, returned as it is.
    mask:
        Integers of shape (texts, tokens): 0 for padding, which is left out. ``None`` where there is no padding.
    pooling:
        ``mean`` (Reimers, Gurevych: Sentence-BERT, 2019), ``cls`` (the first token), ``max`` or ``none``.

    Returns
    -------
    Float of shape (texts, dimension).
    """
    import numpy as np

    if pooling == "none":
        return tokens
    if pooling == "cls":
        return np.asarray(tokens[:, 0])
    if pooling == "max":
        kept = tokens if mask is None else np.where(mask[:, :, None] != 0, tokens, -np.inf)
        return np.asarray(np.maximum.reduce(kept, axis=1), dtype=tokens.dtype)
    if mask is None:
        return np.asarray(np.add.reduce(tokens, axis=1) / np.float32(tokens.shape[1]))
    weights = mask.astype(tokens.dtype)
    sums = np.matmul(weights[:, None, :], tokens)[:, 0]
    return np.asarray(sums / np.maximum(weights.sum(axis=1, keepdims=True), 1))


def normalized(vectors: Array) -> Array:
    """Return the vectors of shape (texts, dimension) with length 1, zeros as they are."""
    import numpy as np

    lengths: Any = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.asarray(vectors / np.maximum(lengths, SMALLEST_LENGTH)[:, None])
