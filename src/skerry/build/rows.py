"""Rows: a user's named arrays, a row for each item, for models that take no text.

In an ``.npz`` file every array is named as an input of the model and holds all items, stacked along its first axis.
Where the items are of different sizes, each has an array of its own, whose name ends in its number: ``input_ids.0``,
``input_ids.1`` and so on. ``labels``, in either form, are the right answers. Pickled arrays are not read.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build.items import Row
from skerry.run.digest import PREFIX
from skerry.run.tensors import fits, said
from skerry.spec.errors import SpecError, SpecMissingError
from skerry.spec.ports import Array, TensorSpec
from skerry.spec.words import did_you_mean

LABELS = "labels"
MOST_BYTES = 512e6
"""Of all rows that are used, in memory: some 850 images of 224 by 224."""

TOKENS = "input_ids"

_NUMBERED = re.compile(r"(.+)\.(\d+)")
_FORMAT = "an .npz file with an array for each input, stacked along the first axis"


class Rows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows of arrays, where they are from, and the right answers where they are known.

    Parameters
    ----------
    items:
        For each item the arrays by the names of the inputs.
    digests:
        Of each item's arrays.
    labels:
        The right answer to each, a number, a name or an array; empty where none are known.
    called:
        What they are called, in the plural.
    """

    origin: str
    items: tuple[Row, ...]
    digests: tuple[str, ...]
    labels: tuple[Any, ...] = ()
    called: str = "rows"

    @property
    def labelled(self) -> bool:
        """Whether right answers came along."""
        return bool(self.labels)

    @property
    def digest(self) -> str:
        """The digest of the rows and the labels."""
        told = [self.digests, [_plain(label) for label in self.labels]]
        return PREFIX + hashlib.sha256(msgspec.json.encode(told)).hexdigest()

    def identities(self) -> list[tuple[str, str]]:
        """Return the digest of each row; only equal ones are the same."""
        return [(digest, digest) for digest in self.digests]

    def relatives(self, place: int) -> tuple[int, ...]:
        """Return nothing: no row has to stay with another."""
        return ()

    def taken(self, places: Sequence[int], origin: str) -> Rows:
        """Return the rows at these places."""
        return Rows(
            origin=origin, called=self.called, items=tuple(self.items[place] for place in places),
            digests=tuple(self.digests[place] for place in places),
            labels=tuple(self.labels[place] for place in places) if self.labels else (),
        )  # fmt: skip

    def truth(self, metric: str) -> tuple[Any, ...] | None:
        """Return the right answers: for ``perplexity`` the tokens of each row, else the labels."""
        if metric != "perplexity":
            return self.labels or None
        if any(TOKENS not in row for row in self.items):
            return None
        return tuple(row[TOKENS].reshape(-1) for row in self.items)


def made(
    origin: str, items: Iterable[Row], labels: Sequence[Any], *, called: str = "rows", most: int | None = None
) -> Rows:
    """Return rows with their digests; of more than ``most``, that many at even distances."""
    told = list(items)
    found = Rows(
        origin=origin, items=tuple(told), digests=tuple(map(row_digest, told)), labels=tuple(labels), called=called
    )
    bytes_of_one = max((sum(array.nbytes for array in row.values()) for row in told), default=0)
    room = min(most or len(told), max(1, int(MOST_BYTES / max(bytes_of_one, 1))))
    step = max(len(told) / room, 1.0)
    return found if step == 1.0 else found.taken([int(place * step) for place in range(room)], origin)


def read_rows(path: Path, inputs: Sequence[TensorSpec], most: int) -> Rows:
    """Read an ``.npz`` file for a model with these inputs.

    Raises
    ------
    SpecMissingError
        There is no such file.
    SpecError
        It is no such file; an array is missing, unknown, of a wrong type or shape, holds no finite numbers or another
        number of items than the others.
    """
    arrays = _loaded(path)
    columns = _columns(path, arrays, [*(spec.name for spec in inputs)])
    labels = columns.pop(LABELS, None) if all(spec.name != LABELS for spec in inputs) else None
    specs = {spec.name: spec for spec in inputs}
    count = _count(path, columns, labels)
    fitted = {name: [_fitted(path, specs[name], each, row) for row, each in enumerate(columns[name])] for name in specs}
    items = [{name: fitted[name][row] for name in fitted} for row in range(count)]
    return made(str(path), items, [_label(path, each) for each in (() if labels is None else labels)], most=most)


def _loaded(path: Path) -> dict[str, Array]:
    import numpy as np

    try:
        with path.open("rb") as file:  # numpy leaves a damaged one open
            found = np.load(file, allow_pickle=False)
            if not hasattr(found, "files"):
                raise SpecError("this file holds one array without a name", where=str(path), expected=_FORMAT)
            return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise SpecMissingError("there is no such file of arrays", where=str(path), expected=_FORMAT) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        pickled = "allow_pickle" in str(error)
        raise SpecError(
            "the arrays are pickled Python objects, which may run code when they are read"
            if pickled else f"the arrays cannot be read: {error}",
            where=str(path), expected=_FORMAT,
            hint="write items of different sizes as NAME.0, NAME.1 and so on" if pickled else "",
        ) from error  # fmt: skip


def _columns(path: Path, arrays: Mapping[str, Array], inputs: Sequence[str]) -> dict[str, Sequence[Array]]:
    """Return for each name what it has for each item, from stacked and numbered arrays."""
    columns: dict[str, Any] = {}
    numbered: dict[str, dict[int, Array]] = {}
    for key, array in arrays.items():
        match = _NUMBERED.fullmatch(key)
        if key in inputs or key == LABELS:
            if array.ndim == 0:
                raise SpecError(f"the array {key!r} has no axis of items", where=str(path), expected=_FORMAT)
            columns[key] = array
        elif match and (match[1] in inputs or match[1] == LABELS):
            numbered.setdefault(match[1], {})[int(match[2])] = array
        else:
            raise SpecError(
                f"the model has no input {key!r}", where=str(path), expected=f"{', '.join(inputs)}, and perhaps labels",
                hint=did_you_mean(key, [*inputs, LABELS]),
            )  # fmt: skip
    for name, found in numbered.items():
        gap = next((row for row in range(len(found)) if row not in found), None)
        if gap is not None or name in columns:
            raise SpecError(
                f"there is no array {name}.{gap}" if gap is not None else f"{name!r} is there as a whole and numbered",
                where=str(path), expected=f"{name}.0 to {name}.{len(found) - 1}, without a gap",
            )  # fmt: skip
        columns[name] = [found[row] for row in range(len(found))]
    missing = [name for name in inputs if name not in columns]
    if missing:
        raise SpecError(
            f"there is no array for the input {missing[0]!r}", where=str(path), expected=f"{', '.join(inputs)}",
            hint=did_you_mean(missing[0], arrays),
        )  # fmt: skip
    return columns


def _count(path: Path, columns: Mapping[str, Sequence[Array]], labels: Sequence[Array] | None) -> int:
    """Return how many items there are; raises ``SpecError`` where arrays disagree."""
    first = next(iter(columns))
    count = len(columns[first])
    others = {**columns, **({} if labels is None else {LABELS: labels})}
    for name, found in others.items():
        if len(found) != count:
            raise SpecError(
                f"{len(found)} items in {name!r} and {count} in {first!r}", where=str(path),
                expected="as many in each: the first axis runs over items",
            )  # fmt: skip
    if not count:
        raise SpecError("the file holds no items", where=str(path), expected=_FORMAT)
    return count


def _fitted(path: Path, spec: TensorSpec, array: Array, row: int) -> Array:
    """Return an item's array as the input takes it; only the width of numbers is changed, never their kind."""
    import numpy as np

    where = f"{path}: {spec.name}, item {row}"
    found, wanted = np.asarray(array), np.dtype(spec.dtype)
    kinds = {"i": "iu", "u": "iu", "f": "f", "b": "b"}.get(wanted.kind, wanted.kind)
    if found.dtype.kind not in kinds:
        raise SpecError(
            f"the numbers are {found.dtype}", where=where, expected=said(spec),
            hint=f"give what the model was trained on, as array.astype({spec.dtype!r})",
        )  # fmt: skip
    if not fits(spec, found.shape):
        raise SpecError(f"the shape is {found.shape}", where=where, expected=said(spec))
    if wanted.kind in "iu" and found.size:
        limits = np.iinfo(wanted)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise SpecError(f"a number does not fit into {wanted}", where=where, expected=said(spec))
    if wanted.kind == "f" and not np.isfinite(found).all():
        raise SpecError("a number is NaN or infinite", where=where, expected="finite numbers")
    return np.ascontiguousarray(found, dtype=wanted)


def _label(path: Path, label: Any) -> Any:
    """Return the right answer of an item: a number or a name, or an array where there are several."""
    import numpy as np

    found = np.asarray(label)
    if found.dtype.kind not in "iubfU" or (found.dtype.kind == "f" and not np.isfinite(found).all()):
        raise SpecError(f"a label is {found.dtype}: {found}"[:200], where=str(path), expected="finite numbers or names")
    return found.item() if found.ndim == 0 else found


def _plain(label: Any) -> Any:
    return label.tolist() if hasattr(label, "tolist") else label


def row_digest(row: Row) -> str:
    """Return the digest of a row's names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name, array in sorted(row.items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()
