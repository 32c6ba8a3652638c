"""Answers: what models answered to each item, as vectors, classes and losses.

Answers are an array with one row for each item, or a list with one array for each, of any shape.
"""

from __future__ import annotations

from typing import Any

from skerry.spec.errors import ModelError
from skerry.spec.ports import Array


def vectors(answers: Any) -> Array:
    """Return one vector for each answer, float64 of shape (items, dimension).

    Arrays of one shape are flattened. Where shapes differ, such as with the length of a text, each is averaged over all
    axes but the last. Raises ``ModelError`` for answers of which neither makes vectors of one length.
    """
    import numpy as np

    if hasattr(answers, "ndim") and answers.ndim == 2:
        return np.asarray(answers, dtype=np.float64)
    rows = [np.asarray(answer, dtype=np.float64) for answer in answers]
    if len({row.shape for row in rows}) == 1 and rows[0].ndim:
        return np.stack([row.ravel() for row in rows])
    pooled = [row.reshape(-1, row.shape[-1]).mean(axis=0) for row in rows if row.ndim and row.size]
    if len(pooled) < len(rows) or len({len(row) for row in pooled}) != 1:
        shapes = " and ".join(sorted({str(row.shape) for row in rows})[:3])
        raise ModelError(f"the answers have the shapes {shapes}", expected="(…, dimension)")
    return np.stack(pooled)


def unit(answers: Any) -> Array:
    """Return the vectors of answers, each of length 1; see :func:`vectors`."""
    import numpy as np

    wide = vectors(answers)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def cosines(reference: Any, candidate: Any) -> Array:
    """Return the cosine of each item's two answers, which are flattened: items may be of different shapes."""
    import numpy as np

    found = []
    for one, other in zip(reference, candidate, strict=True):
        mine, theirs = (np.asarray(answer, dtype=np.float64).ravel() for answer in (one, other))
        if np.ndim(one) == 0:
            raise ModelError("one number has no cosine to another", where="cosine", expected="vectors")
        if mine.shape != theirs.shape:
            raise ModelError(
                f"an answer of {theirs.size} numbers has no cosine to one of {mine.size}", where="cosine",
                expected="the metric agreement@10, which takes any",
            )  # fmt: skip
        lengths = max(float(np.linalg.norm(mine)), 1e-12) * max(float(np.linalg.norm(theirs)), 1e-12)
        found.append(float(mine @ theirs) / lengths)
    return np.array(found)


def are_scores(answers: Any) -> bool:
    """Tell whether answers are numbers among which a greatest one means something: floats with an axis of classes."""
    import numpy as np

    first = np.asarray(answers[0])
    return first.ndim >= 1 and first.shape[-1] > 1 and first.dtype.kind == "f"


def classes(answers: Any) -> list[Array]:
    """Return the most probable class of each item, or of each of its tokens; integers are classes already."""
    import numpy as np

    found = []
    for answer in map(np.asarray, answers):
        if answer.dtype.kind in "iub":
            found.append(answer.reshape(()) if answer.size == 1 else answer)
        elif answer.ndim and answer.shape[-1] > 1:
            found.append(answer.argmax(axis=-1))
        else:
            raise ModelError(
                f"an answer of the shape {answer.shape} holds no scores of classes",
                expected="(…, classes) with two classes or more",
            )
    return found


def token_losses(answer: Array, ids: Any) -> Array:
    """Return the negative log probability of every token but the first, float64 of shape (tokens - 1,).

    ``answer`` are logits of shape (tokens, vocabulary), or the losses themselves, which are returned.
    """
    import numpy as np

    told = np.asarray(answer)
    if told.ndim == 1:
        return told
    following = np.asarray(ids)[1:]
    if told.ndim != 2 or len(told) != len(following) + 1:
        raise ModelError(
            f"an answer of the shape {told.shape} for a text of {len(following) + 1} tokens", where="perplexity",
            expected="logits of the shape (tokens, vocabulary)",
        )  # fmt: skip
    if len(following) and not 0 <= following.min() <= following.max() < told.shape[1]:
        raise ModelError(f"a token beyond the {told.shape[1]} of the vocabulary", where="perplexity")
    ahead = told[:-1].astype(np.float64)
    top = ahead.max(axis=1, initial=-np.inf, keepdims=True)
    logsum = np.log(np.exp(ahead - top).sum(axis=1)) + top[:, 0]
    return np.asarray(logsum - ahead[np.arange(len(following)), following])
