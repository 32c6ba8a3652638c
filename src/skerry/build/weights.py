"""The weights of a folder: which files hold them, whether those are whole, and whether they may be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from skerry.runtimes.modelfile import LFS_POINTER, kind_of
from skerry.spec.errors import ModelCorruptError, ModelKindError, ModelMissingError

WHOLE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

PICKLE_WARNING = "reading a pickle runs whatever code its author put into it"

_LONGEST_HEADER = 100_000_000
"""Bytes; the limit that the format's own library sets."""


def holds_weights(folder: Path) -> bool:
    """Tell whether a folder has files with weights, of whatever kind."""
    return any((folder / name).exists() for name in (*WHOLE, *PICKLED))


def find_weights(folder: Path, *, pickles: bool = False) -> tuple[Path, ...]:
    """Return the files with the weights of a folder as Hugging Face writes it.

    Parameters
    ----------
    pickles:
        Whether pickled weights may be opened where there are no others.

    Raises
    ------
    ModelMissingError
        There are none, a part of them is missing, or one is only a Git LFS pointer.
    ModelCorruptError
        A safetensors file is not as long as its header says.
    ModelKindError
        There are only pickled ones, and they were not asked for.
    """
    found = _first(folder, WHOLE)
    if found is None:
        found = _first(folder, PICKLED)
        if found is None:
            raise ModelMissingError("the folder holds no weights", where=str(folder), expected=" or ".join(WHOLE))
        if not pickles:
            raise refused_pickle(found, "these weights are pickled")
    parts = _parts(found)
    for part in parts:
        _require_there(part)
        if part.suffix == ".safetensors":
            _require_whole(part)
    return parts


def refused_pickle(path: Path, what: str) -> ModelKindError:
    """Return the error that refuses a file whose reading may run code, and says why."""
    return ModelKindError(
        f"{what}: {PICKLE_WARNING}",
        where=str(path),
        expected="weights as safetensors, or an ONNX model",
        hint="set `allow_pickle: true` for this model if you trust its author, or have it saved as safetensors",
    )


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _parts(found: Path) -> tuple[Path, ...]:
    """Return a file, or with an index the index and the files that it names."""
    if found.suffix != ".json":
        return (found,)
    try:
        index = msgspec.json.decode(found.read_bytes(), type=dict[str, Any])
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise ModelCorruptError(f"this file is damaged: {error}", where=str(found)) from error
    return (found, *(found.parent / name for name in names))


def _require_there(part: Path) -> None:
    if not part.is_file():
        raise ModelMissingError("a part of the weights is missing", where=str(part))
    if kind_of(part) is LFS_POINTER:
        raise ModelMissingError("this is only a Git LFS pointer", where=str(part), hint=LFS_POINTER.advice)


def _require_whole(path: Path) -> None:
    """Raise ``ModelCorruptError`` for a safetensors file that is cut short or overlong, by its header alone.

    The format: eight bytes with the length of a JSON header, the header with each tensor's place, and the numbers.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, _LONGEST_HEADER))
    try:
        tensors = msgspec.json.decode(header, type=dict[str, dict[str, Any]])
        ends = [int(told["data_offsets"][1]) for name, told in tensors.items() if name != "__metadata__"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise _unreadable(path, "the header is damaged") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        how = "cut short" if size < expected else "overlong"
        raise _unreadable(path, f"the file is {how}, {size} bytes instead of {expected}")


def _unreadable(path: Path, why: str) -> ModelCorruptError:
    return ModelCorruptError(f"the weights cannot be read: {why}", where=str(path), hint="fetch the model again")
