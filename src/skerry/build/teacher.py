"""A teacher: the model that was given, for techniques that learn from what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from skerry.build.artifact import RUNTIMES, Artifact
from skerry.run.encoder import Encoder, load_encoder
from skerry.spec.manifest import ModelManifest, Variant

Embed = Callable[[Sequence[str]], Any]
"""Gives the vectors of texts, float32 of shape (texts, dimension), or a classifier's logits: (texts, classes)."""


def teaching(baseline: Artifact) -> contextlib.AbstractContextManager[Embed | None]:
    """Return the teacher of texts while it is open; a model of tensors has none."""
    return contextlib.nullcontext() if baseline.tokenizer is None else Teacher(baseline)


class Teacher:
    """The vectors of texts by an artifact; it is loaded when it is first asked, since most searches need no teacher."""

    def __init__(self, artifact: Artifact) -> None:
        manifest = ModelManifest(
            source="teacher", task=artifact.task, tokenizer=str(artifact.tokenizer), max_tokens=artifact.max_tokens,
            pooling=artifact.pooling, normalize=artifact.normalize, dimension=artifact.dimension,
        )  # fmt: skip
        variant = Variant(name="teacher", runtime=RUNTIMES[artifact.form], file=artifact.file)
        self._load: Callable[[], Encoder] = lambda: load_encoder(artifact.folder, manifest, variant)
        self._loaded: Encoder | None = None

    def __enter__(self) -> Embed:
        return self._embed

    def _embed(self, texts: Sequence[str]) -> Any:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded.embed(texts)

    def __exit__(self, *error: object) -> None:
        if self._loaded is not None:
            self._loaded.close()
