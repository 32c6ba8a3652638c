"""An expression: CEL source, compiled once, evaluated against the fields of a record."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal

from skerry.spec.errors import DependencyError, SpecError, StageError

Missing = Literal["fail", "null"]

MAX_SOURCE = 4096
"""Characters: an expression is read by people; a longer one is a mistake or an attack on the parser."""
MAX_ARRAY = 4096
"""Elements of an array that an expression may look at: each is turned into an object of its own."""

_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_PLACE = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_UNDEFINED = re.compile(r"Undefined variable or function: '([^']*)'")
_PYTHON_WORDS = {"and": "&&", "or": "||", "not": "!", "True": "true", "False": "false", "None": "null"}
_loading = threading.Lock()


class FieldMissingError(StageError):
    """An expression names a field that the record does not have."""


class Expression:
    """A CEL expression over the fields of a record.

    Only the fields that the source names are handed to the evaluator, so that a frame beside them costs nothing.
    Numpy scalars and small arrays are read as numbers and lists. The language is the Common Expression Language
    (https://cel.dev): it has no loops, no assignments and no access to Python.

    Parameters
    ----------
    source:
        The expression, such as ``label == "failure" && score > 0.6``.
    where:
        Its place in the user's file, for error messages.
    missing:
        Whether a field that is not there fails the record, or reads as ``null``.

    Raises
    ------
    SpecError
        The source is not CEL; the message says the line and column within it.
    """

    __slots__ = ("_names", "_program", "_single", "missing", "source", "where")

    def __init__(self, source: str, where: str = "", *, missing: Missing = "fail") -> None:
        self.source = source
        self.where = where
        self.missing = missing
        self._program = _compile(source, where)
        self._names: tuple[str, ...] = tuple(self._program.variables())
        self._single = self._names[0] if source.strip() in self._names else None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that the source names, and the loop variables of its macros."""
        return self._names

    def value(self, fields: Mapping[str, Any]) -> Any:
        """Return the value for one record: ``None``, bool, int, float, str, bytes, list, dict or a time.

        An expression that is no more than a field's name returns that field as it is, whatever its type.

        Raises
        ------
        FieldMissingError
            A field that is needed is not there.
        StageError
            The operation does not suit the values.
        """
        if self._single is not None:
            if self._single in fields:
                return fields[self._single]
            if self.missing == "null":
                return None
            raise self._missing_error(self._single, fields)
        return self._execute(fields)

    def test(self, fields: Mapping[str, Any]) -> bool:
        """Return whether the expression holds; raises ``StageError`` where it gives no truth value."""
        result = self._execute(fields)
        if result is True or result is False:
            return result is True
        raise StageError(
            f"{self.source!r} gave {result!r:.80}, not true or false",
            where=self.where,
            expected="a condition such as `score > 0.5`",
        )

    def _execute(self, fields: Mapping[str, Any]) -> Any:
        variables: dict[str, Any] = {}
        for name in self._names:
            if name in fields:
                value = fields[name]
                variables[name] = value if type(value) in _PLAIN else self._convert(name, value)
            elif self.missing == "null":
                variables[name] = None
        try:
            return self._program.execute(variables)
        except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
            raise self._explain(error, fields) from error

    def _convert(self, name: str, value: Any) -> Any:
        """Turn what the evaluator cannot read into what it can."""
        if isinstance(value, dict):
            return {key: self._convert(name, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [item if type(item) in _PLAIN else self._convert(name, item) for item in value]
        if callable(value):
            raise StageError(f"field {name!r} is a function, not a value", where=self.where)
        if getattr(value, "size", 0) > MAX_ARRAY:
            raise StageError(
                f"field {name!r} is an array of {value.size} elements, too large for an expression",
                where=self.where,
                expected=f"at most {MAX_ARRAY} elements",
                hint="reduce it in a stage of your own (`use: module:function`) first",
            )
        return value.tolist() if hasattr(value, "tolist") else value

    def _explain(self, error: Exception, fields: Mapping[str, Any]) -> StageError:
        """Say in the user's words why the evaluation failed."""
        text = str(error)
        undefined = _UNDEFINED.match(text)
        if undefined and undefined[1] in self._names:
            return self._missing_error(undefined[1], fields)
        if undefined:
            return StageError(f"{self.source!r}: there is no function {undefined[1]!r} in CEL", where=self.where)
        if isinstance(error, KeyError):
            return self._missing_error(str(error.args[0]) if error.args else text, fields)
        values = ", ".join(f"{name} = {fields[name]!r:.40}" for name in self._names if name in fields)
        hint = "write double(x) to mix whole and decimal numbers" if isinstance(error, TypeError) else ""
        reason = re.split(r"\. |\n", text, maxsplit=1)[0]
        return StageError(f"{self.source!r} failed on {values or 'no fields'}: {reason}", where=self.where, hint=hint)

    def _missing_error(self, name: str, fields: Mapping[str, Any]) -> FieldMissingError:
        return FieldMissingError(
            f"{self.source!r} needs the field {name!r}, which the record does not have",
            where=self.where,
            expected=f"one of {', '.join(sorted(map(str, fields))[:20]) or 'no fields at all'}",
        )


def _compile(source: str, where: str) -> Any:
    """Compile CEL source; the error tells line, column and what is likely meant."""
    if len(source) > MAX_SOURCE:
        raise SpecError(f"an expression of {len(source)} characters", where=where, expected=f"at most {MAX_SOURCE}")
    try:
        return _cel().compile(source)
    except ValueError as error:
        found = _PLACE.search(str(error))
        line, column, reason = found.groups() if found else ("1", "1", "it cannot be read")
        if "Recursion limit" in str(error):
            reason = "it is nested too deeply"
        reason = reason.split(" expecting {")[0].replace("'<EOF>'", "the end")
        raise SpecError(
            f"{source!r:.200} is not a CEL expression: line {line}, column {column}: {reason}",
            where=where,
            expected="an expression such as `score > 0.5`",
            hint=_likely_slip(source),
        ) from error


def _likely_slip(source: str) -> str:
    """Name the habit from other languages that CEL does not share, if there is one in ``source``."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "''", source)
    if re.search(r"(?<![=!<>])=(?!=)", bare):
        return "compare with =="
    for word, sign in _PYTHON_WORDS.items():
        if re.search(rf"\b{word}\b", bare):
            return f"write {sign} for {word}"
    return ""


def _cel() -> ModuleType:
    """Return the evaluator.

    The front module of the package imports its command line with a terminal toolkit (a quarter of a second), so the
    extension inside is loaded alone, under its own name: a later ``import cel`` then finds it there.
    """
    with _loading:
        if "cel.cel" in sys.modules:
            return sys.modules["cel.cel"]
        package = importlib.util.find_spec("cel")
        places = package.submodule_search_locations if package else None
        spec = importlib.machinery.PathFinder.find_spec("cel.cel", places) if places else None
        if spec is None or spec.loader is None:
            raise DependencyError(
                "expressions need the package common-expression-language",
                hint="pip install common-expression-language",
            )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["cel.cel"] = module
        return module
