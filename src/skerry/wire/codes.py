"""Codes: small numbers from 0 as bits, written as text of ``0`` and ``1``, which Python joins faster than it shifts.

Three codes, each with what it is good at:

* ``Rice``: a number's upper part in unary, ``width`` lower bits as they are (Rice 1979): noise around a centre.
* ``classes``: how many bits ``number + 1`` has, in a Huffman code of its own, then those bits without the first (Elias
  1975, with Huffman's code in place of unary): anything else.
* ``values``: each value in a Huffman code: few different values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from skerry.spec.errors import WireError
from skerry.wire.streams import Reader

LONGEST_CODE = 15
"""Bits of a code word, so that its length fits into four bits."""


def code_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """Return how many bits each symbol gets in a Huffman code of at most 15 bits; a lone symbol gets 0.

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
    """Return the depth of each leaf of the Huffman tree."""
    count = len(weights)
    heap = [(weight, place) for place, weight in enumerate(weights)]
    heapify(heap)
    parents = [0] * (2 * count - 1)
    for node in range(count, 2 * count - 1):
        first, second = heappop(heap), heappop(heap)
        parents[first[1]] = parents[second[1]] = node
        heappush(heap, (first[0] + second[0], node))
    depths = [0] * (2 * count - 1)
    for node in range(2 * count - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[:count]


def code_words(lengths: Iterable[tuple[int, int]]) -> dict[int, str]:
    """Return the canonical code of pairs of length and symbol: shorter words first, then in the order of the symbols.

    >>> code_words([(1, 7), (2, 8), (2, 9)])
    {7: '0', 8: '10', 9: '11'}

    Raises
    ------
    WireError
        No code has words of these lengths.
    """
    words: dict[int, str] = {}
    code = before = 0
    for length, symbol in sorted(lengths):
        code <<= length - before
        if code >> length:
            raise WireError("the body of a batch is damaged: there is no such code")
        words[symbol] = format(code, f"0{length}b") if length else ""
        code += 1
        before = length
    if not words or (before and code != 1 << before):
        raise WireError("the body of a batch is damaged: there is no such code")
    return words


def write_rice(numbers: Iterable[int], width: int) -> str:
    """Return numbers in a Rice code: ``number >> width`` ones, a zero, and the ``width`` lower bits."""
    if not width:
        return "".join(["1" * number + "0" for number in numbers])
    top = 1 << width
    mask = top - 1
    return "".join(["1" * (number >> width) + "0" + bin(number & mask | top)[3:] for number in numbers])


def read_rice(reader: Reader, count: int, width: int) -> list[int]:
    """Read numbers of a Rice code; raises ``WireError`` when the bits end early."""
    bits, place = reader.bits, reader.place
    numbers = []
    for _ in range(count):
        stop = bits.find("0", place)
        end = stop + 1 + width
        if stop < 0 or end > len(bits):
            raise WireError("the body of a batch is damaged: bits are missing")
        upper = stop - place
        numbers.append(upper << width | int(bits[stop + 1 : end], 2) if width else upper)
        place = end
    reader.place = place
    return numbers


def write_classes(numbers: Iterable[int], words: Mapping[int, str]) -> str:
    """Return numbers as the word of their class and the bits below the first; the class counts the bits after it."""
    by_length = {size + 3: word for size, word in words.items()}
    return "".join([by_length[len(text)] + text[3:] for text in map(bin, [number + 1 for number in numbers])])


def read_classes(reader: Reader, count: int, words: Mapping[int, str]) -> list[int]:
    """Read numbers of :func:`write_classes`; raises ``WireError`` when the bits end early or are no word."""
    sizes = _lookup(words)
    longest = max(map(len, words.values()))
    bits, place = reader.bits, reader.place
    numbers = []
    for _ in range(count):
        length, size = sizes[bits[place : place + longest].ljust(longest, "0")]
        begin = place + length
        place = begin + size
        numbers.append(int("1" + bits[begin:place], 2) - 1)
    if place > len(bits):
        raise WireError("the body of a batch is damaged: bits are missing")
    reader.place = place
    return numbers


def read_words(reader: Reader, count: int, words: Mapping[int, str]) -> list[int]:
    """Read ``count`` symbols of a code; raises ``WireError`` when the bits end early."""
    symbols = _lookup(words)
    longest = max(map(len, words.values()))
    bits, place = reader.bits, reader.place
    found = []
    for _ in range(count):
        length, symbol = symbols[bits[place : place + longest].ljust(longest, "0")]
        place += length
        found.append(symbol)
    if place > len(bits):
        raise WireError("the body of a batch is damaged: bits are missing")
    reader.place = place
    return found


class _Lookup(dict[str, tuple[int, int]]):
    """What the next bits mean: found once by trying each length, and remembered."""

    def __init__(self, words: Mapping[int, str]) -> None:
        super().__init__()
        self._symbols = {word: symbol for symbol, word in words.items()}

    def __missing__(self, bits: str) -> tuple[int, int]:
        for length in range(len(bits) + 1):
            symbol = self._symbols.get(bits[:length])
            if symbol is not None:
                self[bits] = found = (length, symbol)
                return found
        raise WireError("the body of a batch is damaged: there is no such code")


def _lookup(words: Mapping[int, str]) -> _Lookup:
    return _Lookup(words)


def counts_of(numbers: Iterable[int]) -> Counter[int]:
    """Return how often each number occurs."""
    return Counter(numbers)
