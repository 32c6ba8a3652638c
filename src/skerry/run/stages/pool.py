"""Pool: vectors per token become one, and a vector becomes shorter, of length 1, or int8."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from skerry.run.pooling import normalized, pooled
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Array, Context, Options
from skerry.spec.record import Outcome, Record
from skerry.spec.words import did_you_mean


class PoolOptions(Options, frozen=True, kw_only=True):
    """How vectors are pooled and packed, in the order of these options.

    Parameters
    ----------
    field:
        The field with the vectors, (tokens, dimension), or with one vector, (dimension,); default ``embedding``.
    to:
        The field that gets the answer; default the same field.
    how:
        ``mean`` (default), ``cls`` (the first token) or ``max`` over the tokens; one vector is taken as it is.
    mask:
        A field with one number per token, 0 where it is not to count; default every token counts.
    dimensions:
        How many of the first numbers are kept, for models trained that way (Kusupati et al.: Matryoshka
        Representation Learning, 2022); default all.
    normalize:
        Whether the vector gets the length 1; default yes, so that a dot product is the cosine.
    quantize:
        ``int8`` stores round(x / scale) with one scale per vector, max|x| / 127, in the field ``TO_scale``: a
        quarter of the bytes. Default ``none``.
    """

    field: str = "embedding"
    to: str | None = None
    how: Literal["mean", "cls", "max"] = "mean"
    mask: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    quantize: Literal["none", "int8"] = "none"


class PoolStage:
    """Post-processes the vectors of one record."""

    Options: ClassVar[type[PoolOptions]] = PoolOptions

    def __init__(self, options: PoolOptions) -> None:
        if options.dimensions is not None and options.dimensions < 1:
            raise SpecError("`dimensions` is at least 1")
        self._options = options
        self._to = options.to or options.field

    def open(self, context: Context) -> None:
        """Do nothing: there is nothing to load."""

    def process(self, record: Record) -> Outcome:
        """Replace the vectors of one record; raises ``StageError`` where there are none, or too few numbers."""
        import numpy as np

        options = self._options
        vector = self._pooled(record.fields)
        if options.dimensions is not None:
            if options.dimensions > len(vector):
                raise StageError(
                    f"the vector in {options.field!r} has {len(vector)} numbers",
                    expected=f"{options.dimensions} or more",
                )
            vector = vector[: options.dimensions].copy()
        if options.normalize:
            vector = normalized(vector[None])[0]
        if options.quantize == "int8":
            scale = float(np.max(np.abs(vector))) / 127.0 or 1.0
            record.fields[f"{self._to}_scale"] = scale
            vector = np.rint(vector / scale).astype(np.int8)
        record.fields[self._to] = vector
        return record

    def _pooled(self, fields: dict[str, Any]) -> Array:
        """Return one finite float32 vector."""
        import numpy as np

        values = _array(fields, self._options.field)
        if values.ndim == 2:
            mask = _array(fields, self._options.mask) if self._options.mask is not None else None
            if mask is not None and (mask.shape != values.shape[:1] or not mask.any()):
                raise StageError(
                    f"the mask has the shape {mask.shape}", expected=f"{values.shape[:1]}, not all of it 0"
                )
            kept = None if mask is None else (mask != 0).astype(np.int64)[None]
            values = pooled(values[None], kept, self._options.how)[0]
        if not np.isfinite(values).all():
            raise StageError(f"the vector in {self._options.field!r} is not finite")
        return values

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def _array(fields: dict[str, Any], field: str) -> Array:
    """Return a field as float32 of shape (dimension,) or (tokens, dimension); raises ``StageError``."""
    import numpy as np

    if field not in fields:
        raise StageError(f"the record has no field {field!r}", hint=did_you_mean(field, map(str, fields)))
    try:
        values = np.asarray(fields[field], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise StageError(f"the field {field!r} holds no vector: {error}") from error
    if values.ndim not in {1, 2} or values.size == 0:
        raise StageError(
            f"the field {field!r} has the shape {values.shape}", expected="(dimension,) or (tokens, dimension)"
        )
    return values
