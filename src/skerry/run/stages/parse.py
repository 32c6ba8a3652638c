"""Parse: the named groups of a regular expression become fields."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.reading import text
from skerry.spec.errors import SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import Outcome, Record

FieldType = Literal["int", "float", "bool", "str"]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class ParseOptions(Options, frozen=True, kw_only=True):
    """How a text is taken apart.

    Parameters
    ----------
    regex:
        A Python regular expression with named groups, searched for in the text (``^`` and ``$`` tie it to the ends).
    field:
        The text field that is read.
    types:
        What a group is turned into: ``int``, ``float``, ``bool`` (true/false, yes/no, on/off, 1/0) or ``str``.
        A value that does not convert is a mismatch.
    on_mismatch:
        ``filter`` stops the record, ``keep`` passes it on unchanged, ``fail`` is an error.
    max_chars:
        Longer texts are mismatches. The time that a careless expression takes grows with the square of the length, or
        worse: 8192 characters hold any sane log line and bound that time.
    """

    shorthand: ClassVar[str] = "regex"

    regex: str
    field: str = "text"
    types: dict[str, FieldType] = msgspec.field(default_factory=dict)
    on_mismatch: Literal["filter", "keep", "fail"] = "filter"
    max_chars: int = 8192


class ParseStage:
    """Search a text and set the named groups that took part in the match as fields."""

    Options: ClassVar[type[ParseOptions]] = ParseOptions

    def __init__(self, options: ParseOptions) -> None:
        self._options = options
        self._pattern = _compile(options.regex)
        unknown = sorted(set(options.types) - set(self._pattern.groupindex))
        if unknown:
            raise SpecError(
                f"the regular expression has no group {unknown[0]!r}",
                where="parse: types",
                expected=f"one of {', '.join(self._pattern.groupindex)}",
            )
        self._types = {name: _CONVERT[kind] for name, kind in options.types.items() if kind != "str"}

    def open(self, context: Context) -> None:
        """Warn where the expression repeats a repetition: on some texts it then takes exponential time."""
        if _repeats_repetition(self._options.regex):
            context.log.warning(
                "%s: the regular expression repeats a repetition, as (a+)+ does: some texts may take it very long; "
                "a possessive repetition, as (a++)+, cannot",
                context.name,
            )

    def process(self, record: Record) -> Outcome:
        """Set the groups as fields in place; raises ``StageError`` for a field that is no text, or a mismatch."""
        fields = record.fields
        value = text(fields, self._options.field)
        match = self._pattern.search(value) if len(value) <= self._options.max_chars else None
        if match is None:
            return self._mismatch(record, "does not match")
        found = match.groupdict()
        try:
            for name, convert in self._types.items():
                if found[name] is not None:
                    found[name] = convert(found[name])
        except ValueError:
            return self._mismatch(record, f"has a {name} that is no {self._options.types[name]}")
        fields.update((name, part) for name, part in found.items() if part is not None)
        return record

    def close(self) -> None:
        """Nothing to give back."""

    def _mismatch(self, record: Record, why: str) -> Outcome:
        if self._options.on_mismatch == "filter":
            return None
        if self._options.on_mismatch == "keep":
            return record
        value = record.fields[self._options.field]
        if len(value) > self._options.max_chars:
            why = f"has {len(value)} characters, more than max_chars = {self._options.max_chars}"
        raise StageError(f"field {self._options.field!r} {why}: {value[:80]!r}", expected=self._options.regex)


def _compile(regex: str) -> re.Pattern[str]:
    """Compile, and place an error in the expression."""
    try:
        pattern = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        column = (getattr(error, "pos", None) or 0) + 1
        raise SpecError(
            f"{regex!r} is not a regular expression: column {column}: {getattr(error, 'msg', error)}",
            where="parse: regex",
        ) from error
    if not pattern.groupindex:
        raise SpecError(
            f"{regex!r} has no named groups, so it would set no fields",
            where="parse: regex",
            expected="named groups such as (?P<level>\\w+)",
        )
    return pattern


def _to_bool(value: str) -> bool:
    word = value.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(value)


_CONVERT: Mapping[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _to_bool}


def _repeats_repetition(regex: str) -> bool:
    """Tell whether an unbounded repetition stands directly inside another, the usual cause of exponential time.

    It walks the tree of the standard library's own parser; where that is not to be had, nothing is found.
    """
    parser = sys.modules.get("re._parser")
    if parser is None:
        return False
    return _walk(parser.parse(regex), repeated=False)


def _walk(tree: Any, repeated: bool) -> bool:
    """Walk a parse tree: ``repeated`` tells whether a repetition is around it."""
    for operation, argument in tree:
        name = str(operation)
        if name in {"MAX_REPEAT", "MIN_REPEAT"}:
            _, most, body = argument
            unbounded = int(most) > 1000
            alone = len(body) == 1
            if (unbounded and repeated) or _walk(body, unbounded and alone):
                return True
        elif name in {"SUBPATTERN", "BRANCH"}:
            bodies = [argument[-1]] if name == "SUBPATTERN" else argument[1]
            if any(_walk(body, repeated and len(body) == 1) for body in bodies):
                return True
    return False
