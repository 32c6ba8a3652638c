"""The texts of a batch: what a model stage reads from its records, and which records have none."""

from __future__ import annotations

from collections.abc import Sequence

from skerry.spec.errors import ModelKindError, ModelMissingError, StageError
from skerry.spec.ports import Context, TextModel
from skerry.spec.record import Outcome, Record
from skerry.spec.words import did_you_mean


class Texts:
    """The texts found in a batch and the records that have none.

    ``good`` are the records with a text in ``field``, ``texts`` their texts in the same order.
    """

    def __init__(self, records: Sequence[Record], field: str) -> None:
        self.good: list[Record] = []
        self.texts: list[str] = []
        self._answers: list[Outcome | Exception] = []
        for record in records:
            text = record.fields.get(field)
            if isinstance(text, str):
                self.good.append(record)
                self.texts.append(text)
                self._answers.append(record)
            else:
                self._answers.append(no_text(record, field))

    def answers(self) -> list[Outcome | Exception]:
        """Return one answer per record of the batch: itself, or the error in its place."""
        return self._answers


def no_text(record: Record, field: str) -> StageError:
    """Return the error for a record whose ``field`` is missing or no text."""
    if field in record.fields:
        return StageError(f"the field {field!r} is a {type(record.fields[field]).__name__}", expected="text")
    names = [str(name) for name in record.fields]
    return StageError(
        f"the record has no field {field!r}",
        expected=f"text in it; the record has {', '.join(names) or 'no fields'}",
        hint=did_you_mean(field, names),
    )


def only(answers: Sequence[Outcome | Exception]) -> Outcome:
    """Return the answer of a batch of one; raises the record's own error."""
    answer = answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def model_of(context: Context, name: str) -> TextModel:
    """Return a model of texts by its name in the pipeline file.

    Raises ``ModelMissingError`` where there is none, ``ModelKindError`` where it takes arrays.
    """
    found = any_model_of(context, name)
    if not getattr(found, "takes_text", True):
        raise ModelKindError(
            f"the model {name!r} takes arrays, not text", where=context.name, hint="the stage `infer` gives it arrays"
        )
    return found


def any_model_of(context: Context, name: str) -> TextModel:
    """Return a model by its name in the pipeline file, whatever it takes; raises ``ModelMissingError``."""
    if context.models is None:
        raise ModelMissingError(f"there is no model {name!r}", where=context.name, expected="an entry under `models:`")
    return context.models(name)
