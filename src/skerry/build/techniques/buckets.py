"""Buckets: the lengths that a graph of fixed shapes is made for, chosen so that the user's texts are padded least.

Texts that are yet to come may be longer than all that were seen, and between the longest seen and the longest possible
would be nothing: a text of 33 tokens padded to 256 takes seven times as long as one of 32. So a share of the texts is
taken to be of any length.
"""

from __future__ import annotations

from collections.abc import Iterable

STEP = 4
"""Tokens: lengths are multiples of it, as the kernels' tiles are; finer ones save less than texts differ."""

UNSEEN = 0.3
"""The share of texts to come that are like none of those seen: each doubling of the length is as likely as another."""

_Choice = tuple[float, tuple[int, ...]]
"""Tokens that are computed, and the lengths with which they are."""


def doubling(most: int, least: int = 8) -> tuple[int, ...]:
    """Return lengths that double from ``least`` on, and ``most`` as the last.

    >>> doubling(50)
    (8, 16, 32, 50)
    """
    found = []
    while least < most:
        found.append(least)
        least *= 2
    return (*found, most)


def fitted(lengths: Iterable[int], most: int, count: int) -> tuple[int, ...]:
    """Return at most ``count`` lengths, ``most`` the last, with which the fewest tokens are computed.

    Each text takes the least length that holds it. Found exactly, by dynamic programming over the multiples of
    :data:`STEP`.

    Parameters
    ----------
    lengths:
        Tokens of each text, at least one; those above ``most`` count as ``most``.
    most:
        What the longest one has to hold, in tokens.
    count:
        At least 1.

    >>> fitted([5, 6, 7, 8, 30] * 4, 64, 3)
    (8, 32, 64)
    """
    places = [*range(STEP, most, STEP), most]
    shares = _shares(list(lengths), places)
    below = [sum(shares[: end + 1]) for end in range(len(places))]
    best: list[_Choice] = [(place * held, (place,)) for place, held in zip(places, below, strict=True)]
    for _ in range(1, count):
        best = [_cheaper(best, places, below, end) for end in range(len(places))]
    return best[-1][1]


def _shares(lengths: list[int], places: list[int]) -> list[float]:
    """Return what share of the texts to come belongs to each place."""
    whole = sum(1 / place for place in places)
    shares = {place: UNSEEN / place / whole for place in places}
    for length in lengths:
        shares[min(-(-max(length, 1) // STEP) * STEP, places[-1])] += (1 - UNSEEN) / len(lengths)
    return list(shares.values())


def _cheaper(best: list[_Choice], places: list[int], below: list[float], end: int) -> _Choice:
    """Return the best choice for the texts up to a place, with one length more than before.

    ``best`` has the one with the lengths so far for each place, which is the last of its lengths.
    """
    place = places[end]
    longer = [
        (tokens + place * (below[end] - below[start]), (*lengths, place))
        for start, (tokens, lengths) in enumerate(best[:end])
    ]
    return min([best[end], *longer])
