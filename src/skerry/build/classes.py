"""Classes: the right answers that a user gives by name or number, as the numbers that a model answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.errors import SpecError
from skerry.spec.words import did_you_mean

METRICS = frozenset({"accuracy", "macro-f1"})
"""The metrics whose right answers are classes."""


def class_numbers(folders: Sequence[Path]) -> dict[str, int]:
    """Return the numbers of a model's classes by name, of the first ``config.json`` that tells them."""
    for folder in folders:
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
            return {str(name): int(number) for name, number in dict(config["label2id"]).items()}
        except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
            continue  # a model need not tell, and then its classes are known by their numbers
    return {}


def numbered(labels: Sequence[Any], numbers: Mapping[str, int], where: str) -> list[Any]:
    """Return labels as numbers of classes; arrays of numbers stay.

    Raises ``SpecError`` for a name that the model does not know, and for what is neither name nor whole number.
    """
    return [_numbered(label, numbers, where) for label in labels]


def _numbered(label: Any, numbers: Mapping[str, int], where: str) -> Any:
    if isinstance(label, str):
        if label in numbers:
            return numbers[label]
        raise SpecError(
            f"the model has no class {label[:80]!r}", where=where,
            expected=f"one of {', '.join(list(numbers)[:20])}" if numbers else "the numbers of the classes, from 0",
            hint=did_you_mean(label, numbers),
        )  # fmt: skip
    if isinstance(label, int) and label >= 0:
        return int(label)
    if hasattr(label, "dtype") and label.dtype.kind in "iu":
        return label
    raise SpecError(f"the label {str(label)[:80]!r} is no class", where=where, expected="a name, or a number from 0")
