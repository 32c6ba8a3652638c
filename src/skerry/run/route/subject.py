"""A subject: what a stage that may ask a cloud reads, answers, and how sure it is of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from skerry.run.route.protocol import Answer, BadAnswerError
from skerry.run.stages.classify import ClassifyOptions
from skerry.run.stages.embed import EmbedOptions
from skerry.spec.cloud import Cloud
from skerry.spec.errors import SpecError
from skerry.spec.ports import Options

TOP = "\0top"
"""The field for the two best labels while a record is in the stage, where the user did not ask for them."""


class Subject(Protocol):
    """What routing has to know of a kind of stage."""

    @property
    def model(self) -> str:
        """The local model's name in the pipeline file."""

    @property
    def sent(self) -> str:
        """The field whose text would leave the device."""

    @property
    def options(self) -> Options:
        """The stage's options, changed so that it tells what the score is made of."""

    def labels(self, home: Path) -> tuple[str, ...]:
        """Return what answers may be called; nothing for vectors. Raises ``LabelsError`` or ``ModelError``."""

    def score(self, fields: dict[str, Any], rank: str) -> float:
        """Return how sure the local answer in ``fields`` is, 0 to 1, and take out what only routing needs."""

    def answer(self, fields: Mapping[str, Any]) -> Any:
        """Return the answer that stands in ``fields``."""

    def take(self, fields: dict[str, Any], answer: Answer) -> None:
        """Write a cloud's answer over the local one; raises ``BadAnswerError`` where it does not fit."""

    def loss(self, local: Any, cloud: Any) -> float:
        """Return how far two answers are apart, from 0 (the same) to 1."""

    def digest(self, home: Path) -> list[Any]:
        """Return, as plain data, all of the options that decide the answers."""


class ClassifySubject:
    """Labels with probabilities."""

    def __init__(self, options: ClassifyOptions) -> None:
        self._given = options
        self.model, self.sent = options.model, options.field
        self.options = options if options.top_k > 1 else msgspec.structs.replace(options, top_k=2, top_to=TOP)

    def labels(self, home: Path) -> tuple[str, ...]:
        """Return the names of the labels, and that for none of them."""
        from skerry.run.head import read_head
        from skerry.run.labels import labels_of, read_labels

        options = self._given
        if options.head is not None:
            names = read_head(home / options.head).labels
        elif isinstance(options.labels, str):
            names = tuple(label.name for label in read_labels(home / options.labels))
        else:
            names = tuple(label.name for label in labels_of(options.labels))
        return (*names, options.unknown) if options.unknown_below > 0 else names

    def score(self, fields: dict[str, Any], rank: str) -> float:
        """Return the best label's probability, or what it is ahead of the second."""
        top = fields.pop(TOP) if self.options.top_to == TOP else fields[self.options.top_to]
        best = float(top[0]["score"])
        return best if rank == "score" or len(top) < 2 else best - float(top[1]["score"])

    def answer(self, fields: Mapping[str, Any]) -> Any:
        """Return the label."""
        return fields[self._given.to]

    def take(self, fields: dict[str, Any], answer: Answer) -> None:
        """Write the label and its probability; one that tells none gets ``None``."""
        if answer.label is None:
            raise BadAnswerError("shape", "a vector where a label was expected")
        fields[self._given.to], fields[self._given.score_to] = answer.label, answer.score
        if self._given.top_k > 1:
            fields[self._given.top_to] = [{"label": answer.label, "score": answer.score}]

    def loss(self, local: Any, cloud: Any) -> float:
        """Return 1 for different labels."""
        return float(local != cloud)

    def digest(self, home: Path) -> list[Any]:
        """Return the options, and the contents of the files that they name."""
        files = [name for name in (self._given.labels, self._given.head) if isinstance(name, str)]
        return [self._given, *(_content(home / name) for name in files)]


class EmbedSubject:
    """Vectors. Nothing tells how sure one is, so that either all local answers stand or none."""

    def __init__(self, options: EmbedOptions) -> None:
        self._given = self.options = options
        self.model, self.sent = options.model, options.field

    def labels(self, home: Path) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def score(self, fields: dict[str, Any], rank: str) -> float:
        """Return 0 for all."""
        return 0.0

    def answer(self, fields: Mapping[str, Any]) -> Any:
        """Return the vector."""
        return fields[self._given.to]

    def take(self, fields: dict[str, Any], answer: Answer) -> None:
        """Write the vector, which has to be as long as the local one."""
        import numpy as np

        if answer.vector is None:
            raise BadAnswerError("shape", "a label where a vector was expected")
        local = fields.get(self._given.to)  # a record that waited lost its vector
        if local is not None and len(answer.vector) != len(local):
            raise BadAnswerError("dimension", f"a vector of {len(answer.vector)} numbers, {len(local)} expected")
        fields[self._given.to] = np.asarray(answer.vector, dtype=np.float32)

    def loss(self, local: Any, cloud: Any) -> float:
        """Return half of one minus the cosine."""
        import numpy as np

        length = float(np.linalg.norm(local) * np.linalg.norm(cloud))
        return min(1.0, max(0.0, (1.0 - float(np.dot(local, cloud)) / length) / 2)) if length else 1.0

    def digest(self, home: Path) -> list[Any]:
        """Return the options."""
        return [self._given]


def subject_of(kind: str, options: Options, cloud: Cloud, *, where: str = "") -> Subject:
    """Return the subject of a stage; raises ``SpecError`` for a stage or a cloud that do not go together."""
    if isinstance(options, ClassifyOptions):
        if options.vector is not None:
            raise SpecError(
                "a cloud is asked with text, and this stage takes vectors", where=where, expected="no `vector`"
            )
        return ClassifySubject(options)
    if isinstance(options, EmbedOptions):
        if cloud.spoken == "chat":
            raise SpecError("a chat gives no vectors", where=where, expected="an OIP model or …/v1/embeddings")
        return EmbedSubject(options)
    raise SpecError(f"`{kind}` cannot ask a cloud", where=where, expected="`cloud` at a `classify` or `embed` stage")


def _content(path: Path) -> str:
    return path.read_bytes().decode("latin-1") if path.is_file() else ""
