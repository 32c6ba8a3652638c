"""Ranges: the same as sets of numbers, only smaller."""

from __future__ import annotations

import doctest
import itertools

from hypothesis import given
from hypothesis import strategies as st

from skerry.wire import ranges
from skerry.wire.ranges import Range, contains, from_numbers, merge, subtract, total

pairs = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def numbers(of: list[Range]) -> set[int]:
    """Return the numbers that ranges hold."""
    return {number for first, last in of for number in range(first, last + 1)}


def is_merged(of: list[Range]) -> bool:
    """Tell whether ranges are sorted, disjoint and not neighbours."""
    return all(first <= last for first, last in of) and all(
        before[1] + 1 < after[0] for before, after in itertools.pairwise(of)
    )


@given(pairs, pairs)
def test_ranges_are_sets(one: list[Range], other: list[Range]) -> None:
    union, difference = merge(one, other), subtract(one, other)
    assert numbers(union) == numbers(one) | numbers(other) and is_merged(union)
    assert numbers(difference) == numbers(one) - numbers(other) and is_merged(difference)
    assert total(union) == len(numbers(union))
    assert from_numbers(numbers(one)) == merge(one)
    assert {number for number in range(80) if contains(union, number)} == numbers(union)


def test_a_range_that_ends_before_it_begins_is_empty() -> None:
    assert merge([(5, 4)]) == [] == subtract([(3, 2)], [])


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(ranges).failed == 0
