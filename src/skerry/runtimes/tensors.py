"""Tensors: whether given arrays are those that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from skerry.spec.errors import ModelError, TensorError
from skerry.spec.ports import Array, Session, TensorSpec
from skerry.spec.words import did_you_mean

if TYPE_CHECKING:
    import numpy as np

TEXT = "str"
"""The dtype name of text tensors: arrays of ``object`` or of numpy's own text types."""

_Row = tuple[str, Any, int, tuple[tuple[int, int], ...], tuple[tuple[int, str], ...]]

_MADE_UP_SIZES = (8, 32, 1, 224)
"""Sizes tried for dynamic axes of made-up input: most models take 8; images want multiples of 32."""


class InputCheck:
    """Tells whether arrays fit a model's inputs, in a few microseconds: all that can be is worked out beforehand.

    Parameters
    ----------
    specs:
        The inputs that the model takes, all of them required.
    where:
        The model's place, for error messages.
    """

    __slots__ = ("_array", "_names", "_rows", "_specs", "_where")

    def __init__(self, specs: Iterable[TensorSpec], where: str) -> None:
        import numpy as np

        self._array = np.ndarray
        self._specs = {spec.name: spec for spec in specs}
        self._names = frozenset(self._specs)
        self._rows = tuple(_row(spec, _dtype(spec)) for spec in self._specs.values())
        self._where = where

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """Check one call's arrays and return the size of every named axis.

        Raises
        ------
        TensorError
            A name is missing or unknown, or a dtype, rank or size is wrong, or two inputs disagree on the size
            of an axis that they share.
        """
        if inputs.keys() != self._names:
            raise self._wrong_names(inputs)
        sizes: dict[str, int] = {}
        for name, dtype, rank, fixed, named in self._rows:
            array = inputs[name]
            if not isinstance(array, self._array):
                raise self._wrong(name, f"is a {type(array).__name__}, not a numpy array")
            shape = array.shape
            if array.dtype != dtype and not (dtype is None and array.dtype.kind in "OU"):
                raise self._wrong(name, f"has the dtype {array.dtype}", f"convert it: array.astype({_said(dtype)!r})")
            if len(shape) != rank:
                raise self._wrong(name, f"has {len(shape)} axes: shape {shape}")
            for axis, size in fixed:
                if shape[axis] != size:
                    raise self._wrong(name, f"has the size {shape[axis]} on axis {axis}: shape {shape}")
            for axis, word in named:
                if sizes.setdefault(word, shape[axis]) != shape[axis]:
                    raise self._wrong(name, f"has {word} = {shape[axis]}, but another input has {word} = {sizes[word]}")
        return sizes

    def _wrong_names(self, inputs: Mapping[str, Array]) -> TensorError:
        takes = ", ".join(self._specs)
        unknown = [name for name in inputs if name not in self._names]
        if unknown:
            missing = [name for name in self._specs if name not in inputs]
            hint = did_you_mean(str(unknown[0]), missing or self._specs)
            return TensorError(
                f"the model has no input {unknown[0]!r}", where=self._where, expected=f"inputs: {takes}", hint=hint
            )
        missing = [name for name in self._specs if name not in inputs]
        return TensorError(f"input {missing[0]!r} is missing", where=self._where, expected=f"inputs: {takes}")

    def _wrong(self, name: str, how: str, hint: str = "") -> TensorError:
        expected = tensor_text(self._specs[name])
        return TensorError(f"input {name!r} {how}", where=self._where, expected=expected, hint=hint)


def tensor_text(spec: TensorSpec) -> str:
    """Return a tensor in words, as ``int64 (batch, tokens)``."""
    return f"{spec.dtype} ({', '.join(str(size) for size in spec.shape)})"


def run_on_made_up(session: Session, is_closed: Callable[[], bool]) -> None:
    """Run a session once on zeros, so that kernels are chosen and memory is taken.

    Raises ``ModelError`` when the model refuses every size that was tried for its dynamic axes, or was closed.
    """
    info = session.describe()
    refusal: ModelError | None = None
    for inputs in made_up_inputs(info.inputs):
        try:
            session.run(inputs)
            return
        except ModelError as error:
            if is_closed():
                raise
            refusal = error
    raise ModelError("the model refused made-up input", where=info.path) from refusal


def made_up_inputs(specs: Iterable[TensorSpec]) -> Iterable[dict[str, Array]]:
    """Yield inputs of zeros that a model may accept: one row, and several sizes for the other dynamic axes.

    Zero is an index into every table, so that no embedding is looked up beyond its end.
    """
    import numpy as np

    specs = tuple(specs)
    for size in _MADE_UP_SIZES:
        sizes = _made_up_sizes(specs, size)
        yield {
            spec.name: np.zeros(
                tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape),
                dtype=np.str_ if spec.dtype == TEXT else _dtype(spec),
            )
            for spec in specs
        }
        if not sizes:
            return


def _made_up_sizes(specs: tuple[TensorSpec, ...], size: int) -> dict[str, int]:
    """Give 1 to the names that stand first in a shape (batches), ``size`` to all others."""
    first = {spec.shape[0] for spec in specs if len(spec.shape) > 1}
    names = {axis for spec in specs for axis in spec.shape if isinstance(axis, str)}
    return {name: 1 if name in first else size for name in names}


def _dtype(spec: TensorSpec) -> np.dtype[Any] | None:
    """Return the numpy dtype of a tensor, ``None`` for text."""
    import numpy as np

    return None if spec.dtype == TEXT else np.dtype(spec.dtype)


def _said(dtype: np.dtype[Any] | None) -> str:
    return "object" if dtype is None else dtype.name


def _row(spec: TensorSpec, dtype: np.dtype[Any] | None) -> _Row:
    """Return name, dtype, rank, (axis, size) of fixed axes and (axis, name) of dynamic ones."""
    fixed = tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, int))
    named = tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, str))
    return spec.name, dtype, len(spec.shape), fixed, named
