"""CTranslate2 on the field: Skerry's trial child with another encoder in it, so that it is timed by the same code."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skerry.build import trial_child
from skerry.run.tokens import VocabularyTokens
from skerry.spec.manifest import ModelManifest, Variant


class CTranslate2Encoder:
    """Tokenizer, encoder, mean over the tokens, length 1; as little around it as there can be."""

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        import numpy

        assert manifest.tokenizer is not None
        assert manifest.pooling == "mean"
        self._numpy = numpy
        self._tokens = VocabularyTokens(Path(manifest.tokenizer), manifest.max_tokens)
        library: Any = importlib.import_module("ctranslate2")
        self._encoder: Any = library.Encoder(str(folder), device="cpu", inter_threads=1, intra_threads=1)
        self.dimension = manifest.dimension

    def embed(self, texts: Sequence[str]) -> Any:
        """Return one vector per text: float32 of shape (len(texts), dimension)."""
        return self._numpy.stack([self._one(text) for text in texts])

    def warm_up(self) -> None:
        """Answer a short and a longer text."""
        self.embed(["warm", "The first answer is the slow one, and this one is longer."])

    def _one(self, text: str) -> Any:
        answer = self._encoder.forward_batch([list(self._tokens.one(text))]).last_hidden_state
        vector = self._numpy.asarray(answer)[0].sum(axis=0)
        return vector / self._numpy.sqrt(vector @ vector)


def load(folder: Path, manifest: ModelManifest, variant: Variant) -> Any:
    """Load the converted model; the variant's own runtime is not asked."""
    return CTranslate2Encoder(folder, manifest)


if __name__ == "__main__":
    setattr(trial_child, "load_encoder", load)  # noqa: B010 -- another type, on purpose
    trial_child.main()
