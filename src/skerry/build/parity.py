"""Parity: whether an exported graph answers as the model does that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from skerry.spec.errors import ModelKindError
from skerry.spec.ports import Array

SAME = 0.9999
"""The least cosine between the vectors of both; rounding gives 1 - 1e-6."""

SCALE = 0.01
"""How far the norms of two answers may be apart, as a share: a cosine sees no factor."""


NOTHING = 1e-30
"""The norm of a row that is taken for zero."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs by name, the answers that the model gave to them, and by output which rows count (all without a mask)."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    masks: dict[str, Array] = {}


def require_same(target: Path, cases: Iterable[Case]) -> float:
    """Return the least cosine of an ONNX graph's answers to those that are told.

    Raises ``ModelKindError`` when they differ beyond rounding, have other shapes, or no runtime takes the graph.
    """
    from skerry.runtimes.onnxruntime import OnnxRuntime

    session = OnnxRuntime().load(target)
    try:
        least = 1.0
        taken = {spec.name for spec in session.describe().inputs}
        for case in cases:
            ours = session.run({name: array for name, array in case.inputs.items() if name in taken})
            for name, theirs in case.outputs.items():
                cosine = likeness(theirs, ours[name], case.masks.get(name))
                if not cosine >= SAME:
                    raise _differs(target, f"the least cosine is {cosine:.4f}", f"at least {SAME}")
                least = min(least, cosine)
        return least
    finally:
        session.close()


def likeness(theirs: Array, ours: Array, mask: Array | None = None, *, scale: float = SCALE) -> float:
    """Return the least cosine between the rows of two arrays; 0 for other shapes, or norms ``scale`` apart.

    Rows run along the last axis of arrays with up to three axes (those that ``mask`` leaves out are not looked at),
    and over all axes but the first of arrays with more. Whole numbers have to be equal.
    """
    import numpy as np

    if theirs.shape != ours.shape:
        return 0.0
    if theirs.dtype.kind != "f":
        return float(np.array_equal(theirs, ours))
    kept = mask != 0 if mask is not None and theirs.ndim == 3 and mask.shape == theirs.shape[:2] else slice(None)
    width = theirs.shape[-1] if 2 <= theirs.ndim <= 3 else -1
    rows = theirs.shape[0] if theirs.ndim > 3 else -1
    one, other = (
        array[kept].astype(np.float64).reshape((rows, -1) if width < 0 else (-1, width)) for array in (theirs, ours)
    )
    lengths = [np.linalg.norm(array, axis=-1) for array in (one, other)]
    sums = [float(np.linalg.norm(array)) for array in (one, other)]
    if not math.isclose(sums[0], sums[1], rel_tol=scale, abs_tol=1e-6):
        return 0.0
    # Below this the numbers are denormal and hold but a few bits: rows of nothing.
    lengths = [np.where(length > NOTHING, length, 0) for length in lengths]
    both = lengths[0] * lengths[1]
    cosines = np.where(both > 0, (one * other).sum(axis=-1) / np.where(both > 0, both, 1), lengths[0] == lengths[1])
    return float(cosines.min(initial=1.0))


def read_cases(path: Path) -> Iterator[Case]:
    """Yield what a converter noted: an ``.npz`` of arrays, ``NUMBER/inputs/NAME`` and ``NUMBER/outputs/NAME``."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        names = [name.split("/", 2) for name in archive.files]
        for number in sorted({number for number, _, _ in names}, key=int):
            found: dict[str, dict[str, Array]] = {"inputs": {}, "outputs": {}}
            for _, side, name in (each for each in names if each[0] == number):
                found[side][name] = archive[f"{number}/{side}/{name}"]
            yield Case(**found)


def _differs(target: Path, how: str, expected: str) -> ModelKindError:
    return ModelKindError(
        f"the exported graph does not answer as the model does: {how}", where=str(target), expected=expected
    )
