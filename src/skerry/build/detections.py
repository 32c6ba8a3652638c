"""Detections: boxes that a model found in images, and their mean average precision, as COCO computes it.

Source: Lin and others, *Microsoft COCO: Common Objects in Context*, 2014, and the evaluation that its authors publish:
matching image by image in the order of scores, precision interpolated at 101 recalls, the mean over classes and over
the overlaps (IoU) 0.5, 0.55, … 0.95. All boxes count as of one size, and none as a crowd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from skerry.build import bootstrap
from skerry.build.figures import Estimate
from skerry.spec.errors import ModelError, SpecError
from skerry.spec.ports import Array

OVERLAPS = tuple(round(0.5 + step * 0.05, 2) for step in range(10))
MOST_PER_IMAGE = 100
"""Detections of one image and class that count, the highest scores first: COCO's own limit."""

_RECALLS = 101
_RESAMPLES = 200
"""Fewer than elsewhere: every drawing orders all detections of all classes anew."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


class Detected(msgspec.Struct, frozen=True, kw_only=True):
    """The boxes of one image and their classes; ``scores`` are empty for what is really there."""

    boxes: tuple[Box, ...] = ()
    classes: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()


class _Matched(NamedTuple):
    """One class: per detection (the highest score first) its image and whether it is right at each overlap.

    ``image`` is int of shape (detections,), ``right`` bool of shape (overlaps, detections), ``wanted`` the number of
    boxes of each image, of shape (images,).
    """

    image: Array
    right: Array
    wanted: Array


def mean_average_precision(
    candidate: Sequence[Detected], truth: Sequence[Detected], *, overlaps: Sequence[float] = OVERLAPS, seed: int = 0
) -> Estimate:
    """Return mAP over images, 0 to 1, with its interval over images.

    Raises
    ------
    SpecError
        There is not one box in ``truth``.
    ModelError
        A detection lacks its score or class.
    """
    import numpy as np

    for found in candidate:
        if not len(found.boxes) == len(found.classes) == len(found.scores):
            raise ModelError(
                f"{len(found.boxes)} boxes, {len(found.classes)} classes and {len(found.scores)} scores", where="map"
            )
    classes = sorted({name for image in truth for name in image.classes})
    if not classes:
        raise SpecError("there is not one box to be found", where="map")
    matched = [_match(candidate, truth, name, overlaps) for name in classes]

    def statistic(drawn: Array) -> Array:
        weights = [np.bincount(row, minlength=len(truth)) for row in drawn]
        return np.array([_mean_of_classes(matched, weight) for weight in weights])

    return bootstrap.estimate(statistic, len(truth), seed=seed, resamples=_RESAMPLES)


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share by the area that they cover together (IoU), 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    covered = _area(one) + _area(other) - shared
    return shared / covered if covered > 0 else 0.0


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _match(candidate: Sequence[Detected], truth: Sequence[Detected], name: int, overlaps: Sequence[float]) -> _Matched:
    """Match the detections of one class in every image."""
    import numpy as np

    rows: list[tuple[float, int, list[bool]]] = []
    wanted = []
    for place, (found, really) in enumerate(zip(candidate, truth, strict=True)):
        there = [box for box, one in zip(really.boxes, really.classes, strict=True) if one == name]
        said = zip(found.scores, found.boxes, found.classes, strict=True)
        kept = sorted(((score, box) for score, box, one in said if one == name), key=lambda pair: -pair[0])
        del kept[MOST_PER_IMAGE:]
        right = [_right([box for _, box in kept], there, least) for least in overlaps]
        rows += [(score, place, [level[index] for level in right]) for index, (score, _) in enumerate(kept)]
        wanted.append(len(there))
    rows.sort(key=lambda row: -row[0])
    return _Matched(
        np.array([place for _, place, _ in rows], dtype=np.int64),
        np.array([levels for *_, levels in rows], dtype=bool).reshape(len(rows), len(overlaps)).T,
        np.array(wanted),
    )


def _right(said: Sequence[Box], there: Sequence[Box], least: float) -> list[bool]:
    """Give each detection, in the order of scores, the box that it overlaps most of those that are still free."""
    free = dict(enumerate(there))
    right = []
    for box in said:
        best = max(free, key=lambda place: overlap(box, free[place]), default=None)
        hit = best is not None and overlap(box, free[best]) >= least
        if hit and best is not None:
            del free[best]
        right.append(hit)
    return right


def _mean_of_classes(matched: Sequence[_Matched], weight: Array) -> float:
    """Return the mean over classes and overlaps, with every image counted ``weight`` times; 0 where none has a box."""
    found = [_average_precision(one, weight) for one in matched if (one.wanted * weight).sum()]
    return sum(found) / len(found) if found else 0.0


def _average_precision(matched: _Matched, weight: Array) -> float:
    """Return the average precision of one class: the mean over overlaps of the precision at 101 recalls."""
    import numpy as np

    if not len(matched.image):
        return 0.0
    counted = weight[matched.image]
    hits = np.cumsum(matched.right * counted, axis=1)
    tries = np.maximum(np.cumsum(counted), 1)
    recall, precision = hits / (matched.wanted * weight).sum(), hits / tries
    ceiling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    asked = np.linspace(0, 1, _RECALLS)
    found = []
    for level in range(len(recall)):
        places = np.searchsorted(recall[level], asked - 1e-12, side="left")
        found.append(np.append(ceiling[level], 0.0)[places].mean())
    return float(np.mean(found))
