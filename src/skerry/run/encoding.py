"""The encoding: a record's fields as one line of JSON, whatever a stage has put into them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from skerry.spec.units import QUANTITIES

ARRAY_ITEMS = 64
"""Default of every ``array_items`` option: an array with more numbers is told by its shape, not by its content.

64 keeps feature vectors and class scores whole and a frame or a 384-number embedding from filling a disk.
"""

_DEPTH = 32
"""How deep the slow path follows nested values: far beyond honest data, and an end for a list that holds itself."""


class Encoder:
    """Writes fields as JSON and never fails on what a stage may have left in them.

    Numbers, text, lists and mappings are themselves; NaN and infinities are ``null``; bytes are base64; a numpy array
    of up to ``array_items`` numbers is a list, a larger one ``{"shape": [...], "dtype": "..."}``; times are RFC 3339;
    values with a unit are their text. Broken text (lone surrogates) gets replacement signs, and anything else its
    ``str()``.

    Parameters
    ----------
    array_items:
        The largest array that is written out, in numbers.
    """

    def __init__(self, array_items: int = ARRAY_ITEMS) -> None:
        self.array_items = array_items
        self._encoder = msgspec.json.Encoder(enc_hook=self._hook)

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as JSON in UTF-8, without a line break."""
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Odd keys, lone surrogates, a list that holds itself: slower, but the record is not lost over them.
            return self._encoder.encode(self.plain(value))

    def encode_lines(self, values: list[Any]) -> bytes:
        """Return one line of JSON per value, each ended by a line feed."""
        return b"".join(self.encode(value) + b"\n" for value in values)

    def plain(self, value: Any, depth: int = _DEPTH) -> Any:
        """Return ``value`` made of JSON's own kinds: ``None``, ``bool``, ``int``, ``float``, text, lists, mappings."""
        if value is None or type(value) in {bool, int, float}:
            return value
        if isinstance(value, str) or depth == 0:
            return _clean(value) if isinstance(value, str) else "…"
        if isinstance(value, Mapping):
            return {_clean(str(key)): self.plain(item, depth - 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.plain(item, depth - 1) for item in value]
        if isinstance(value, bytes | bytearray | memoryview):
            return base64.b64encode(value).decode()
        return self._told(value)

    def _told(self, value: Any) -> Any:
        """Return a value of an unknown kind as msgspec would write it, or else as its text."""
        hooked = self._hook(value)
        if isinstance(hooked, str):
            return _clean(hooked)
        try:
            return msgspec.to_builtins(hooked, enc_hook=self._hook)
        except (TypeError, ValueError, RecursionError):
            return _clean(str(value))

    def _hook(self, value: Any) -> Any:
        numpy = sys.modules.get("numpy")  # no array can exist before somebody imported it
        if numpy is not None:
            if isinstance(value, numpy.ndarray):
                return self._array(value)
            if isinstance(value, numpy.generic):
                return value.item()
        if isinstance(value, QUANTITIES):
            return str(value)
        if isinstance(value, str | int | float):
            return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
        if isinstance(value, Mapping):
            return dict(value)
        return str(value)

    def _array(self, array: Any) -> Any:
        if array.size > self.array_items or array.dtype.kind not in "biufUS":
            return {"shape": list(array.shape), "dtype": str(array.dtype)}
        return array.tolist()


def _clean(text: str) -> str:
    """Return text that UTF-8 can carry: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode()
