"""The encoder: a loaded variant of a text model, from text to vectors.

A text alone takes the shortest way there is; several are sorted into buckets of one length (:mod:`skerry.run.buckets`).
A variant with dynamic int8 scales takes one scale for a whole batch, so that a text's vector depends a little on its
neighbours there: for MiniLM the cosine to the vector that it gets alone was 0.991 on average and 0.978 at the
least. Static and float variants give the same vector up to rounding.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.buckets import MOST_TOKENS, buckets
from skerry.run.digest import require_digest
from skerry.run.pooling import SMALLEST_LENGTH, normalized, pooled
from skerry.run.tokens import HashedTokens, Tokens, VocabularyTokens
from skerry.spec.errors import ModelKindError
from skerry.spec.manifest import ModelManifest, Variant
from skerry.spec.plugins import load_plugin
from skerry.spec.ports import Array, Session, TensorSpec, TrustingSession

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
"""The names by which encoders give one vector per token; else the first output of that form is taken."""

WARM_UP_TEXTS = ("The first answer is the slow one.", "The first answer is the slow one, of two.")


def load_encoder(
    folder: Path,
    manifest: ModelManifest,
    variant: Variant,
    *,
    threads: int | None = None,
    max_tokens: int | None = None,
) -> Encoder:
    """Load a variant of a model; its file is checked against its digest first.

    Parameters
    ----------
    folder:
        Where the build is: the manifest's file names start here.
    threads, max_tokens:
        Instead of what the build noted; ``max_tokens`` only where it is less.

    Raises
    ------
    ModelMissingError, ModelCorruptError
        A file is missing, or is not what was built.
    ModelKindError
        The model's tensors are not those of a text encoder, or not those that the manifest tells.
    DependencyError
        The runtime or the tokenizer is not installed.
    """
    path = folder / variant.file
    if variant.pooled:
        manifest = msgspec.structs.replace(manifest, pooling="none", normalize=False)
    for file, digest in variant.files().items():
        require_digest(folder / file, digest)
    runtime = load_plugin("skerry.runtimes", variant.runtime, where=str(folder))()
    # The vocabulary first: what reading it took for a while is free again when the model needs room.
    tokens = _tokens(folder, manifest, min(manifest.max_tokens, max_tokens or manifest.max_tokens))
    session: Session = runtime.load(path, threads=threads or variant.threads)
    try:
        tokens.limit(_fixed_length(session))
        return Encoder(manifest, session, tokens)
    except BaseException:
        session.close()
        raise


class Encoder:
    """A text model (:class:`skerry.spec.ports.TextModel`) over one session; safe to call from several threads.

    Raises ``ModelKindError`` when the session's tensors are not those of a text encoder.
    """

    def __init__(self, manifest: ModelManifest, session: Session, tokens: Tokens) -> None:
        import numpy as np

        info = session.describe()
        self._where = info.path
        self._session = session
        self._tokens = tokens
        self._pooling = manifest.pooling
        self._normalize = manifest.normalize
        self._inputs = _inputs(info.inputs, info.path)
        self._dtype: Any = np.dtype(self._inputs[IDS].dtype)
        rows, self._fixed_length = _sizes(self._inputs[IDS], info.path)
        self._most_tokens = MOST_TOKENS if rows is None else 1
        self._output = _output(info.outputs, manifest, info.path)
        self._outputs = {spec.name: _token_axes(spec, self._inputs[IDS]) for spec in info.outputs}
        self._dimension = _dimension(self._output, manifest, info.path)
        # A text alone has no padding: its mask is a row of ones, its types are zeros; cut to length, never changed.
        self._run = session.run_trusted if isinstance(session, TrustingSession) else session.run
        self._array: Any = np.array
        self._sum: Any = np.add.reduce
        self._is_unit_mean = manifest.pooling == "mean" and manifest.normalize and self._output.dtype == "float32"
        self._ones = _constant_row(1, manifest.max_tokens, self._inputs.get(MASK))
        self._zeros = _constant_row(0, manifest.max_tokens, self._inputs.get(TYPES))

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return self._dimension

    @property
    def generation(self) -> int:
        """0: an encoder is one model, for good."""
        return 0

    def embed(self, texts: Sequence[str]) -> Array:
        """Return one pooled vector per text, in the order of the texts: float32 of shape (len(texts), dimension).

        Any text will do: an empty one, one with lone surrogates (read as U+FFFD), one of many megabytes (cut).

        Raises ``ModelError`` when the session was closed or fails.
        """
        if len(texts) == 1 and self._fixed_length is None:
            return self._embed_one(texts[0])
        return self._embed_many(texts)

    def _embed_one(self, text: str) -> Array:
        """Embed one text by as little code as it takes: after an inference the caches are cold, and each call costs.

        For MiniLM on 14 tokens this is 40 µs less than by the functions that batches take, of 1.3 ms in all.
        """
        ids = self._tokens.one(text)
        length = len(ids)
        inputs: dict[str, Array] = {IDS: self._array((ids,), self._dtype)}
        if self._ones is not None:
            inputs[MASK] = self._ones[:, :length]
        if self._zeros is not None:
            inputs[TYPES] = self._zeros[:, :length]
        answer = self._run(inputs)[self._output.name]
        if not self._is_unit_mean:
            return self._pooled(answer, None)
        vector = self._sum(answer[0], 0)  # the mean's division is undone by the next one
        vector *= 1.0 / max(math.sqrt(vector.dot(vector)), SMALLEST_LENGTH * length)
        return vector[None]  # type: ignore[no-any-return]

    def infer(self, texts: Sequence[str]) -> dict[str, list[Array]]:
        """Return the model's raw outputs by name, a list with one array per text, without padding and batch axis."""
        rows = self._tokens.many(texts)
        answers: dict[str, list[Any]] = {name: [None] * len(rows) for name in self._outputs}
        for group in self._buckets(rows):
            inputs, _ = self._batch([rows[index] for index in group])
            raw = self._session.run(inputs)
            for name, axes in self._outputs.items():
                for place, index in enumerate(group):
                    answers[name][index] = _trimmed(raw[name][place], axes, len(rows[index]))
        return answers

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads, special ones included."""
        return [len(row) for row in self._tokens.many(texts)]

    def warm_up(self) -> None:
        """Run on made-up input and on text, alone and in a batch; raises ``ModelKindError`` for a wrong dimension."""
        self._session.warm_up()
        shape = self.embed(WARM_UP_TEXTS).shape
        self.embed(WARM_UP_TEXTS[:1])
        if shape != (len(WARM_UP_TEXTS), self._dimension):
            raise ModelKindError(
                f"the model answers with the shape {shape}",
                where=self._where,
                expected=f"{(len(WARM_UP_TEXTS), self._dimension)}",
            )

    def close(self) -> None:
        """Free the model; safe to call twice."""
        self._session.close()

    def _embed_many(self, texts: Sequence[str]) -> Array:
        import numpy as np

        rows = self._tokens.many(texts)
        vectors = np.empty((len(rows), self._dimension), dtype=np.float32)
        for group in self._buckets(rows):
            inputs, mask = self._batch([rows[index] for index in group])
            vectors[group] = self._pooled(self._run(inputs)[self._output.name], mask)
        return vectors

    def _buckets(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        return buckets([len(row) for row in rows], most_tokens=self._most_tokens)

    def _pooled(self, answer: Array, mask: Array | None) -> Array:
        vectors = pooled(answer, mask, self._pooling)
        if self._normalize:
            vectors = normalized(vectors)
        return vectors if vectors.dtype.name == "float32" else vectors.astype("float32")

    def _batch(self, rows: Sequence[Sequence[int]]) -> tuple[dict[str, Array], Array | None]:
        """Return the input arrays for several texts, padded to the longest, and the mask if any was padded."""
        import numpy as np

        width = self._fixed_length or max(len(row) for row in rows)
        ids = np.full((len(rows), width), self._tokens.pad, dtype=self._dtype)
        mask = np.zeros((len(rows), width), dtype=self._inputs[MASK].dtype if MASK in self._inputs else np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row[:width]
            mask[place, : len(row)] = 1
        arrays = {IDS: ids, MASK: mask}
        if TYPES in self._inputs:
            arrays[TYPES] = np.zeros(ids.shape, dtype=self._inputs[TYPES].dtype)
        padded = any(len(row) < width for row in rows)
        return {name: arrays[name] for name in self._inputs}, mask if padded else None


def _tokens(folder: Path, manifest: ModelManifest, longest: int) -> Tokens:
    if manifest.tokenizer is None:
        return HashedTokens(longest)
    return VocabularyTokens(folder / manifest.tokenizer, longest)


def _inputs(specs: Sequence[TensorSpec], where: str) -> dict[str, TensorSpec]:
    """Return the inputs by name; raises ``ModelKindError`` when text does not give one of them."""
    found = {spec.name: spec for spec in specs}
    foreign = [name for name in found if name not in (IDS, MASK, TYPES)]
    if foreign or IDS not in found:
        raise ModelKindError(
            f"the model takes {', '.join(found)}: text does not give {', '.join(foreign) or 'these'}",
            where=where,
            expected=f"{IDS}, and perhaps {MASK} and {TYPES}",
        )
    for spec in found.values():
        if len(spec.shape) != 2 or not spec.dtype.startswith(("int", "uint")):
            raise ModelKindError(
                f"the input {spec.name} is {spec.dtype} {spec.shape}", where=where, expected="integers (batch, tokens)"
            )
    return found


def _sizes(ids: TensorSpec, where: str) -> tuple[int | None, int | None]:
    """Return the fixed numbers of texts and tokens of a run, ``None`` where they may vary."""
    rows, length = (size if isinstance(size, int) else None for size in ids.shape)
    if rows not in (None, 1):
        raise ModelKindError(f"the model takes exactly {rows} texts at once", where=where, expected="1, or any number")
    return rows, length


def _fixed_length(session: Session) -> int:
    """Return the number of tokens that a model with fixed shapes takes, or more than there will ever be."""
    sizes = [spec.shape[1] for spec in session.describe().inputs if spec.name == IDS and len(spec.shape) == 2]
    return next((size for size in sizes if isinstance(size, int)), sys.maxsize)


def _output(specs: Sequence[TensorSpec], manifest: ModelManifest, where: str) -> TensorSpec:
    """Choose the output that is pooled: one vector per token, or with the pooling ``none`` one per text."""
    axes = 2 if manifest.pooling == "none" else 3
    fitting = [spec for spec in specs if len(spec.shape) == axes]
    if not fitting:
        said = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
        wanted = "(batch, dimension)" if axes == 2 else "(batch, tokens, dimension)"
        raise ModelKindError(
            f"no output of the model suits the pooling {manifest.pooling!r}: it has {said}",
            where=where,
            expected=wanted,
        )
    return next((spec for spec in fitting if spec.name in TOKEN_OUTPUTS), fitting[0])


def _dimension(output: TensorSpec, manifest: ModelManifest, where: str) -> int:
    declared = output.shape[-1]
    if not isinstance(declared, int):
        declared = manifest.dimension
    if not declared or (manifest.dimension and declared != manifest.dimension):
        raise ModelKindError(
            f"the output {output.name} has {declared or 'an unknown number of'} numbers per vector",
            where=where,
            expected=str(manifest.dimension or "a dimension in the manifest"),
        )
    return declared


def _token_axes(spec: TensorSpec, ids: TensorSpec) -> tuple[int, ...]:
    """Return the axes, the batch's left out, that run over tokens, whose padding is to be cut off."""
    tokens = ids.shape[1]
    named = tuple(axis - 1 for axis, size in enumerate(spec.shape) if axis and isinstance(size, str) and size == tokens)
    unnamed = len(spec.shape) == 3 and (isinstance(spec.shape[1], str) or spec.shape[1] == tokens)
    return named or ((0,) if unnamed else ())


def _trimmed(answer: Array, axes: tuple[int, ...], length: int) -> Array:
    """Return one text's answer without padding, as an array of its own so that it does not hold the whole batch."""
    cut = tuple(slice(length) if axis in axes else slice(None) for axis in range(answer.ndim))
    return answer[cut].copy()


def _constant_row(value: int, length: int, spec: TensorSpec | None) -> Array | None:
    import numpy as np

    return None if spec is None else np.full((1, length), value, dtype=spec.dtype)
