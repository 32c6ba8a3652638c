"""Integers: a column of whole numbers as small numbers around something that can be foretold.

First the common factor is taken out; then come the numbers themselves, their differences, or the differences of those
(what is smooth); then how far each is above the least, or around the middle one. The cheapest in bits is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise, repeat
from math import gcd
from operator import sub
from typing import Final

from skerry.spec.errors import WireError
from skerry.wire.codes import Classes, Rice, read_classes, read_rice
from skerry.wire.compression import size_alone
from skerry.wire.streams import Reader, Writer

EQUAL, RICE, CLASSES, PLANES = range(4)
"""How the distances are written: not at all, in one of the codes, or byte by byte into ``control``."""
_STEPS: Final = 4
"""In the byte of a form, once for differences of the numbers, twice for the differences of those."""
_AROUND: Final = 16
"""Set in the byte of a form: distances have a sign."""
_FACTOR: Final = 32
"""Set in the byte of a form: all numbers are multiples of one."""
_WIDEST_PLANES: Final = 10
"""Bytes of the widest number: 64 bits, one more for a sign, and what differences add."""
_WORTH_TRYING = 96
"""Bits above which it is worth while to see what zstd makes of repetitions."""

_SAMPLE = 48
"""Numbers, at the most, that tell how a column is foretold."""
_SLOPE = 16
"""Bits of a sample that differences of differences must save: they need one number more."""

_Model = tuple[int, int, int, list[int]]
"""One way to foretell a column: about what a sample costs in bits, its form, its base, and what is foretold by it."""


def write_integers(writer: Writer, numbers: Sequence[int]) -> None:
    """Write numbers of at most 64 bits; how many there are, the reader must know."""
    if not numbers:
        return
    writer.budget.take_values(len(numbers))
    first = numbers[0]
    offsets = [number - first for number in numbers]
    factor = gcd(*offsets)
    if not factor:
        writer.control.append(EQUAL)
        writer.signed(first)
        return
    if factor > 1:
        offsets = [offset // factor for offset in offsets]
    _write_offsets(writer, first, factor, offsets)


def read_integers(reader: Reader, count: int) -> list[int]:
    """Read ``count`` numbers; raises ``WireError`` for a damaged column."""
    if not count:
        return []
    reader.budget.take_values(count)
    form = reader.byte()
    packing, order = form & 3, form >> 2 & 3
    if form >= 2 * _FACTOR or (packing == EQUAL and form != EQUAL) or order > 2 or order >= count:
        raise WireError("the body of a batch is damaged: a column of an unknown form")
    first = reader.signed()
    if packing == EQUAL:
        return [first] * count
    factor = reader.unsigned() if form & _FACTOR else 1
    slope = reader.signed() if order == 2 else 0
    base = reader.signed()
    distances = _read_distances(reader, packing, count - order)
    if form & _AROUND:
        offsets = [base + (distance >> 1 ^ -(distance & 1)) for distance in distances]
    else:
        offsets = [base + distance for distance in distances]
    if order == 2:
        offsets = list(accumulate(offsets, initial=slope))
    if order:
        offsets = list(accumulate(offsets, initial=0))
    return [first + factor * offset for offset in offsets]


def _write_offsets(writer: Writer, first: int, factor: int, offsets: list[int]) -> None:
    """Write what is left after the first number and the common factor were taken out."""
    _, form, base, foretold = _best_model(offsets)
    distances = _distances(foretold, form, base)
    rice, classes = Rice.of(distances), Classes.of(distances)
    code = rice if rice.cost <= classes.cost else classes
    planes = _planes_if_smaller(offsets, code.cost)
    if planes:
        form, base = PLANES, min(offsets)
    else:
        form |= RICE if code is rice else CLASSES
    writer.control.append(form | (_FACTOR if factor > 1 else 0))
    writer.signed(first)
    if factor > 1:
        writer.unsigned(factor)
    if form & 2 * _STEPS:
        writer.signed(offsets[1])
    writer.signed(base)
    if planes:
        writer.control.append(len(planes) // len(offsets))
        writer.control += planes
    else:
        code.write(writer)


def _best_model(offsets: list[int]) -> _Model:
    """Return the cheapest way to foretell a column; differences of differences only where differences are cheap."""
    steps = list(map(sub, offsets[1:], offsets))
    plain, stepwise = _foretell(offsets, 0), _foretell(steps, _STEPS)
    if stepwise[0] >= plain[0] or len(steps) < 2:
        return min(plain, stepwise)
    smooth = _foretell(list(map(sub, steps[1:], steps)), 2 * _STEPS)
    return smooth if smooth[0] + _SLOPE < stepwise[0] else stepwise


def _foretell(numbers: list[int], form: int) -> _Model:
    """Return how numbers are foretold: by the least of them, or by the middle one where that is far from the least.

    A sample tells what that costs, and what is far: more than half of all numbers spread over.
    """
    some = sorted(numbers[:: len(numbers) // _SAMPLE + 1])
    quarter = len(some) // 4
    middle, least = some[len(some) // 2], min(numbers)
    if middle - least > some[-1 - quarter] - some[quarter]:
        return _bits(some, middle) + len(some), form | _AROUND, middle, numbers
    return _bits(some, least), form, least, numbers


def _bits(numbers: list[int], base: int) -> int:
    """Return the bits of all distances from ``base``, without their signs."""
    return sum(map(int.bit_length, map(sub, numbers, repeat(base))))


def _distances(numbers: list[int], form: int, base: int) -> list[int]:
    """Return how far numbers are from ``base``, as numbers from 0."""
    if form & _AROUND:
        return [distance << 1 if distance >= 0 else ~(distance << 1) for distance in map(sub, numbers, repeat(base))]
    return [number - base for number in numbers] if base else numbers


def _planes_if_smaller(offsets: list[int], cost: float) -> bytes:
    """Return the planes of numbers where zstd makes less than ``cost`` bits of them, since they follow a pattern."""
    count = len(offsets)
    if cost <= _WORTH_TRYING or 3 * len(set(offsets)) > count or 3 * len(set(pairwise(offsets))) >= count:
        return b""
    least = min(offsets)
    planes = _planes([offset - least for offset in offsets])
    return planes if 8 * size_alone(planes) < cost else b""


def _read_distances(reader: Reader, packing: int, count: int) -> list[int]:
    if packing == RICE:
        return read_rice(reader, count)
    if packing == CLASSES:
        return read_classes(reader, count)
    return _read_planes(reader, count)


def _planes(numbers: list[int]) -> bytes:
    """Return all lowest bytes, then all second bytes, and so on: like beside like."""
    width = (max(numbers).bit_length() + 7) // 8
    flat = b"".join([number.to_bytes(width, "little") for number in numbers])
    return b"".join([flat[place::width] for place in range(width)])


def _read_planes(reader: Reader, count: int) -> list[int]:
    width = reader.byte()
    begin, end = reader.position, reader.position + width * count
    if end > len(reader.control) or not 0 < width <= _WIDEST_PLANES:
        raise WireError("the body of a batch is damaged: a column is cut short")
    reader.position = end
    flat = bytearray(width * count)
    for place in range(width):
        flat[place::width] = reader.control[begin + place * count : begin + (place + 1) * count]
    return [int.from_bytes(flat[place : place + width], "little") for place in range(0, width * count, width)]
