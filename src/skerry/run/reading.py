"""Reading one named value of a record: a number, a text, a time, with a clear error where it is something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from skerry.spec.errors import StageError
from skerry.spec.record import Record
from skerry.spec.words import did_you_mean

TimeUnit = Literal["s", "ms", "us", "ns"]

_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def missing_field(fields: Mapping[str, Any], name: str) -> StageError:
    """Return the error for a field that is not there; the nearest name is the hint."""
    names = [str(known) for known in fields]
    return StageError(
        f"the record has no field {name!r}",
        expected=f"one of {', '.join(names[:20])}" if names else "",
        hint=did_you_mean(name, names),
    )


def number(fields: Mapping[str, Any], name: str) -> float:
    """Return a numeric field as it is (int or float) or, for numpy scalars, as float.

    Raises ``StageError`` where it is missing or something else; text that reads like a number is refused too,
    because a unit or a comma would be guessed at.
    """
    try:
        value = fields[name]
    except KeyError:
        raise missing_field(fields, name) from None
    kind = type(value)
    if kind is float or kind is int:
        return value  # type: ignore[no-any-return]
    if kind not in (str, bytes, bool, complex) and getattr(value, "size", 1) == 1:
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise StageError(
        f"field {name!r} is {value!r:.60} ({kind.__name__})",
        expected="a number",
        hint=f"convert it where it is read: types: {{{name}: float}} of parse" if kind is str else "",
    )


def finite(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a numeric field, or ``None`` where it is NaN, infinite or beyond floating point: no measurement."""
    value = number(fields, name)
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def is_array(value: Any) -> bool:
    """Tell whether a value is a list or an array with at least one dimension."""
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0


def float_array(fields: Mapping[str, Any], name: str) -> Any:
    """Return a field as an array of floats, without copying one that is; raises ``StageError`` for anything else."""
    import numpy

    if name not in fields:
        raise missing_field(fields, name)
    value = fields[name]
    try:
        array = numpy.asarray(value)
        wanted = array.dtype if array.dtype in (numpy.float32, numpy.float64) else numpy.float64
        if array.dtype.kind not in "biuf":
            raise TypeError
        return array.astype(wanted, copy=False)
    except (TypeError, ValueError):
        raise StageError(f"field {name!r} is {value!r:.60}", expected="an array or list of numbers") from None


def text(fields: Mapping[str, Any], name: str) -> str:
    """Return a text field; raises ``StageError`` where it is missing or something else."""
    try:
        value = fields[name]
    except KeyError:
        raise missing_field(fields, name) from None
    if isinstance(value, str):
        return value
    raise StageError(f"field {name!r} is {value!r:.60} ({type(value).__name__})", expected="text")


def time_ns(record: Record, name: str | None, unit: TimeUnit = "s") -> int:
    """Return the time of a record in nanoseconds: of its field ``name``, or when it was read.

    A field holds a number in ``unit``, or an ISO 8601 text (UTC where it names no offset), which counts from 1970.
    Raises ``StageError`` for anything else.
    """
    if name is None:
        return record.read_ns
    value = record.fields.get(name)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise StageError(f"field {name!r} is {value!r:.60}", expected="a time in ISO 8601 or a number") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1_000
    seconds = number(record.fields, name)
    if isinstance(seconds, int):
        return seconds * _NS[unit]
    if not math.isfinite(seconds):
        raise StageError(f"field {name!r} is {seconds}", expected="a finite time")
    return round(seconds * _NS[unit])
