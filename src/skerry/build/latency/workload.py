"""A workload: what a model computes for a text, as far as it decides how long that takes. Pure.

What is computed for a text of any length follows from three lengths: everything in an encoder grows with the length, or
with its square. So three readings and the polynomial through them (Lagrange's) are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import msgspec

PLACES = 3
"""Readings at so many lengths decide a polynomial of the second degree."""


class Dense(msgspec.Struct, frozen=True, kw_only=True):
    """A product with a constant weight of shape (inputs, outputs): ``rows`` are those of the other factor."""

    name: str
    rows: float
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        """How many numbers the weight has."""
        return self.inputs * self.outputs


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is computed for one text.

    Parameters
    ----------
    tokens:
        The text's length.
    kernels:
        How many operators run one after the other, those that only look at shapes included.
    dense:
        The products with constant weights.
    pairs:
        Multiply-adds of products of two activations, as in attention.
    heavy:
        Numbers that go through an exponential, an error function or a normalization.
    light:
        Numbers that are added, copied or moved.
    """

    tokens: int
    kernels: float
    dense: tuple[Dense, ...]
    pairs: float
    heavy: float
    light: float

    @property
    def weights(self) -> int:
        """Numbers in all constant weights of products."""
        return sum(layer.weights for layer in self.dense)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A model's work for texts of any length; ``readings`` are of different lengths, or one for a fixed shape."""

    readings: tuple[Work, ...]

    def at(self, tokens: int) -> Work:
        """Return what a text of so many tokens takes."""
        first = self.readings[0]
        shares = _shares([each.tokens for each in self.readings], tokens)

        def mixed(figure: Callable[[Work], float]) -> float:
            return max(0.0, sum(share * figure(each) for share, each in zip(shares, self.readings, strict=True)))

        dense = tuple(
            msgspec.structs.replace(layer, rows=mixed(_rows_at(place))) for place, layer in enumerate(first.dense)
        )
        return Work(
            tokens=tokens, kernels=mixed(lambda each: each.kernels), dense=dense, pairs=mixed(lambda each: each.pairs),
            heavy=mixed(lambda each: each.heavy), light=mixed(lambda each: each.light),
        )  # fmt: skip


def _rows_at(place: int) -> Callable[[Work], float]:
    return lambda each: each.dense[place].rows


def reading_lengths(most: int) -> tuple[int, ...]:
    """Return the lengths to read a workload at, for a model that takes at most so many tokens.

    >>> reading_lengths(256)
    (8, 32, 128)
    """
    longest = max(PLACES, min(most, 128))
    return tuple(sorted({max(1, longest // 16), max(2, longest // 4), longest}))


def elements(shapes: Sequence[Sequence[int]]) -> int:
    """Return how many numbers tensors of these shapes hold together."""
    return sum(prod(shape) for shape in shapes)


def _shares(lengths: Sequence[int], tokens: int) -> list[float]:
    """Return the weight of each reading in the value at ``tokens`` (Lagrange's polynomials)."""
    return [prod((tokens - other) / (length - other) for other in lengths if other != length) for length in lengths]
