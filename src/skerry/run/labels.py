"""Labels: what a classifier can answer, with the words and examples that tell each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.spec.errors import LabelsError
from skerry.spec.words import did_you_mean

_EXPECTED = "a list of names, or a mapping from each name to its description"
_KEYS = ("description", "examples")
_MOST_BYTES = 16 * 2**20  # a label file is written by hand; a larger one is the wrong file


class Label(msgspec.Struct, frozen=True):
    """One label: its name, ``descriptions`` of it in plain words, and ``examples`` of texts that have it."""

    name: str
    descriptions: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The name as people write it: ``disk_full`` is ``disk full``."""
        return " ".join(self.name.replace("_", " ").replace("-", " ").split()) or self.name


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a label file: YAML 1.2 or JSON.

    Raises
    ------
    LabelsError
        The file is missing, empty, no YAML, or does not hold labels; the line is named where it is known.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise LabelsError("the file is too large for labels", where=str(path), expected="at most 16 MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"the label file cannot be read: {error}", where=str(path)) from error
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        raise LabelsError(_problem(error), where=place, expected=_EXPECTED) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise LabelsError(f"the label file is no YAML: {error}", where=str(path), expected=_EXPECTED) from error
    return labels_of(tree, where=str(path))


def _problem(error: Any) -> str:
    problem = str(error.problem or error.context or "it is no YAML")
    return problem.partition(" with original value")[0]


def labels_of(tree: Any, *, where: str = "") -> tuple[Label, ...]:
    """Take labels out of plain values: a list of names, or a mapping.

    A label of a mapping is ``null``, a description, a list of descriptions, or
    ``{description: text or list, examples: list}``.

    Raises ``LabelsError``; the line is named where ``tree`` knows it (values of ruamel.yaml do).
    """
    if isinstance(tree, Mapping):
        labels = [_label(name, content, _place(where, tree, name)) for name, content in tree.items()]
    elif isinstance(tree, Sequence) and not isinstance(tree, str | bytes):
        labels = [_label(name, None, _place(where, tree, index)) for index, name in enumerate(tree)]
        _refuse_repeated(labels, tree, where)
    else:
        said = "is empty" if tree is None else f"holds a {type(tree).__name__}"
        raise LabelsError(f"the label file {said}", where=where, expected=_EXPECTED)
    if not labels:
        raise LabelsError("there are no labels", where=where, expected=_EXPECTED)
    return tuple(labels)


def _place(where: str, tree: Any, key: Any) -> str:
    """Return ``file:line:column`` of a key or item, or as much as is known."""
    marks = getattr(tree, "lc", None)
    if marks is None:
        return where
    try:
        line, column = marks.key(key) if isinstance(tree, Mapping) else marks.item(key)
    except (KeyError, IndexError, TypeError):
        return where
    return f"{where}:{line + 1}:{column + 1}"


def _refuse_repeated(labels: Sequence[Label], tree: Any, where: str) -> None:
    seen: set[str] = set()
    for index, label in enumerate(labels):
        if label.name in seen:
            raise LabelsError(f"the label {label.name!r} is there twice", where=_place(where, tree, index))
        seen.add(label.name)


def _label(name: Any, content: Any, place: str) -> Label:
    if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
        raise LabelsError(f"{name!r} is no name for a label", where=place, expected="text; quote what YAML reads else")
    if content is None:
        return Label(str(name))
    if isinstance(content, Mapping):
        return _full_label(str(name), content, place)
    return Label(str(name), _texts(content, place, f"the description of {name!r}"))


def _full_label(name: str, content: Mapping[Any, Any], place: str) -> Label:
    for key in content:
        if key not in _KEYS:
            raise LabelsError(
                f"unknown key {key!r} in the label {name!r}",
                where=_place(place.partition(":")[0], content, key) if hasattr(content, "lc") else place,
                expected=" or ".join(_KEYS),
                hint=did_you_mean(str(key), _KEYS),
            )
    description, examples = content.get("description"), content.get("examples")
    return Label(
        name,
        () if description is None else _texts(description, place, f"the description of {name!r}"),
        () if examples is None else _texts(examples, place, f"the examples of {name!r}"),
    )


def _texts(value: Any, place: str, noun: str) -> tuple[str, ...]:
    """Return one text or a list of texts as a tuple."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or isinstance(items, bytes):
        raise LabelsError(f"{noun} is a {type(value).__name__}", where=place, expected="text, or a list of texts")
    for index, item in enumerate(items):
        if not isinstance(item, str) or not item.strip():
            raise LabelsError(
                f"{noun} holds {item!r}",
                where=_place(place.partition(":")[0], items, index) if hasattr(items, "lc") else place,
                expected="text; quote what YAML reads as a number or a date",
            )
    return tuple(str(item) for item in items)
