"""Integers: a column of whole numbers as small numbers around something that can be foretold.

First the common factor is taken out; then come the numbers themselves, their differences, or the differences of those
(a clock); then the distance from the least, the greatest or the middle one. The cheapest in bits is written.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise, repeat
from math import gcd, log2
from operator import sub
from typing import Final, NamedTuple

from skerry.spec.errors import WireError
from skerry.wire.codes import (
    code_lengths,
    code_words,
    read_classes,
    read_rice,
    read_words,
    write_classes,
    write_rice,
)
from skerry.wire.compression import size_alone
from skerry.wire.streams import Reader, Writer

UP, DOWN, AROUND = range(3)
"""How far above the least, how far below the greatest, or how far around the middle one."""
EQUAL, RICE, CLASSES, VALUES, PLANES = range(5)
"""How the distances are written: not at all, in one of the codes, or byte by byte into ``control``."""
WIDEST: Final = 72
"""Bits of the widest number: 64, one more for a sign, and what two differences add."""
_FEW = 40
"""Different values up to which a code word for each is considered."""
_SMALL = 40
"""Bits below which nothing better is looked for."""
_WORTH_TRYING = 96
"""Bits above which it is worth while to see what zstd makes of repetitions."""


class _Model(NamedTuple):
    """One way to foretell a column: what it costs in bits, and whose distances from ``base`` are then written."""

    cost: int
    order: int
    fold: int
    base: int
    numbers: list[int]


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
    shape = reader.byte()
    packing, fold, order, has_factor = shape & 7, shape >> 3 & 3, shape >> 5 & 3, shape >> 7
    if packing == EQUAL:
        if shape != EQUAL:
            raise WireError("the body of a batch is damaged: a column of an unknown form")
        return [reader.signed()] * count
    first = reader.signed()
    factor = reader.unsigned() if has_factor else 1
    if fold > AROUND or order > 2 or order >= count:
        raise WireError("the body of a batch is damaged: a column of an unknown form")
    slope = reader.signed() if order == 2 else 0
    base = reader.signed()
    left = _read_left(reader, packing, count - order)
    offsets = _unfold(left, fold, base)
    if order == 2:
        offsets = list(accumulate(offsets, initial=slope))
    if order:
        offsets = list(accumulate(offsets, initial=0))
    return [first + factor * offset for offset in offsets]


def _write_offsets(writer: Writer, first: int, factor: int, offsets: list[int]) -> None:
    """Write what is left after the first number and the common factor were taken out."""
    model = _best_model(offsets)
    left = _fold(model.numbers, model.fold, model.base)
    packing, cost, detail = _choose_code(left)
    different = len(set(offsets)) if cost > _SMALL else len(offsets)
    if different <= _FEW or (2 * different <= len(offsets) and cost > _WORTH_TRYING):
        counts = Counter(offsets)
        plain = _fold(offsets, UP, min(counts))
        packing_of_values, cost_of_values, detail_of_values = _choose_repetition(plain, counts, cost)
        if cost_of_values < cost:
            model, left = _Model(0, 0, UP, min(counts), offsets), plain
            packing, detail = packing_of_values, detail_of_values
    writer.control.append(packing | model.fold << 3 | model.order << 5 | (factor > 1) << 7)
    writer.signed(first)
    if factor > 1:
        writer.unsigned(factor)
    if model.order == 2:
        writer.signed(offsets[1])
    writer.signed(model.base)
    _write_left(writer, packing, detail, left)


def _best_model(offsets: list[int]) -> _Model:
    """Return the cheapest way to foretell a column; what is unlikely to be it is not looked at."""
    middle = _middle(offsets)
    around = _Model(_cost(offsets, middle) + len(offsets), 0, AROUND, middle, offsets)
    steps = list(map(sub, offsets[1:], offsets))
    middle = _middle(steps)
    cost_of_steps = _cost(steps, middle)
    stepwise = _Model(cost_of_steps + len(steps), 1, AROUND, middle, steps)
    if not cost_of_steps and len(offsets) > 2:
        return stepwise
    least = min(offsets)
    up = _Model(_cost(offsets, least), 0, UP, least, offsets)
    if stepwise.cost >= min(around.cost, up.cost) or len(offsets) < 3:
        greatest = max(offsets)
        return min(around, up, _Model(_cost(offsets, greatest), 0, DOWN, greatest, offsets), key=_cost_of)
    bends = list(map(sub, steps[1:], steps))
    least, middle = min(steps), _middle(bends)
    return min(
        stepwise,
        _Model(_cost(steps, least), 1, UP, least, steps),
        _Model(_cost(bends, middle) + len(bends), 2, AROUND, middle, bends),
        key=_cost_of,
    )


def _middle(numbers: list[int]) -> int:
    """Return a number from about the middle of all: the median of at most 64 of them."""
    some = sorted(numbers[:: len(numbers) // 64 + 1])
    return some[len(some) // 2]


def _cost(numbers: list[int], base: int) -> int:
    """Return the bits of all distances from ``base``, without their signs."""
    return sum(map(int.bit_length, map(sub, numbers, repeat(base))))


def _cost_of(model: _Model) -> int:
    return model.cost


def _fold(numbers: list[int], fold: int, base: int) -> list[int]:
    """Return the distances of numbers from the least, the greatest or the middle one, as numbers from 0."""
    if fold == UP:
        return [number - base for number in numbers] if base else numbers
    if fold == DOWN:
        return [base - number for number in numbers]
    return [distance << 1 if distance >= 0 else ~(distance << 1) for distance in map(sub, numbers, repeat(base))]


def _unfold(left: list[int], fold: int, base: int) -> list[int]:
    if fold == UP:
        return [base + number for number in left]
    if fold == DOWN:
        return [base - number for number in left]
    return [base + (~(number >> 1) if number & 1 else number >> 1) for number in left]


def _choose_code(left: list[int]) -> tuple[int, float, object]:
    """Return the cheaper of the two codes that any numbers fit, its cost in bits, and what its table is made of."""
    if not any(left):
        return CLASSES, 14, {0: len(left)}
    counts = Counter(map(int.bit_length, [number + 1 for number in left]))
    cost = _entropy(counts) + sum([count * (size - 1) for size, count in counts.items()])
    cost += 14 + 4 * (max(counts) - min(counts) + 1)
    width = max(0, (sum(left) // len(left)).bit_length() - 1)
    rice = sum([number >> width for number in left]) + len(left) * (width + 1) + 8
    if rice <= cost:
        return RICE, rice, width
    return CLASSES, cost, {size - 1: count for size, count in counts.items()}


def _choose_repetition(plain: list[int], counts: Counter[int], limit: float) -> tuple[int, float, object]:
    """Return the cheaper of what suits values that come again: a code word for each, or what zstd makes of them."""
    best: tuple[int, float, object] = (VALUES, limit, None)
    if len(counts) <= _FEW:
        least = min(counts)
        table = {value - least: count for value, count in counts.items()}
        cost = _entropy(counts) + 8 + sum([4 + 8 * (value.bit_length() // 7 + 1) for value in table])
        if cost < limit:
            best = (VALUES, cost, table)
    if best[1] > _WORTH_TRYING and 3 * len(set(pairwise(plain))) < len(plain):
        planes = _planes(plain)
        cost = 8 * size_alone(planes)
        if cost < best[1]:
            return PLANES, cost, planes
    return best


def _entropy(counts: Counter[int]) -> float:
    """Return about how many bits a Huffman code takes for all: the entropy, or one bit each where there are two."""
    if len(counts) == 1:
        return 0.0
    total = sum(counts.values())
    return max(float(total), total * log2(total) - sum([count * log2(count) for count in counts.values()]))


def _write_left(writer: Writer, packing: int, detail: object, left: list[int]) -> None:
    """Write the distances in the form that was chosen."""
    if packing == RICE:
        assert isinstance(detail, int)
        writer.control.append(detail)
        writer.bits.append(write_rice(left, detail))
    elif packing == PLANES:
        assert isinstance(detail, bytes)
        writer.control.append(len(detail) // len(left))
        writer.control += detail
    else:
        assert isinstance(detail, dict)
        lengths = code_lengths(detail)
        words = code_words([(length, symbol) for symbol, length in lengths.items()])
        if packing == CLASSES:
            _write_class_table(writer, lengths)
            writer.bits.append(write_classes(left, words))
        else:
            _write_value_table(writer, lengths)
            writer.bits.append("".join([words[value] for value in left]))


def _read_left(reader: Reader, packing: int, count: int) -> list[int]:
    if packing == RICE:
        width = reader.byte()
        if width > WIDEST:
            raise WireError("the body of a batch is damaged: a number too wide")
        return read_rice(reader, count, width)
    if packing == CLASSES:
        return read_classes(reader, count, _read_class_table(reader))
    if packing == VALUES:
        return read_words(reader, count, _read_value_table(reader))
    if packing == PLANES:
        return _read_planes(reader, count)
    raise WireError("the body of a batch is damaged: a column of an unknown form")


def _write_class_table(writer: Writer, lengths: dict[int, int]) -> None:
    """Write the least and the greatest class and, in four bits each, the length of every word between; 0 for none."""
    least, greatest = min(lengths), max(lengths)
    writer.bits.append(f"{least:07b}{greatest - least:07b}")
    if greatest > least:
        writer.bits.append("".join([format(lengths.get(size, 0), "04b") for size in range(least, greatest + 1)]))


def _read_class_table(reader: Reader) -> dict[int, str]:
    least = reader.number(7)
    span = reader.number(7)
    if least + span > WIDEST:
        raise WireError("the body of a batch is damaged: a number too wide")
    if not span:
        return {least: ""}
    lengths = [(reader.number(4), least + place) for place in range(span + 1)]
    return code_words([pair for pair in lengths if pair[0]])


def _write_value_table(writer: Writer, lengths: dict[int, int]) -> None:
    """Write how many values there are, the distance of each from the one before, and the length of its word."""
    writer.control.append(len(lengths))
    before = 0
    for value in sorted(lengths):
        writer.unsigned(value - before)
        before = value
    if len(lengths) > 1:
        writer.bits.append("".join([format(lengths[value], "04b") for value in sorted(lengths)]))


def _read_value_table(reader: Reader) -> dict[int, str]:
    count = reader.byte()
    values = list(accumulate([reader.unsigned() for _ in range(count)]))
    if count == 1:
        return {values[0]: ""}
    lengths = [(reader.number(4), value) for value in values]
    if not count or min(lengths)[0] == 0:
        raise WireError("the body of a batch is damaged: there is no such code")
    return code_words(lengths)


def _planes(left: list[int]) -> bytes:
    """Return all lowest bytes, then all second bytes, and so on: like beside like."""
    width = max(1, (max(left).bit_length() + 7) // 8)
    if width == 1:
        return bytes(left)
    if width <= 8:
        whole = array("Q", left)
        if array("H", [1]).tobytes() != b"\1\0":
            whole.byteswap()
        flat, stride = whole.tobytes(), 8
    else:
        flat, stride = b"".join([number.to_bytes(width, "little") for number in left]), width
    return b"".join([flat[place::stride] for place in range(width)])


def _read_planes(reader: Reader, count: int) -> list[int]:
    width = reader.byte()
    begin, end = reader.position, reader.position + width * count
    if end > len(reader.control) or not 0 < width <= WIDEST // 8 + 1:
        raise WireError("the body of a batch is damaged: a column is cut short")
    reader.position = end
    planes = reader.control[begin:end]
    if width == 1:
        return list(planes)
    flat = bytearray(width * count)
    for place in range(width):
        flat[place::width] = planes[place * count : (place + 1) * count]
    return [int.from_bytes(flat[place : place + width], "little") for place in range(0, width * count, width)]
