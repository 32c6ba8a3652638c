"""Infer: text goes into the model, its raw outputs come back as fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from skerry.run.texts import Texts, model_of, only
from skerry.spec.errors import SpecError, StageError, TensorError
from skerry.spec.ports import Array, Context, Options, TextModel
from skerry.spec.record import Outcome, Record
from skerry.spec.words import did_you_mean


class InferOptions(Options, frozen=True, kw_only=True):
    """What goes in, and which outputs become which fields.

    Parameters
    ----------
    model:
        The model's name in the pipeline file.
    field:
        The field with the text; default ``text``.
    outputs:
        The outputs to keep: a list of their names, or a mapping from an output's name to the field that gets it.
        Default all of them, each in a field of its own name.
    max_batch:
        How many records go in at once at the most; default 16, beyond which a small encoder gains nothing on a small
        device and each record waits for all of them.
    """

    model: str
    field: str = "text"
    outputs: list[str] | dict[str, str] | None = None
    max_batch: int = 16


class InferStage:
    """Adds the model's raw outputs, one array per output without padding; a record without a text fails alone."""

    Options: ClassVar[type[InferOptions]] = InferOptions

    def __init__(self, options: InferOptions) -> None:
        if options.max_batch < 1:
            raise SpecError("`max_batch` is at least 1")
        if options.outputs is not None and not options.outputs:
            raise SpecError("`outputs` names nothing", expected="names of the model's outputs, or no such key for all")
        self._options = options
        self.max_batch = options.max_batch
        self._model: TextModel | None = None

    def open(self, context: Context) -> None:
        """Find the model; raises ``ModelMissingError`` and what loading it raises."""
        self._model = model_of(context, self._options.model)

    def process(self, record: Record) -> Outcome:
        """Run one record through the model."""
        return only(self.process_batch([record]))

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Run several records through the model at once; raises ``TensorError`` for an output it does not have."""
        if self._model is None:
            raise StageError("infer is not open")
        texts = Texts(records, self._options.field)
        if texts.texts:
            outputs = self._model.infer(texts.texts)
            chosen = self._chosen(outputs)
            for index, record in enumerate(texts.good):
                for name, field in chosen.items():
                    record.fields[field] = outputs[name][index]
        return texts.answers()

    def _chosen(self, outputs: Mapping[str, list[Array]]) -> dict[str, str]:
        """Return the field of each output that is kept."""
        wanted = self._options.outputs
        if wanted is None:
            return {name: name for name in outputs}
        chosen = dict(wanted) if isinstance(wanted, dict) else {name: name for name in wanted}
        for name in chosen:
            if name not in outputs:
                raise TensorError(
                    f"the model {self._options.model!r} has no output {name!r}",
                    expected=f"one of {', '.join(outputs)}",
                    hint=did_you_mean(name, outputs),
                )
        return chosen

    def close(self) -> None:
        """Let go of the model."""
        self._model = None
