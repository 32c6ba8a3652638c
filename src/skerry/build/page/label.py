"""A label: where the names on a plot stand so that they do not cover each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

_LETTER = 6.6
_HEIGHT = 13.0
_GAP = 4.0


class Box(NamedTuple):
    """A rectangle in pixels; ``y`` grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float, radius: float) -> Box:
        """Return the box of a circle."""
        return cls(x - radius, y - radius, x + radius, y + radius)

    def shared(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def within(self, other: Box) -> bool:
        """Tell whether this lies in ``other``."""
        return self.shared(other) >= (self.right - self.left) * (self.bottom - self.top) - 1e-6


Place = tuple[float, float, str]
"""Where a text is anchored, on its baseline, and how: ``start``, ``middle`` or ``end``."""


def place_labels(
    texts: Mapping[int, str], important: set[int], bubbles: Mapping[int, Box], words: Iterable[Box], inside: Box
) -> dict[int, Place]:
    """Place the texts beside their bubbles, in their order, clear of other bubbles and of ``words``.

    One that is not important is left out where it would cover something; an important one takes the place where it
    covers least.
    """
    placed: dict[int, Place] = {}
    taken = [*bubbles.values(), *words]
    for key, text in texts.items():
        boxes = [(at, text_box(text, at)) for at in _places(bubbles[key])]
        tried = [(_covered(box, taken, bubbles[key]), at, box) for at, box in boxes if box.within(inside)]
        if not tried:
            continue
        covered, at, box = min(tried, key=lambda each: each[0])
        if covered == 0 or key in important:
            placed[key] = at
            taken.append(box)
    return placed


def text_box(text: str, place: Place) -> Box:
    """Return about what a text covers."""
    x, y, anchor = place
    width = len(text) * _LETTER
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return Box(left, y - _HEIGHT + 3, left + width, y + 3)


def _covered(box: Box, taken: Iterable[Box], own: Box) -> float:
    return sum(box.shared(other) for other in taken if other is not own)


def _places(bubble: Box) -> tuple[Place, ...]:
    """Return places to the right, left, above and below, then at the corners."""
    x, y = (bubble.left + bubble.right) / 2, (bubble.top + bubble.bottom) / 2
    above, below = bubble.top - _GAP, bubble.bottom + _HEIGHT
    return (
        (bubble.right + _GAP, y + 4, "start"), (bubble.left - _GAP, y + 4, "end"), (x, above, "middle"),
        (x, below, "middle"), (x, above, "start"), (x, below, "start"), (x, above, "end"), (x, below, "end"),
    )  # fmt: skip
