"""An oracle: a cloud's answers in the words of the stage, whether it gives labels or vectors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.run.route.client import CloudClient, RemoteModel
from skerry.run.route.protocol import Answer, BadAnswerError
from skerry.run.route.subject import Subject
from skerry.run.stages.classify import ClassifyOptions, ClassifyStage
from skerry.spec.cloud import Cloud
from skerry.spec.errors import SkerryError
from skerry.spec.ports import Context
from skerry.spec.record import Record

_LABEL, _SCORE, _TEXT = "label", "score", "text"


class Oracle:
    """Asks a cloud for what a stage would answer; safe from several threads.

    A cloud that gives vectors where labels are wanted is given the texts of the labels first, so that its vectors meet
    prototypes of its own model; with a head, ``cloud.head`` is used instead.
    """

    def __init__(self, client: CloudClient, subject: Subject, cloud: Cloud, context: Context) -> None:
        self._client, self._context = client, context
        self._model = RemoteModel(client, float(cloud.timeout))
        self._stage: ClassifyStage | None = None
        self._classifies: ClassifyOptions | None = None
        if isinstance(subject.options, ClassifyOptions):
            own = msgspec.structs.replace(
                subject.options, field=_TEXT, to=_LABEL, score_to=_SCORE, top_k=1, vector="vector",
                head=cloud.head if subject.options.head is not None else None,
            )  # fmt: skip
            self._classifies = own
        self._lock = threading.Lock()

    def ask(self, texts: Sequence[str], timeout_s: float) -> list[Answer]:
        """Return a sound answer for each text; raises ``BadAnswerError``, or ``OSError`` where none comes in time."""
        answers = self._client.ask(texts, timeout_s)
        if self._classifies is None or all(answer.label is not None for answer in answers):
            return answers
        return [self._labelled(answer) for answer in answers]

    def _labelled(self, answer: Answer) -> Answer:
        """Turn a vector into a label by prototypes of the cloud's own model."""
        record = Record({"vector": answer.vector})
        found = self._classifier().process_batch([record])[0]
        if isinstance(found, Exception):
            raise BadAnswerError("dimension", str(found))
        return Answer(record.fields[_LABEL], record.fields[_SCORE])

    def _classifier(self) -> ClassifyStage:
        with self._lock:
            if self._stage is None:
                assert self._classifies is not None
                if self._classifies.labels is None and self._classifies.head is None:
                    raise BadAnswerError("shape", "the cloud gives vectors, and `cloud.head` names no head for them")
                stage = ClassifyStage(self._classifies)
                models: Any = lambda _: self._model  # noqa: E731 - the one model that there is
                try:
                    stage.open(msgspec.structs.replace(self._context, models=models))
                except SkerryError as error:
                    raise BadAnswerError("dimension", str(error)) from error
                self._stage = stage
            return self._stage

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
