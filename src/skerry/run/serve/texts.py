"""Models of text: ``text`` goes in; the embedding comes out, and a label where the project classifies with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.run.encoder import Encoder
from skerry.run.serve.refusal import Refusal
from skerry.run.serve.servable import TOKENS, Inputs, Outputs
from skerry.run.stages.classify import ClassifyOptions, ClassifyStage
from skerry.runtimes.tensors import TEXT, InputCheck
from skerry.spec.errors import ModelError
from skerry.spec.ports import Array, Context, TensorSpec
from skerry.spec.record import Record

INPUT, EMBEDDING, LABEL, SCORE = "text", "embedding", "label", "score"
_ROWS = "batch"


class TextServable:
    """An encoder under a name.

    Parameters
    ----------
    name:
        The name that clients ask for.
    encoder:
        The loaded model; it is warmed up here, and closed with this.
    platform:
        What runs it.
    classifier:
        Gives each embedding a label; ``None`` where the project does not classify.
    """

    takes_text = True

    def __init__(self, name: str, encoder: Encoder, platform: str, classifier: Classifier | None = None) -> None:
        self.name = name
        self.platform = platform
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec(INPUT, TEXT, (_ROWS,)),)
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec(EMBEDDING, "float32", (_ROWS, encoder.dimension)),)
        if classifier is not None:
            self.outputs += (TensorSpec(LABEL, TEXT, (_ROWS,)), TensorSpec(SCORE, "float32", (_ROWS,)))
        self._encoder = encoder
        self._classifier = classifier
        self._check = InputCheck(self.inputs, name)
        encoder.warm_up()
        if classifier is not None:
            classifier.open(encoder)

    def admit(self, inputs: Inputs) -> int:
        """Return how many texts there are; raises ``TensorError``, or ``Refusal`` where there is none."""
        self._check(inputs)
        rows = int(inputs[INPUT].shape[0])
        if not rows:
            raise Refusal(400, f"input {INPUT!r} holds no text")
        return rows

    def group(self, inputs: Inputs) -> Hashable:
        """Return the same for all: the encoder itself sorts texts into batches of one length."""
        return INPUT

    def run(self, requests: Sequence[Inputs], wanted: frozenset[str]) -> list[Outputs]:
        """Embed, and classify where that is wanted; raises ``ModelError`` when the model gives no numbers."""
        import numpy as np

        texts: list[str] = []
        for request in requests:
            texts += request[INPUT].tolist()
        vectors = self._encoder.embed(texts)
        if not np.isfinite(vectors).all():
            raise ModelError("the model gave numbers that are not finite")
        found: Outputs = {EMBEDDING: vectors}
        if self._classifier is not None and wanted & {LABEL, SCORE}:
            found[LABEL], found[SCORE] = self._classifier.classify(vectors)
        if TOKENS in wanted:
            found[TOKENS] = np.array(self._encoder.count_tokens(texts), dtype=np.int64)
        if len(requests) == 1:
            return [found]
        return _split(found, [len(request[INPUT]) for request in requests])

    def close(self) -> None:
        """Free the model; safe to call twice."""
        if self._classifier is not None:
            self._classifier.close()
        self._encoder.close()


class Classifier:
    """The ``classify`` stage of a project, asked with embeddings that are there already.

    Parameters
    ----------
    options:
        The stage's options; where it reads and writes is replaced.
    home:
        The folder of the pipeline file, where label files lie.
    """

    def __init__(self, options: ClassifyOptions, home: Path) -> None:
        chosen = msgspec.structs.replace(options, vector=EMBEDDING, to=LABEL, score_to=SCORE, top_k=1)
        self._stage = ClassifyStage(chosen)
        self._home = home

    def open(self, encoder: Encoder) -> None:
        """Make the prototypes; raises ``LabelsError``, ``ModelMissingError`` or ``TensorError``."""
        log = logging.getLogger("skerry")
        models: Any = lambda _: encoder  # noqa: E731 - the one model that there is
        self._stage.open(
            Context(name="serve", home=self._home, state=self._home, stop=threading.Event(), log=log, models=models)
        )

    def classify(self, vectors: Array) -> tuple[Array, Array]:
        """Return labels (text) and scores (float32), one for each vector; raises the stage's error."""
        import numpy as np

        records = [Record({EMBEDDING: vector}) for vector in vectors]
        for answer in self._stage.process_batch(records):
            if isinstance(answer, Exception):
                raise answer
        labels = np.array([record.fields[LABEL] for record in records], dtype=object)
        return labels, np.array([record.fields[SCORE] for record in records], dtype=np.float32)

    def close(self) -> None:
        """Let go of the model."""
        self._stage.close()


def _split(found: Outputs, rows: Sequence[int]) -> list[Outputs]:
    """Return each request's rows."""
    parts: list[Outputs] = []
    start = 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in found.items()})
        start += count
    return parts
