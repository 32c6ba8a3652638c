"""Floats: a column of them as integers over a common power of ten or two, where that gives back every bit.

What people and sensors write, ``23.45``, is a small integer over 100; what a processor computed is an integer over a
power of two. Where neither fits, the 64 bits of a float are an integer as well.
"""

from __future__ import annotations

import struct
from array import array
from itertools import repeat
from math import frexp, isfinite, ldexp
from operator import mul, truediv
from typing import Final

from skerry.spec.errors import WireError
from skerry.wire.integers import read_integers, write_integers
from skerry.wire.streams import Reader, Writer

MOST_DECIMALS: Final = 22
"""The largest power of ten that is itself a float without an error (10^22 = 5^22 · 2^22, and 5^22 < 2^53)."""
BINARY: Final = 0x20
PATTERN: Final = 0x21
_PLAIN_DECIMALS = 5
"""Decimals up to which nothing else is tried: no computed number ends so early by chance."""
_MOST_TRIED = 15
"""Decimals beyond which nobody wrote a number, and a power of two is what fits."""
_LARGEST = 2**63


def write_floats(writer: Writer, numbers: list[float]) -> None:
    """Write floats; raises ``WireError`` for NaN and infinities, which JSON cannot say."""
    if not all(map(isfinite, numbers)):
        raise WireError("NaN and infinities are no JSON values", hint="leave the field out, or send null")
    decimal = _as_decimal(numbers)
    binary = _as_binary(numbers) if decimal is None or decimal[0] > _PLAIN_DECIMALS else None
    if binary is not None and (decimal is None or _span(binary[1]) < _span(decimal[1])):
        writer.control.append(BINARY)
        writer.unsigned(binary[0])
        write_integers(writer, binary[1])
    elif decimal is not None:
        writer.control.append(decimal[0])
        write_integers(writer, decimal[1])
    else:
        writer.control.append(PATTERN)
        patterns = struct.unpack(f"<{len(numbers)}q", struct.pack(f"<{len(numbers)}d", *numbers))
        write_integers(writer, [_ordered(pattern) for pattern in patterns])


def read_floats(reader: Reader, count: int) -> list[float]:
    """Read ``count`` floats; raises ``WireError`` for a damaged column, and for what is no JSON number."""
    scale = reader.byte()
    power = reader.unsigned() if scale == BINARY else 0
    whole = read_integers(reader, count)
    try:
        if scale == PATTERN:
            numbers = list(struct.unpack(f"<{count}d", struct.pack(f"<{count}q", *map(_ordered, whole))))
        elif scale == BINARY:
            numbers = list(map(ldexp, map(float, whole), repeat(-min(power, 1 << 16))))
        elif scale <= MOST_DECIMALS:
            numbers = list(map(truediv, whole, repeat(10**scale)))
        else:
            raise WireError("the body of a batch is damaged: a column of an unknown form")
    except (ArithmeticError, struct.error) as error:
        raise WireError("the body of a batch is damaged: a number too large") from error
    if not all(map(isfinite, numbers)):
        raise WireError("the body of a batch is damaged: a number that is none")
    return numbers


def _as_decimal(numbers: list[float]) -> tuple[int, list[int]] | None:
    """Return a number of decimals and the integers, such that ``integer / 10**decimals`` is every float, bit by bit."""
    count = len(numbers)
    greatest = max(map(abs, numbers))
    decimals = max(map(_decimals, (numbers[0], numbers[count // 3], numbers[count * 2 // 3], greatest)))
    while decimals <= _MOST_TRIED and greatest * 10**decimals < _LARGEST:
        whole = list(map(round, map(mul, numbers, repeat(float(10**decimals)))))
        if _same(list(map(truediv, whole, repeat(10**decimals))), numbers):
            return decimals, whole
        needed = max(map(_decimals, numbers))
        if needed <= decimals:
            return None
        decimals = needed
    return None


def _same(some: list[float], others: list[float]) -> bool:
    """Tell whether two lists are the same to the last bit, which ``==`` does not: 0.0 and -0.0 are equal."""
    return array("d", some).tobytes() == array("d", others).tobytes()


def _decimals(number: float) -> int:
    """Return how many decimals the shortest text of a float has; many, where it needs an exponent."""
    text = repr(number)
    if text.endswith(".0"):
        return 0
    return MOST_DECIMALS + 1 if "e" in text else len(text) - text.index(".") - 1


def _as_binary(numbers: list[float]) -> tuple[int, list[int]] | None:
    """Return a power and integers, such that ``integer / 2**power`` is every float; ``None`` where there are none."""
    power = max([number.as_integer_ratio()[1] for number in numbers]).bit_length() - 1
    if frexp(max(map(abs, numbers)))[1] + power > 63:
        return None
    whole = [int(ldexp(number, power)) for number in numbers]
    if 0 in whole and not _same(list(map(ldexp, map(float, whole), repeat(-power))), numbers):
        return None
    return power, whole


def _span(whole: list[int]) -> int:
    return max(whole) - min(whole)


def _ordered(pattern: int) -> int:
    """Return the bits of a float as an integer in the order of the floats, and the other way round."""
    return pattern if pattern >= 0 else pattern ^ 0x7FFF_FFFF_FFFF_FFFF
