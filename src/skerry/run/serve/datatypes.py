"""Datatypes: the tensors of the Open Inference Protocol as numpy arrays, and back.

Source: the Open Inference Protocol, version 2, with its binary tensor data extension: numbers lie row by row, little
end first; an element of ``BYTES`` is its length in 4 bytes, then that many bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.run.serve.refusal import Refusal
from skerry.runtimes.tensors import TEXT
from skerry.spec.ports import Array

BYTES = "BYTES"
DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    BYTES: TEXT,
}
"""The numpy name of each datatype; ``BYTES`` is text here, in arrays of ``object``."""
DATATYPES: dict[str, str] = {dtype: datatype for datatype, dtype in DTYPES.items()}
_MOST_AXES = 32
_LARGEST = 2**31
"""Above every size that fits into a request."""
_LENGTH = struct.Struct("<I")
_ELEMENTS: dict[str, Any] = {"b": list[bool], "u": list[int], "i": list[int], "f": list[float]}


def checked_shape(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return how many elements and rows a shape has; raises ``Refusal`` for one that no array has."""
    if len(shape) > _MOST_AXES or any(not 0 <= size < _LARGEST for size in shape):
        raise Refusal(400, f"input {name!r} has the shape {list(shape)[:_MOST_AXES]}, which no array has")
    return math.prod(shape), shape[0] if shape else 1


def dtype_of(name: str, datatype: str) -> str:
    """Return the numpy name of a datatype; raises ``Refusal`` for one that is not known."""
    found = DTYPES.get(datatype)
    if found is None:
        raise Refusal(
            400, f"input {name!r} has the datatype {datatype!r}, which is not known here: one of {', '.join(DTYPES)}"
        )
    return found


def from_json(name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw) -> Array:
    """Return the array that ``data`` of a JSON request holds, flat or nested by its axes.

    Raises ``Refusal`` for elements of another type, too many or too few of them, or numbers out of range.
    """
    import numpy as np

    dtype = dtype_of(name, datatype)
    count, _ = checked_shape(name, shape)
    kind: Any = list[str] if dtype == TEXT else _ELEMENTS[np.dtype(dtype).kind]
    try:
        values = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        values = _from_nested(name, datatype, shape, data, kind, error)
    _require_count(name, shape, count, len(values))
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is told by the check for finite numbers
            return np.array(values, dtype=object if dtype == TEXT else dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise Refusal(400, f"input {name!r} has a number that {datatype} cannot hold: {error}") from None


def _from_nested(
    name: str, datatype: str, shape: Sequence[int], data: msgspec.Raw, kind: Any, error: Exception
) -> list[Any]:
    """Return the elements of nested lists in their order, after a check that the nesting is that of the shape."""
    try:
        values = msgspec.json.decode(data)
        if not (isinstance(values, list) and values and isinstance(values[0], list)):
            raise Refusal(400, f"input {name!r} has data that are no {datatype}: {error}")
        for axis, size in enumerate(shape):
            if axis:
                values = [each for row in values for each in row]
            if not len(values) == math.prod(shape[: axis + 1]) or (axis + 1 < len(shape) and not _is_even(values)):
                raise Refusal(400, f"input {name!r}: the data are not nested as the shape {list(shape)}, size {size}")
        return msgspec.convert(values, kind)  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError) as wrong:
        raise Refusal(400, f"input {name!r} has data that are no {datatype}: {wrong}") from None


def _is_even(values: Sequence[Any]) -> bool:
    """Tell whether the elements are lists of one length."""
    return all(isinstance(each, list) for each in values) and len({len(each) for each in values}) <= 1


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return the array that binary tensor data hold; numbers are not copied where they lie well in memory.

    Raises ``Refusal`` for bytes that are not as many as the shape asks for, or text that is no UTF-8.
    """
    import numpy as np

    dtype = dtype_of(name, datatype)
    count, _ = checked_shape(name, shape)
    if dtype == TEXT:
        return np.array(_texts(name, shape, count, data), dtype=object).reshape(shape)
    kind = np.dtype(dtype)
    if len(data) != count * kind.itemsize:
        raise Refusal(
            400,
            f"input {name!r} has {len(data)} bytes of data; {datatype} {list(shape)} takes {count * kind.itemsize}",
        )
    array = np.frombuffer(data, dtype=kind.newbyteorder("<")).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _texts(name: str, shape: Sequence[int], count: int, data: memoryview) -> list[str]:
    found: list[str] = []
    place, end = 0, len(data)
    while place + 4 <= end:
        (length,) = _LENGTH.unpack_from(data, place)
        place += 4 + length
        if place > end:
            break
        try:
            found.append(str(data[place - length : place], "utf-8"))
        except UnicodeDecodeError as error:
            raise Refusal(400, f"input {name!r}: element {len(found)} is no text in UTF-8: {error}") from None
    if place != end:
        raise Refusal(400, f"input {name!r}: element {len(found)} of its BYTES is cut short")
    _require_count(name, shape, count, len(found))
    return found


def texts_of(name: str, elements: Sequence[bytes]) -> Array:
    """Return ``bytes_contents`` of gRPC as an array of texts; raises ``Refusal`` for what is no UTF-8."""
    import numpy as np

    try:
        return np.array([element.decode() for element in elements], dtype=object)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"input {name!r} holds an element that is no text in UTF-8: {error}") from None


def _require_count(name: str, shape: Sequence[int], count: int, found: int) -> None:
    if count != found:
        raise Refusal(400, f"input {name!r} has {found} elements; the shape {list(shape)} takes {count}")


def to_bytes(array: Array) -> bytes:
    """Return an array as binary tensor data."""
    if array.dtype.kind in "OU":
        parts: list[bytes] = []
        for element in array.ravel().tolist():
            raw = element if isinstance(element, bytes) else str(element).encode("utf-8", "replace")
            parts += (_LENGTH.pack(len(raw)), raw)
        return b"".join(parts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_json(name: str, array: Array) -> list[Any]:
    """Return an array's elements, row by row; raises ``Refusal`` for numbers that JSON has no words for."""
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Refusal(
            500, f"output {name!r} holds numbers that are not finite, which JSON cannot carry: ask for binary data"
        )
    return array.ravel().tolist()


def require_finite(name: str, array: Array) -> None:
    """Raise ``Refusal`` for an array of floats with NaN or infinities in it."""
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array.ravel()))[0])
        raise Refusal(400, f"input {name!r} holds a number that is not finite, at element {place}")
