"""The arrays of a batch: what a model of tensors reads from its records, and which records do not have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skerry.run.tensors import fits, said
from skerry.spec.errors import StageError
from skerry.spec.ports import Array, TensorSpec
from skerry.spec.record import Outcome, Record
from skerry.spec.words import did_you_mean


class Arrays:
    """The arrays found in a batch and the records that lack some.

    ``good`` are the records that have them all, ``items`` their arrays by the names of the inputs, in the same order.

    Parameters
    ----------
    inputs:
        What the model takes.
    fields:
        The field that each input is read from; default the one of its own name. Lists of numbers will do.
    """

    def __init__(self, records: Sequence[Record], inputs: Sequence[TensorSpec], fields: Mapping[str, str]) -> None:
        self.good: list[Record] = []
        self.items: list[dict[str, Array]] = []
        self._answers: list[Outcome | Exception] = []
        for record in records:
            try:
                item = {spec.name: _array(record, fields.get(spec.name, spec.name), spec) for spec in inputs}
            except StageError as error:
                self._answers.append(error)
                continue
            self.good.append(record)
            self.items.append(item)
            self._answers.append(record)

    def answers(self) -> list[Outcome | Exception]:
        """Return one answer per record of the batch: itself, or the error in its place."""
        return self._answers


def _array(record: Record, field: str, spec: TensorSpec) -> Array:
    """Return a field as an array that an input takes; raises ``StageError``."""
    import numpy as np

    if field not in record.fields:
        names = [str(name) for name in record.fields]
        raise StageError(
            f"the record has no field {field!r}", expected=f"{said(spec)}; the record has {', '.join(names) or 'none'}",
            hint=did_you_mean(field, names),
        )  # fmt: skip
    try:
        found = np.asarray(record.fields[field])
        array = np.ascontiguousarray(found.astype(spec.dtype, casting="same_kind" if found.size else "unsafe"))
    except (TypeError, ValueError) as error:
        raise StageError(f"the field {field!r} is no such array: {error}", expected=said(spec)) from error
    array = array.reshape(found.shape)  # a number alone would get an axis
    if not fits(spec, array.shape):
        raise StageError(f"the field {field!r} has the shape {array.shape}", expected=said(spec))
    return array
