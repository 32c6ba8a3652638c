"""Infer: text or arrays go into the model, its raw outputs come back as fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import msgspec

from skerry.run.arrays import Arrays
from skerry.run.model import ModelHandle
from skerry.run.texts import Texts, any_model_of, only
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
        The field with the text; default ``text``. Not for a model of tensors.
    inputs:
        For a model of tensors, the field of each input; default the field of its own name. Arrays or lists of numbers,
        with all axes but the one that runs over items.
    outputs:
        The outputs to keep: a list of their names, or a mapping from an output's name to the field that gets it.
        Default all of them, each in a field of its own name.
    max_batch:
        How many records go in at once at the most; default 16, beyond which a small encoder gains nothing on a small
        device and each record waits for all of them.
    """

    model: str
    field: str = "text"
    inputs: dict[str, str] = msgspec.field(default_factory=dict)
    outputs: list[str] | dict[str, str] | None = None
    max_batch: int = 16


class InferStage:
    """Adds the model's raw outputs, one array per output without padding.

    A record without its text or arrays fails alone.
    """

    Options: ClassVar[type[InferOptions]] = InferOptions

    def __init__(self, options: InferOptions) -> None:
        if options.max_batch < 1:
            raise SpecError("`max_batch` is at least 1")
        if options.outputs is not None and not options.outputs:
            raise SpecError("`outputs` names nothing", expected="names of the model's outputs, or no such key for all")
        self._options = options
        self.max_batch = options.max_batch
        self._model: TextModel | None = None
        self._takes_text = True

    def open(self, context: Context) -> None:
        """Find the model; raises ``ModelMissingError``, and ``SpecError`` for an input that it does not have."""
        self._model = any_model_of(context, self._options.model)
        self._takes_text = getattr(self._model, "takes_text", True)
        taken = [] if self._takes_text else [spec.name for spec in cast("ModelHandle", self._model).inputs()]
        for name in self._options.inputs:
            if name not in taken:
                raise SpecError(
                    f"the model {self._options.model!r} has no input {name!r}", where=context.name,
                    expected=f"one of {', '.join(taken)}" if taken else "no `inputs`: it takes text",
                    hint=did_you_mean(name, taken),
                )  # fmt: skip

    def process(self, record: Record) -> Outcome:
        """Run one record through the model."""
        return only(self.process_batch([record]))

    def process_batch(self, records: Sequence[Record]) -> Sequence[Outcome | Exception]:
        """Run several records through the model at once; raises ``TensorError`` for an output it does not have."""
        if self._model is None:
            raise StageError("infer is not open")
        if self._takes_text:
            texts = Texts(records, self._options.field)
            self._fill(texts.good, self._model, texts.texts)
            return texts.answers()
        model = cast("ModelHandle", self._model)
        arrays = Arrays(records, model.inputs(), self._options.inputs)
        self._fill(arrays.good, model, arrays.items)
        return arrays.answers()

    def _fill(self, records: Sequence[Record], model: Any, items: Sequence[Any]) -> None:
        """Put the outputs for the items into their records."""
        if not items:
            return
        outputs = model.infer(items)
        chosen = self._chosen(outputs)
        for index, record in enumerate(records):
            for name, field in chosen.items():
                record.fields[field] = outputs[name][index]

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
