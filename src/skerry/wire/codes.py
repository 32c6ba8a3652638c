"""Codes: small numbers from 0 as bits, written as text of ``0`` and ``1``, which Python joins faster than it shifts.

Two codes, each with what it is good at:

* Rice: a number's upper part in unary, its lower bits as they are (Rice 1979): noise around a centre, few numbers.
* Classes: how many bits ``number + 1`` has, in a Huffman code of its own, then those bits without the first (Elias
  1975, with Huffman's code in place of unary): anything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from math import log2
from typing import Final, NamedTuple, Self

from skerry.spec.errors import WireError
from skerry.wire.streams import Reader, Writer

WIDEST: Final = 72
"""Bits of the widest number: 64, one more for a sign, and what differences add."""
LONGEST_CODE: Final = 7
"""Bits of a code word, so that its length fits into three bits and all words into a small table."""
_PATTERNS: Final = [[format(number, f"0{size}b") if size else "" for number in range(1 << size)] for size in range(8)]
"""All texts of so many bits, in order."""


class Rice(NamedTuple):
    """Numbers in a Rice code: ``number >> width`` ones, a zero, and the ``width`` lower bits.

    ``cost`` is in bits, the byte of the width included.
    """

    cost: float
    width: int
    numbers: Sequence[int]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        """Return the code whose width suits the mean; what ``width`` cuts off is taken to be half of it on average."""
        count, total = len(numbers), sum(numbers)
        width = max(0, (total // count).bit_length() - 1)
        upper = (total >> width) - (count * ((1 << width) - 1) >> width + 1)
        return cls(upper + count * (width + 1) + 8, width, numbers)

    def write(self, writer: Writer) -> None:
        """Write the width, then the numbers."""
        width = self.width
        writer.control.append(width)
        top = 1 << width
        mask = top - 1
        writer.bits.append(
            "".join(["1" * (number >> width) + "0" + bin(number & mask | top)[3:] for number in self.numbers])
        )


def read_rice(reader: Reader, count: int) -> list[int]:
    """Read numbers of :class:`Rice`; raises ``WireError`` when the bits end early."""
    width = reader.byte()
    if width > WIDEST:
        raise WireError("the body of a batch is damaged: a number too wide")
    bits, place = reader.bits, reader.place
    numbers = []
    for _ in range(count):
        stop = bits.find("0", place)
        begin, end = stop + 1, stop + 1 + width
        if stop < 0 or end > reader.end:
            raise WireError("the body of a batch is damaged: bits are missing")
        upper = stop - place
        numbers.append(upper << width | int(bits[begin:end], 2) if width else upper)
        place = end
    reader.place = place
    return numbers


class Classes(NamedTuple):
    """Numbers as the word of their class, how many bits they have, and then those bits without the first.

    ``cost`` is in bits, the table of the words included; ``counts`` tells how often each class occurs.
    """

    cost: float
    counts: dict[int, int]
    classes: list[int]
    numbers: Sequence[int]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        """Return the code whose words suit the classes."""
        classes = list(map(int.bit_length, numbers))
        counts = Counter(classes)
        cost = _entropy(counts) + sum(classes) - len(classes) + counts[0]
        return cls(cost + 14 + 3 * (max(counts) - min(counts) + 1), counts, classes, numbers)

    def write(self, writer: Writer) -> None:
        """Write the least and the greatest class, three bits for the length of every word between, then the numbers."""
        lengths = code_lengths(self.counts)
        least, greatest = min(lengths), max(lengths)
        table = "".join([_PATTERNS[3][lengths.get(size, 0)] for size in range(least, greatest + 1)])
        writer.bits.append(f"{least:07b}{greatest - least:07b}{table if greatest > least else ''}")
        words = code_words(lengths)
        numbers = zip(self.classes, map(bin, self.numbers), strict=True)
        writer.bits.append("".join([words[size] + text[3:] for size, text in numbers]))


def read_classes(reader: Reader, count: int) -> list[int]:
    """Read numbers of :class:`Classes`; raises ``WireError`` when the bits end early or there is no such code.

    A table says for all of the next bits, as many as the longest word has, where the number's own bits begin and end,
    and what stands above them.
    """
    words = code_words(_read_class_table(reader))
    longest = max(map(len, words.values()))
    meanings: list[tuple[int, int, str]] = []
    for size, word in words.items():
        end = len(word) + max(0, size - 1)
        meanings += [(len(word), end, "1" if size else "0")] * (1 << longest - len(word))
    table = dict(zip(_PATTERNS[longest], meanings, strict=True))
    bits, place = reader.bits, reader.place
    numbers = []
    try:
        for _ in range(count):
            begin, end, top = table[bits[place : place + longest]]
            numbers.append(int(top + bits[place + begin : place + end], 2))
            place += end
    except KeyError:
        place = reader.end + 1
    if place > reader.end:
        raise WireError("the body of a batch is damaged: bits are missing")
    reader.place = place
    return numbers


def _read_class_table(reader: Reader) -> dict[int, int]:
    """Read how long the word of each class is."""
    least, span = reader.number(7), reader.number(7)
    if least + span > WIDEST:
        raise WireError("the body of a batch is damaged: a number too wide")
    if not span:
        return {least: 0}
    digits = format(reader.number(3 * span + 3), f"0{span + 1}o")
    return {least + place: int(digit) for place, digit in enumerate(digits) if digit != "0"}


def _entropy(counts: Counter[int]) -> float:
    """Return about how many bits a Huffman code takes for all: the entropy, or one bit each where there are two."""
    if len(counts) == 1:
        return 0.0
    total = counts.total()
    return max(float(total), total * log2(total) - sum([count * log2(count) for count in counts.values()]))


def code_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """Return how many bits each symbol gets in a Huffman code of at most 7 bits; a lone symbol gets 0.

    >>> code_lengths({7: 3, 8: 1, 9: 1})
    {7: 1, 8: 2, 9: 2}
    """
    if len(counts) == 1:
        return dict.fromkeys(counts, 0)
    symbols = sorted(counts)
    weights = [counts[symbol] for symbol in symbols]
    while True:
        depths = _depths(weights)
        if max(depths) <= LONGEST_CODE:
            return dict(zip(symbols, depths, strict=True))
        weights = [(weight + 1) >> 1 for weight in weights]


def _depths(weights: Sequence[int]) -> list[int]:
    """Return the depth of each leaf of the Huffman tree, of at most 128 leaves."""
    count = len(weights)
    heap = [weight << 8 | place for place, weight in enumerate(weights)]
    heapify(heap)
    parents = [0] * (2 * count - 1)
    for node in range(count, 2 * count - 1):
        first = heappop(heap)
        second = heapreplace(heap, (first >> 8) + (heap[0] >> 8) << 8 | node)
        parents[first & 255] = parents[second & 255] = node
    depths = [0] * (2 * count - 1)
    for node in range(2 * count - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[:count]


def code_words(lengths: Mapping[int, int]) -> dict[int, str]:
    """Return the canonical code of symbols with these lengths, in its order: shorter words first, then lower symbols.

    >>> code_words({9: 2, 7: 1, 8: 2})
    {7: '0', 8: '10', 9: '11'}

    Raises
    ------
    WireError
        No code has words of these lengths.
    """
    words: dict[int, str] = {}
    code = before = 0
    for length, symbol in sorted([(length, symbol) for symbol, length in lengths.items()]):
        code <<= length - before
        if code >> length:
            raise WireError("the body of a batch is damaged: there is no such code")
        words[symbol] = _PATTERNS[length][code]
        code += 1
        before = length
    if not words or (before and code != 1 << before):
        raise WireError("the body of a batch is damaged: there is no such code")
    return words
