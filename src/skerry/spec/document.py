"""A document: a YAML file whose every value can be placed by line and column."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

import msgspec

from skerry.spec.errors import SpecError, SpecMissingError
from skerry.spec.units import decode_unit
from skerry.spec.words import did_you_mean

T = TypeVar("T")
Keys = tuple[str | int, ...]
_LONGEST_SHOWN = 60  # characters of a wrong value that a message repeats
_MOST_BYTES = (
    2**20
)  # a pipeline file is written by hand; a larger one is the wrong file, and would take minutes to read
_MOST_VALUES = 50_000  # aliases (`*name`) can make a few lines stand for billions of values
_MOST_LEVELS = 100  # deeper nesting is no pipeline, and would not fit on the stack


class Document:
    """A YAML 1.2 file, read once: plain data, and the place of each value.

    Parameters
    ----------
    data:
        The content as plain dicts, lists and scalars.
    name:
        The file's name, as messages show it.
    marks:
        Line and column (from 1) of every value, by the keys that lead to it.
    key_marks:
        The same of every key.
    """

    def __init__(
        self,
        data: Any,
        name: str,
        marks: Mapping[Keys, tuple[int, int]],
        key_marks: Mapping[Keys, tuple[int, int]],
    ) -> None:
        self.data = data
        self.name = name
        self._marks = marks
        self._key_marks = key_marks

    def place(self, keys: Keys = ()) -> str:
        """Return ``file:line:column`` of a value, or of the nearest one around it."""
        while keys and keys not in self._marks:
            keys = keys[:-1]
        return _named(self.name, self._marks.get(keys, (1, 1)))

    def place_of_key(self, keys: Keys) -> str:
        """Return ``file:line:column`` of the last of the keys itself."""
        if keys not in self._key_marks:
            return self.place(keys)
        return _named(self.name, self._key_marks[keys])

    def at(self, keys: Keys) -> Any:
        """Return the value that the keys lead to."""
        value = self.data
        for key in keys:
            value = value[key]
        return value

    def convert(self, kind: type[T], keys: Keys = (), *, value: Any = None, strict: bool = True) -> T:
        """Turn the value at ``keys`` (or ``value``, which stands there) into ``kind``.

        Raises ``SpecError`` with the place, the wrong value, what was expected and the nearest valid word.
        """
        found = self.at(keys) if value is None else value
        try:
            return msgspec.convert(found, kind, strict=strict, dec_hook=decode_unit)
        except msgspec.ValidationError as error:
            raise self._explain(kind, found, keys, error, strict) from None

    def _explain(self, kind: Any, value: Any, keys: Keys, error: Exception, strict: bool) -> SpecError:
        """Walk down to the innermost wrong value and say what is wrong with it."""
        for inner_kind, inner_value, key in _parts(kind, value):
            try:
                msgspec.convert(inner_value, inner_kind, strict=strict, dec_hook=decode_unit)
            except msgspec.ValidationError as inner:
                return self._explain(inner_kind, inner_value, (*keys, key), inner, strict)
        return self._complain(kind, value, keys, error)

    def _complain(self, kind: Any, value: Any, keys: Keys, error: Exception) -> SpecError:
        where, shown = self.place(keys), _show(keys)
        fields = _struct_fields(kind)
        if fields is not None and isinstance(value, Mapping):
            for key in value:
                if key not in fields:
                    return SpecError(
                        f"unknown key {key!r} in {shown}",
                        where=self.place_of_key((*keys, key)),
                        expected=f"one of {', '.join(fields)}",
                        hint=did_you_mean(str(key), fields),
                    )
            missing = [name for name, field in fields.items() if field.required and name not in value]
            if missing:
                return SpecError(f"{shown} lacks the key {missing[0]!r}", where=where, expected=_words(kind))
        choices = _choices(kind)
        hint = did_you_mean(str(value), [str(choice) for choice in choices]) if choices else ""
        # msgspec ends its message with the path inside the value, which the place already says better.
        reason = str(error).split(" - at `")[0]
        if fields is not None and not reason.startswith(("Expected", "Object")):
            return SpecError(f"{shown}: {reason}", where=where)  # the words of the type itself
        expected = ", ".join(map(repr, choices)) if choices else _words(kind)
        if expected == "a value":
            expected = reason.removeprefix("Expected ")
        return SpecError(f"{shown} is {_quote(value)}", where=where, expected=expected, hint=hint)


def load_document(path: Path) -> Document:
    """Read a YAML file.

    Raises
    ------
    SpecMissingError
        There is no such file, or it cannot be read.
    SpecError
        It is no YAML 1.2, is empty, not UTF-8, has a key twice, or is far too large for what a person writes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SpecMissingError(
            f"cannot read {path}: {error.strerror or error}", expected="a file that exists"
        ) from error
    if len(content) > _MOST_BYTES:
        raise SpecError(f"{path} is too large for a pipeline file", expected="at most 256 KiB of YAML")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 at byte {error.start}", expected="a YAML file in UTF-8") from error
    return parse_document(text, str(path))


def parse_document(text: str, name: str = "<text>") -> Document:
    """Read YAML 1.2 text; see :func:`load_document`, whose limits hold here too."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="rt", pure=True)
    reader.version = (1, 2)
    try:
        tree = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = (error.problem or "not YAML").split("\n")[0]
        raise SpecError(f"this is not YAML: {problem}", where=where, expected="YAML 1.2") from None
    except YAMLError as error:
        raise SpecError(f"this is not YAML: {str(error).splitlines()[0]}", where=name, expected="YAML 1.2") from None
    except RecursionError:
        raise _too_deep(name) from None
    if tree is None:
        raise SpecError("the file is empty", where=f"{name}:1:1", expected="a mapping that starts with `skerry: 1`")
    marks: dict[Keys, tuple[int, int]] = {(): (1, 1)}
    key_marks: dict[Keys, tuple[int, int]] = {}
    return Document(_plain(tree, (), marks, key_marks, name), name, marks, key_marks)


def _too_deep(where: str) -> SpecError:
    return SpecError("the file is nested too deeply", where=where, expected=f"at most {_MOST_LEVELS} levels")


def _plain(
    node: Any, keys: Keys, marks: dict[Keys, tuple[int, int]], key_marks: dict[Keys, tuple[int, int]], name: str
) -> Any:
    """Turn ruamel's tree into plain data and note where each key and value begins.

    An alias counts as often as it is used, so that a file in which they multiply ends here and not in memory.
    """
    if len(keys) > _MOST_LEVELS:
        raise _too_deep(_named(name, marks[keys]))
    if len(marks) > _MOST_VALUES:
        raise SpecError(
            f"the file stands for more than {_MOST_VALUES:,} values",
            where=_named(name, marks[keys]),
            expected="fewer; note that aliases (`*name`) of aliases multiply",
        )
    if isinstance(node, Mapping):
        for key, value in node.items():
            key_marks[(*keys, key)] = _mark(node, key, "key")
            marks[(*keys, key)] = _mark(node, key, "key" if isinstance(value, Mapping | list) else "value")
        return {str(key): _plain(value, (*keys, key), marks, key_marks, name) for key, value in node.items()}
    if isinstance(node, list):
        for index in range(len(node)):
            marks[(*keys, index)] = _mark(node, index, "item")
        return [_plain(value, (*keys, index), marks, key_marks, name) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return str(node)


def _named(name: str, mark: tuple[int, int]) -> str:
    return f"{name}:{mark[0]}:{mark[1]}"


def _mark(node: Any, key: Any, what: str) -> tuple[int, int]:
    try:
        line, column = getattr(node.lc, what)(key)
    except KeyError:  # it was merged in (`<<: *name`) and stands elsewhere
        line, column = node.lc.line, node.lc.col
    return line + 1, column + 1


def _parts(kind: Any, value: Any) -> list[tuple[Any, Any, str | int]]:
    """Return the typed parts of a value: (type, value, key) for each child that has a type of its own."""
    kind = _without_none(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    fields = _struct_fields(kind)
    if fields is not None and isinstance(value, Mapping):
        return [(fields[key].type, item, key) for key, item in value.items() if key in fields]
    if origin is dict and isinstance(value, Mapping):
        return [(arguments[1], item, key) for key, item in value.items()]
    if origin in {list, tuple} and isinstance(value, Sequence) and not isinstance(value, str):
        return [(arguments[0], item, index) for index, item in enumerate(value)]
    return []


def _without_none(kind: Any) -> Any:
    """Return X for ``X | None``."""
    if typing.get_origin(kind) in {Union, types.UnionType}:
        left = [part for part in typing.get_args(kind) if part is not type(None)]
        if len(left) == 1:
            return left[0]
    return kind


def _struct_fields(kind: Any) -> dict[str, msgspec.structs.FieldInfo] | None:
    kind = _without_none(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: field for field in msgspec.structs.fields(kind)}
    return None


def _choices(kind: Any) -> tuple[Any, ...]:
    kind = _without_none(kind)
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}


def _words(kind: Any) -> str:
    """Say a type in plain words."""
    kind = _without_none(kind)
    fields = _struct_fields(kind)
    if fields is not None:
        needed = [name for name, field in fields.items() if field.required]
        return f"a mapping with {', '.join(needed)}" if needed else "a mapping"
    return _WORDS.get(typing.get_origin(kind) or kind, "a value")


def _show(keys: Keys) -> str:
    """Write keys as a path: ``models.minilm.budget``, ``stages[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text or "the file"


def _quote(value: object) -> str:
    """Show a value as the user wrote it, cut to a length that fits a message."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
