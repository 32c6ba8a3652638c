"""Embed: text becomes a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from skerry.run.texts import Texts, model_of, no_text
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options, TextModel
from skerry.spec.record import Outcome, Record


class EmbedOptions(Options, frozen=True, kw_only=True):
    """What is embedded, and where the vector goes.

    Parameters
    ----------
    model:
        The model's name in the pipeline file.
    field:
        The field with the text; default ``text``.
    to:
        The field that gets the vector, a float32 array of shape (dimension,); default ``embedding``.
    max_batch:
        How many records are embedded at once at the most; default 16, beyond which a small encoder gains nothing on
        a small device and each record waits for all of them.
    """

    model: str
    field: str = "text"
    to: str = "embedding"
    max_batch: int = 16


class EmbedStage:
    """Adds a text's vector; a record without a text fails alone."""

    Options: ClassVar[type[EmbedOptions]] = EmbedOptions

    def __init__(self, options: EmbedOptions) -> None:
        if options.max_batch < 1:
            raise SpecError("`max_batch` is at least 1")
        self._options = options
        self.max_batch = options.max_batch
        self._model: TextModel | None = None

    def open(self, context: Context) -> None:
        """Find the model; raises ``ModelMissingError`` and what loading it raises."""
        self._model = model_of(context, self._options.model)

    def process(self, record: Record) -> Outcome:
        """Embed one record; raises ``StageError`` when it has no text."""
        if self._model is None:
            raise StageError("embed is not open")
        text = record.fields.get(self._options.field)
        if not isinstance(text, str):
            raise no_text(record, self._options.field)
        record.fields[self._options.to] = self._model.embed((text,))[0]
        return record

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Embed several records with one run of the model."""
        if self._model is None:
            raise StageError("embed is not open")
        texts = Texts(records, self._options.field)
        if texts.texts:
            vectors = self._model.embed(texts.texts)
            for record, vector in zip(texts.good, vectors, strict=True):
                # A row of its own: a view would keep the whole batch alive for as long as one record lives.
                record.fields[self._options.to] = vector.copy()
        return texts.answers()

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
