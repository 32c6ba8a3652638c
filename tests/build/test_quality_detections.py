"""Mean average precision against a slow computation of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.build.detections import OVERLAPS, Box, Detected, mean_average_precision, overlap
from skerry.build.quality import evaluate
from skerry.spec.errors import ModelError, SpecError

numbers = st.integers(0, 8)
boxes = st.tuples(numbers, numbers, st.integers(1, 5), st.integers(1, 5)).map(
    lambda at: (float(at[0]), float(at[1]), float(at[0] + at[2]), float(at[1] + at[3]))
)
classes = st.integers(0, 2)


@st.composite
def images(draw: st.DrawFn) -> tuple[list[Detected], list[Detected]]:
    said, right = [], []
    for _ in range(draw(st.integers(1, 4))):
        there = draw(st.lists(st.tuples(boxes, classes), max_size=4))
        found = draw(st.lists(st.tuples(boxes, classes), max_size=4)) + there[: draw(st.integers(0, 4))]
        tenths = st.lists(st.integers(1, 999), min_size=len(found), max_size=len(found), unique=True)
        scores = [number / 1000 for number in draw(tenths)]
        right.append(Detected(boxes=tuple(box for box, _ in there), classes=tuple(name for _, name in there)))
        said.append(
            Detected(
                boxes=tuple(box for box, _ in found), classes=tuple(name for _, name in found), scores=tuple(scores)
            )
        )
    return said, right


def area_by_cells(one: Box, other: Box) -> float:
    cells = [(x, y) for x in range(14) for y in range(14)]

    def inside(box: Box, x: int, y: int) -> bool:
        return box[0] <= x < box[2] and box[1] <= y < box[3]

    both = sum(inside(one, x, y) and inside(other, x, y) for x, y in cells)
    either = sum(inside(one, x, y) or inside(other, x, y) for x, y in cells)
    return both / either


@given(boxes, boxes)
def test_the_overlap_is_the_shared_area(one: Box, other: Box) -> None:
    assert overlap(one, other) == pytest.approx(area_by_cells(one, other))


def slow_precision(said: list[Detected], right: list[Detected], name: int, least: float) -> float:
    """By definition: go through all detections by score; at each recall the best precision from there on."""
    ranked = sorted(
        (
            (score, image, box)
            for image, found in enumerate(said)
            for box, one, score in zip(found.boxes, found.classes, found.scores, strict=True)
            if one == name
        ),
        key=lambda row: -row[0],
    )
    wanted = sum(one == name for image in right for one in image.classes)
    taken: set[tuple[int, int]] = set()
    hits, points = 0, []
    for tried, (_, image, box) in enumerate(ranked, 1):
        free = [
            (overlap(box, there), -place)
            for place, (there, one) in enumerate(zip(right[image].boxes, right[image].classes, strict=True))
            if one == name and (image, place) not in taken
        ]
        if free and max(free)[0] >= least:
            taken.add((image, -max(free)[1]))
            hits += 1
        points.append((hits / wanted, hits / tried))
    asked = [step / 100 for step in range(101)]
    return float(
        np.mean([max((p for recall, p in points if recall >= at - 1e-12), default=0.0) for at in asked])
    )  # fmt: skip


@settings(max_examples=60)
@given(images())
def test_it_is_what_the_definition_says(both: tuple[list[Detected], list[Detected]]) -> None:
    said, right = both
    there = {name for image in right for name in image.classes}
    if not there:
        with pytest.raises(SpecError):
            mean_average_precision(said, right)
        return
    scores = [score for image in said for score in image.scores]
    if len(set(scores)) < len(scores):
        return  # which of two equal scores comes first is not defined
    slow = np.mean([[slow_precision(said, right, name, least) for least in OVERLAPS] for name in there])
    found = mean_average_precision(said, right)
    assert found.value == pytest.approx(slow)
    assert 0 <= found.low <= found.value <= found.high <= 1
    half = np.mean([slow_precision(said, right, name, 0.5) for name in there])
    assert evaluate("map50", None, said, right).value == pytest.approx(half)


def test_all_found_is_one_and_nothing_found_is_none() -> None:
    right = [Detected(boxes=((0, 0, 4, 4), (5, 5, 8, 8)), classes=(0, 1))] * 3
    said = [Detected(boxes=one.boxes, classes=one.classes, scores=(0.9, 0.8)) for one in right]
    assert evaluate("map", None, said, right).value == 1
    assert evaluate("map", None, [Detected()] * 3, right).value == 0


def test_a_detection_without_a_score_is_refused() -> None:
    right = [Detected(boxes=((0, 0, 4, 4),), classes=(0,))]
    with pytest.raises(ModelError, match="scores"):
        mean_average_precision(right, right)
