"""Signatures: several fixed shapes of one graph, taken together as one graph with dynamic axes.

A LiteRT file may hold the same graph for several lengths of text, or numbers of rows, each behind a signature. Which
one runs is decided here, from sizes alone: the smallest that holds the input, which is padded with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from skerry.spec.errors import ModelKindError, TensorError
from skerry.spec.ports import Array, TensorSpec

BATCH, LENGTH = "batch", "length"
"""The names that axes get: rows that do not depend on each other, and the (first) axis that is padded."""

_Place = tuple[bool, int, int]
"""An axis of a graph: whether it is an input's, the tensor's place, and the axis within it."""


class Signature(msgspec.Struct, frozen=True):
    """One way to run a file: the key of the signature, empty for a file without, and its tensors.

    A text in a shape is an axis that is dynamic in the file itself.
    """

    key: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether the file leaves no axis open."""
        return all(isinstance(size, int) for spec in (*self.inputs, *self.outputs) for size in spec.shape)


class Piece(msgspec.Struct, frozen=True):
    """One run: the signature, and the rows of the batch from ``start`` to before ``stop`` that it takes."""

    signature: Signature
    start: int
    stop: int


class Signatures:
    """What several signatures take together.

    Parameters
    ----------
    signatures:
        One or more; of several, all have fixed shapes.
    where:
        The model's place, for error messages.

    Attributes
    ----------
    inputs, outputs:
        The tensors, with names for the axes in which the signatures differ. An axis that leads all tensors and differs,
        or is 1 throughout, is the batch.

    Raises
    ------
    ModelKindError
        They differ in more than sizes, so that they are not sizes of one graph.
    """

    def __init__(self, signatures: Sequence[Signature], where: str) -> None:
        _require_alike(signatures, where)
        names = _axis_names(signatures)
        first = signatures[0]
        self.inputs = tuple(_named(spec, True, place, names) for place, spec in enumerate(first.inputs))
        self.outputs = tuple(_named(spec, False, place, names) for place, spec in enumerate(first.outputs))
        self._where = where
        self._sizes = [(signature, _sizes(self.inputs, signature)) for signature in signatures]

    def pieces(self, sizes: Mapping[str, int]) -> list[Piece]:
        """Return the runs that answer an input with these sizes of the named axes.

        Of the signatures that are long enough, those with the least padding are taken. Of these, the one with the most
        rows that does not go beyond the batch, as often as it fits, and so on; what is left is padded with rows.

        Raises
        ------
        TensorError
            There are no rows, or the input is longer than every signature; the error tells the largest.
        """
        lengths = {axis: size for axis, size in sizes.items() if axis != BATCH}
        fitting = [
            (signature, own)
            for signature, own in self._sizes
            if all(own.get(axis, size) >= size for axis, size in lengths.items())
        ]
        if not fitting:
            raise self._too_long(lengths)
        rows = sizes.get(BATCH, 1)
        if rows == 0:
            raise TensorError("the batch has no rows", where=self._where, expected="1 or more")
        least = min(_volume(own) for _, own in fitting)
        return list(
            _cut({own.get(BATCH, rows): signature for signature, own in fitting if _volume(own) == least}, rows)
        )

    def padded(self, piece: Piece, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the arrays for one run: the piece's rows, padded with zeros to the signature's shapes."""
        import numpy as np

        arrays: dict[str, Array] = {}
        for spec, target in zip(self.inputs, piece.signature.inputs, strict=True):
            array = inputs[spec.name]
            if spec.shape and spec.shape[0] == BATCH:
                array = array[piece.start : piece.stop]
            shape = tuple(a if isinstance(t, str) else t for t, a in zip(target.shape, array.shape, strict=True))
            if array.shape == shape:
                arrays[spec.name] = np.ascontiguousarray(array)
            else:
                arrays[spec.name] = np.zeros(shape, dtype=array.dtype)
                arrays[spec.name][tuple(map(slice, array.shape))] = array
        return arrays

    def trimmed(self, piece: Piece, answers: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Array]:
        """Return one run's answers without what answers the padding."""
        asked = {**sizes, BATCH: piece.stop - piece.start}
        return {
            spec.name: answers[spec.name][tuple(slice(asked.get(str(axis))) for axis in spec.shape)]
            for spec in self.outputs
        }

    def _too_long(self, lengths: Mapping[str, int]) -> TensorError:
        _, largest = max(self._sizes, key=lambda found: _volume(found[1]))
        said = " and ".join(f"{axis} = {size}" for axis, size in lengths.items() if axis in largest)
        most = " and ".join(f"{axis} = {size}" for axis, size in largest.items() if axis != BATCH)
        return TensorError(
            f"the input has {said}, more than any signature of the model takes",
            where=self._where,
            expected=f"at the most {most}",
            hint="shorten the input, or build the model with a longer signature",
        )


def _require_alike(signatures: Sequence[Signature], where: str) -> None:
    """Require the same names, dtypes and ranks of all, and fixed shapes of several."""
    forms = {
        tuple((spec.name, spec.dtype, len(spec.shape)) for spec in (*signature.inputs, *signature.outputs))
        for signature in signatures
    }
    if len(forms) > 1 or (len(signatures) > 1 and not all(signature.is_fixed for signature in signatures)):
        keys = ", ".join(signature.key for signature in signatures)
        raise ModelKindError(
            f"the model's signatures are no sizes of one graph: {keys}",
            where=where,
            hint='choose with the option signature, such as {signature: "' + signatures[0].key + '"}',
        )


def _axis_names(signatures: Sequence[Signature]) -> dict[_Place, str]:
    """Return the names of the axes that are dynamic in the file, or that differ between the signatures."""
    vectors = _vectors(signatures)
    leading = {vectors.get((is_input, tensor, 0)) for is_input, tensor in _tensors(signatures[0])}
    names: dict[_Place, str] = {}
    lengths: dict[tuple[int | str, ...], str] = {}
    if len(leading) == 1 and _is_batch(next(iter(leading))):
        names |= {place: BATCH for place in vectors if place[2] == 0}
    elif _is_open_batch(signatures[0]):
        names |= {place: BATCH for place, vector in vectors.items() if place[2] == 0 and isinstance(vector[0], str)}
    for place, vector in vectors.items():
        if place in names:
            continue
        if isinstance(vector[0], str):
            names[place] = vector[0]
        elif len(set(vector)) > 1:
            is_input, tensor, axis = place
            if is_input and vector not in lengths:
                lengths[vector] = LENGTH if not lengths else f"{LENGTH}_{len(lengths) + 1}"
            names[place] = lengths.get(vector) or f"{signatures[0].outputs[tensor].name}.{axis}"
    return names


def _vectors(signatures: Sequence[Signature]) -> dict[_Place, tuple[int | str, ...]]:
    """Return the size of every axis in each of the signatures, inputs first."""
    found: dict[_Place, tuple[int | str, ...]] = {}
    for is_input in (True, False):
        rows = zip(*(each.inputs if is_input else each.outputs for each in signatures), strict=True)
        for tensor, specs in enumerate(rows):
            for axis, sizes in enumerate(zip(*(spec.shape for spec in specs), strict=True)):
                found[is_input, tensor, axis] = sizes
    return found


def _tensors(signature: Signature) -> Iterator[tuple[bool, int]]:
    yield from ((True, place) for place in range(len(signature.inputs)))
    yield from ((False, place) for place in range(len(signature.outputs)))


def _is_batch(vector: tuple[int | str, ...] | None) -> bool:
    """Tell whether a leading axis is one of rows: it differs, or is 1 throughout."""
    if vector is None or isinstance(vector[0], str):
        return False
    return len(set(vector)) > 1 or vector[0] == 1


def _is_open_batch(signature: Signature) -> bool:
    """Tell whether the leading axis of every input is dynamic in the file."""
    return all(spec.shape and isinstance(spec.shape[0], str) for spec in signature.inputs)


def _named(spec: TensorSpec, is_input: bool, tensor: int, names: Mapping[_Place, str]) -> TensorSpec:
    shape = tuple(names.get((is_input, tensor, axis), size) for axis, size in enumerate(spec.shape))
    return TensorSpec(spec.name, spec.dtype, shape)


def _sizes(named: Sequence[TensorSpec], signature: Signature) -> dict[str, int]:
    """Return the size that a signature has for every named axis; those that are dynamic in the file are left out."""
    return {
        name: size
        for spec, own in zip(named, signature.inputs, strict=True)
        for name, size in zip(spec.shape, own.shape, strict=True)
        if isinstance(name, str) and isinstance(size, int)
    }


def _volume(sizes: Mapping[str, int]) -> int:
    """Return how many elements one row has, as far as the named axes tell."""
    return math.prod(size for axis, size in sizes.items() if axis != BATCH)


def _cut(by_rows: Mapping[int, Signature], rows: int) -> Iterator[Piece]:
    """Cut a batch into pieces: the most rows that are there first, and what is left padded to the fewest."""
    start = 0
    while start < rows:
        left = rows - start
        taken = max((size for size in by_rows if size <= left), default=min(by_rows))
        yield Piece(by_rows[taken], start, min(start + taken, rows))
        start += taken
