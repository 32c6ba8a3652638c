"""Ranges: sets of sequence numbers as sorted, disjoint pairs ``(first, last)``, both inclusive."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Range = tuple[int, int]
"""The first and the last number of a run without gaps."""


def merge(*sets: Iterable[Range]) -> list[Range]:
    """Return the union as the fewest ranges: sorted, disjoint, neighbours joined.

    >>> merge([(5, 6), (1, 2)], [(3, 3), (9, 9)])
    [(1, 3), (5, 6), (9, 9)]
    """
    merged: list[Range] = []
    for first, last in sorted(pair for ranges in sets for pair in ranges):
        if last < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def from_numbers(numbers: Iterable[int]) -> list[Range]:
    """Return the ranges that hold exactly these numbers, in any order.

    >>> from_numbers([3, 1, 2, 7])
    [(1, 3), (7, 7)]
    """
    return merge((number, number) for number in numbers)


def contains(ranges: Sequence[Range], number: int) -> bool:
    """Tell whether a number is in merged ranges.

    >>> contains([(1, 3), (7, 7)], 4)
    False
    """
    place = bisect_right(ranges, number, key=lambda pair: pair[0])
    return place > 0 and number <= ranges[place - 1][1]


def subtract(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """Return what is in ``ranges`` and not in ``taken``, merged.

    >>> subtract([(1, 10)], [(3, 4), (10, 12)])
    [(1, 2), (5, 9)]
    """
    left: list[Range] = []
    cuts = merge(taken)
    position = 0
    for first, last in merge(ranges):
        start = first
        while position < len(cuts) and cuts[position][1] < start:
            position += 1
        look = position
        while look < len(cuts) and cuts[look][0] <= last:
            if cuts[look][0] > start:
                left.append((start, cuts[look][0] - 1))
            start = max(start, cuts[look][1] + 1)
            look += 1
        if start <= last:
            left.append((start, last))
    return left


def total(ranges: Iterable[Range]) -> int:
    """Return how many numbers disjoint ranges hold.

    >>> total([(1, 3), (7, 7)])
    4
    """
    return sum(last - first + 1 for first, last in ranges)
