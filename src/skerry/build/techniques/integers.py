"""Integers: float weights rounded to few bits, with the scales that bring them back."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from skerry.device.cpu import isa, processors
from skerry.device.tree import Tree
from skerry.spec.ports import Array

_FULL, _REDUCED = 127.0, 63.0


class Rounded(msgspec.Struct, frozen=True):
    """Integers and their scales; ``restored`` is what they stand for, float32 of the weights' shape."""

    integers: Array
    scales: Array
    restored: Array


def by_column(weight: Array, *, reduced: bool = False) -> Rounded:
    """Round to int8, symmetric, one scale for each column (output channel) of a weight of shape (inputs, outputs).

    ``reduced`` keeps to 7 bits, so that two products of 8 bits fit into 16: x86 processors without VNNI add them so,
    and saturate.
    """
    return _symmetric(weight, 0, _REDUCED if reduced else _FULL)


def by_row(table: Array) -> Rounded:
    """Round to int8, symmetric, one scale for each row of a table of shape (rows, numbers)."""
    return _symmetric(table, 1, _FULL)


def by_block(weight: Array, bits: int, block: int) -> Rounded:
    """Round to unsigned integers of 4 or 8 bits, one scale for every ``block`` numbers of a row.

    The number of the largest magnitude becomes the lowest integer, the one without a positive counterpart, as ONNX
    Runtime and llama.cpp do it. Zero is the middle integer.

    Returns
    -------
    ``integers`` are uint8 of shape (rows, blocks, block * bits / 8), the first of two 4-bit ones in the low half;
    ``scales`` float32 of shape (rows, blocks).
    """
    import numpy as np

    rows, columns = weight.shape
    blocks = -(-columns // block)
    padded = np.pad(weight, ((0, 0), (0, blocks * block - columns))).reshape(rows, blocks, block)
    place = np.abs(padded).argmax(axis=-1, keepdims=True)
    middle = 2 ** (bits - 1)
    scales = np.take_along_axis(padded, place, -1) / -middle
    scales[scales == 0] = 1.0
    whole = np.clip(np.rint(padded / scales) + middle, 0, 2 * middle - 1)
    restored = ((whole - middle) * scales).reshape(rows, -1)[:, :columns]
    bytes_ = whole.astype(np.uint8)
    if bits == 4:
        bytes_ = bytes_[..., 0::2] | (bytes_[..., 1::2] << 4)
    return Rounded(bytes_, scales[..., 0].astype(np.float32), restored.astype(np.float32))


def sums_saturate(instructions: Collection[str] | None = None) -> bool:
    """Tell whether a processor, by default this one, adds two products of 8 bits in 16: x86 with AVX2, without VNNI."""
    known = isa(processors(Tree())) if instructions is None else instructions
    return "avx2" in known and not any("vnni" in one for one in known)


def _symmetric(weight: Array, axis: int, top: float) -> Rounded:
    import numpy as np

    scales = np.abs(weight).max(axis=axis, keepdims=True) / top
    scales[scales == 0] = 1.0
    whole = np.clip(np.rint(weight / scales), -top, top)
    return Rounded(whole.astype(np.int8), scales.squeeze(axis).astype(np.float32), (whole * scales).astype(np.float32))
