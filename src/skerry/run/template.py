"""A template: text with ``{field}`` placeholders that a record fills."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any

from skerry.spec.errors import SkerryError, SpecError, StageError
from skerry.spec.words import did_you_mean


def _as_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


class Template:
    """Text with placeholders: ``{label}``, ``{score:.2f}``, ``{device.room}`` for a mapping in a field.

    ``{{`` and ``}}`` are plain braces. A placeholder only ever looks up keys: it reaches no attribute of a value, so a
    record cannot reach into the program.

    Parameters
    ----------
    text:
        The template.
    where:
        The option it came from, for messages.

    Raises
    ------
    SpecError
        The braces do not match, or a placeholder has no name or asks for a conversion.
    """

    def __init__(self, text: str, *, where: str = "") -> None:
        self.text = text
        self._parts: list[tuple[str, str | None, str]] = []
        try:
            for literal, name, specification, conversion in string.Formatter().parse(text):
                if name == "" or conversion or (specification and "{" in specification):
                    raise ValueError("a placeholder needs a plain field name")
                self._parts.append((literal, name, specification or ""))
        except ValueError as error:
            raise SpecError(
                f"{text!r} is not a template: {error}", where=where, expected="text with {field} placeholders"
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """The fields it asks for, in their order."""
        return tuple(name for _, name, _ in self._parts if name is not None)

    def fill(
        self,
        fields: Mapping[str, Any],
        *,
        error: type[SkerryError] = StageError,
        quote: Callable[[str], str] = str,
    ) -> str:
        """Return the text with every placeholder filled; ``quote`` is applied to each value.

        Raises ``error`` when a field is missing or a value does not take its format.
        """
        pieces: list[str] = []
        for literal, name, specification in self._parts:
            pieces.append(literal)
            if name is not None:
                pieces.append(quote(self._value(name, specification, fields, error)))
        return "".join(pieces)

    def _value(self, name: str, specification: str, fields: Mapping[str, Any], error: type[SkerryError]) -> str:
        value = _look_up(name, fields)
        if value is _MISSING:
            raise error(
                f"the record has no field {name!r} for the template {self.text!r}",
                expected=f"one of {', '.join(map(str, fields)) or 'its fields, but it has none'}",
                hint=did_you_mean(name, map(str, fields)),
            )
        if not specification:
            return _as_text(value)
        try:
            return format(value, specification)
        except (ValueError, TypeError) as cause:
            raise error(f"the field {name!r} does not take the format {specification!r}: {cause}") from cause


_MISSING = object()


def _look_up(name: str, fields: Mapping[str, Any]) -> Any:
    """Find a field by its whole name, or else by the keys that the dots part."""
    if name in fields:
        return fields[name]
    value: Any = fields
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value
