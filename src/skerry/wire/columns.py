"""Columns: JSON values taken apart by kind and by path, until each column holds one kind of plain value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Any, Final

from skerry.spec.errors import WireError
from skerry.wire.floats import read_floats, write_floats
from skerry.wire.integers import read_integers, write_integers
from skerry.wire.streams import Reader, Writer
from skerry.wire.texts import read_texts, write_texts

NULL, FALSE_TRUE, INTEGER, HUGE, FLOAT, TEXT, LIST, TUPLE, OBJECT, MAP, MIXED = range(11)
"""The kinds of column. TUPLE: lists of one short length. MAP: objects that hardly share keys. MIXED: several kinds."""
_LONGEST_TUPLE = 16
"""Elements up to which each place of lists of one length is a column of its own."""
_MOST_SHAPES = 16
"""Sets of keys up to which objects of one column are told apart, however few they are."""
_WIDE = 2**63
_KINDS: Final[dict[type, int]] = {
    type(None): NULL, bool: FALSE_TRUE, int: INTEGER, float: FLOAT, str: TEXT, list: LIST, dict: OBJECT
}  # fmt: skip
_IN_ORDER = (NULL, FALSE_TRUE, INTEGER, FLOAT, TEXT, LIST, OBJECT)


def write_column(writer: Writer, values: list[Any], depth: int) -> None:
    """Write values of any kind, which may nest ``depth`` deep.

    Raises ``WireError`` for what JSON cannot say, and for what is beyond the limits.
    """
    if not values:
        return
    writer.budget.take_values(len(values))
    kinds = set(map(type, values))
    if len(kinds) > 1:
        _write_mixed(writer, values, depth)
        return
    kind = _kind(kinds.pop())
    if kind in {LIST, OBJECT} and depth <= 0:
        raise WireError("lists and objects nested too deep")
    if kind == INTEGER and not -_WIDE <= min(values) <= max(values) < _WIDE:
        kind = HUGE
    if kind == LIST:
        _write_lists(writer, values, depth - 1)
    elif kind == OBJECT:
        write_objects(writer, values, depth - 1)
    else:
        writer.control.append(kind)
        _write_plain(writer, kind, values)


def read_column(reader: Reader, count: int, depth: int) -> list[Any]:
    """Read ``count`` values; raises ``WireError`` for a damaged column, and for what is beyond the limits."""
    if not count:
        return []
    reader.budget.take_values(count)
    kind = reader.byte()
    read = _NESTED.get(kind)
    if read is None:
        return _read_plain(reader, kind, count)
    if kind == MIXED:
        return read(reader, count, depth)
    if depth <= 0:
        raise WireError("lists and objects nested too deep")
    return read(reader, count, depth - 1)


def _kind(of: type) -> int:
    kind = _KINDS.get(of)
    if kind is None:
        raise WireError(
            f"a value of the type {of.__name__}", expected="null, true, false, a number, text, list or object"
        )
    return kind


def _write_plain(writer: Writer, kind: int, values: list[Any]) -> None:
    if kind == TEXT:
        write_texts(writer, values)
    elif kind == FLOAT:
        write_floats(writer, values)
    elif kind == HUGE:
        texts = [format(value, "x") for value in values]
        writer.budget.take_characters(sum(map(len, texts)))
        writer.texts += [text.encode() for text in texts]
    elif kind != NULL:
        write_integers(writer, values)


def _read_plain(reader: Reader, kind: int, count: int) -> list[Any]:
    if kind == TEXT:
        return read_texts(reader, count)
    if kind == FLOAT:
        return read_floats(reader, count)
    if kind == INTEGER:
        return read_integers(reader, count)
    if kind == FALSE_TRUE:
        numbers = read_integers(reader, count)
        if not 0 <= min(numbers) <= max(numbers) <= 1:
            raise WireError("the body of a batch is damaged: neither true nor false")
        return list(map(bool, numbers))
    if kind == NULL:
        return [None] * count
    if kind == HUGE:
        texts = reader.strings(count)
        reader.budget.take_characters(sum(map(len, texts)))
        try:
            return [int(text, 16) for text in texts]
        except ValueError as error:
            raise WireError("the body of a batch is damaged: a number that is none") from error
    raise WireError("the body of a batch is damaged: a column of an unknown kind")


def _write_mixed(writer: Writer, values: list[Any], depth: int) -> None:
    """Write which kind each value is of, then a column for each kind."""
    kinds = [_kind(kind) for kind in map(type, values)]
    writer.control.append(MIXED)
    write_integers(writer, kinds)
    for kind in _IN_ORDER:
        if kind in kinds and kind != NULL:
            write_column(writer, [value for value, of in zip(values, kinds, strict=True) if of == kind], depth)


def _read_mixed(reader: Reader, count: int, depth: int) -> list[Any]:
    kinds = read_integers(reader, count)
    if not set(kinds) <= set(_IN_ORDER):
        raise WireError("the body of a batch is damaged: a column of an unknown kind")
    values: list[Any] = [None] * count
    for kind in _IN_ORDER:
        places = [place for place, of in enumerate(kinds) if of == kind]
        if kind == NULL or not places:
            continue
        if reader.position < len(reader.control) and reader.control[reader.position] == MIXED:
            raise WireError("the body of a batch is damaged: a column that is mixed twice")
        for place, value in zip(places, read_column(reader, len(places), depth), strict=True):
            values[place] = value
    return values


def _write_lists(writer: Writer, lists: Sequence[list[Any]], depth: int) -> None:
    lengths = set(map(len, lists))
    if len(lengths) == 1 and 0 < (length := len(lists[0])) <= _LONGEST_TUPLE:
        writer.control += bytes((TUPLE, length))
        for place in range(length):
            write_column(writer, [values[place] for values in lists], depth)
        return
    writer.control.append(LIST)
    write_integers(writer, list(map(len, lists)))
    write_column(writer, list(chain.from_iterable(lists)), depth)


def _read_lists(reader: Reader, count: int, depth: int) -> list[Any]:
    lengths = _read_lengths(reader, count)
    values = iter(read_column(reader, sum(lengths), depth))
    return [list(islice(values, length)) for length in lengths]


def _read_tuples(reader: Reader, count: int, depth: int) -> list[Any]:
    length = reader.byte()
    if not length:
        raise WireError("the body of a batch is damaged: lists without elements")
    columns = [read_column(reader, count, depth) for _ in range(length)]
    return list(map(list, zip(*columns, strict=True)))


def write_objects(writer: Writer, objects: Sequence[dict[str, Any]], depth: int) -> None:
    """Write objects: a column for each key, and for each object the keys that it has, in its order."""
    keys = list(objects[0])
    if list(map(list, objects)).count(keys) == len(objects):
        _write_keys(writer, keys, [tuple(keys)])
        for column in zip(*[values.values() for values in objects], strict=True):
            write_column(writer, list(column), depth)
        return
    shapes = dict.fromkeys(map(tuple, objects))
    keys = list(dict.fromkeys(chain.from_iterable(shapes)))
    held = sum(map(len, objects))
    if len(shapes) > _MOST_SHAPES and (4 * len(shapes) > len(objects) or 4 * len(keys) > held):
        _write_maps(writer, objects, depth)
        return
    _write_keys(writer, keys, list(shapes))
    places = {shape: place for place, shape in enumerate(shapes)}
    write_integers(writer, [places[tuple(values)] for values in objects])
    for key in keys:
        write_column(writer, [values[key] for values in objects if key in values], depth)


def _write_keys(writer: Writer, keys: list[str], shapes: list[tuple[str, ...]]) -> None:
    """Write all keys, and then the shapes."""
    writer.control.append(OBJECT)
    writer.unsigned(len(keys))
    writer.texts += map(_key, keys)
    writer.unsigned(len(shapes))
    _write_shapes(writer, shapes, {key: place for place, key in enumerate(keys)})


def _key(key: Any) -> bytes:
    if type(key) is not str:
        raise WireError(f"a key of the type {type(key).__name__}", expected="text")
    return key.encode()


def _write_shapes(writer: Writer, shapes: list[tuple[str, ...]], places: dict[str, int]) -> None:
    """Write the first shape as a number, since it is the first keys in their order; of others each key's place."""
    writer.unsigned(len(shapes[0]))
    for shape in shapes[1:]:
        writer.budget.take_values(len(shape) + 1)
        writer.unsigned(len(shape))
        for key in shape:
            writer.unsigned(places[key])


def _read_objects(reader: Reader, count: int, depth: int) -> list[Any]:
    keys = reader.strings(reader.unsigned())
    shapes = _read_shapes(reader, len(keys))
    if len(shapes) == 1:
        which = [0] * count
        columns = [iter(read_column(reader, count, depth)) for _ in keys]
    else:
        which = read_integers(reader, count)
        if not 0 <= min(which) <= max(which) < len(shapes):
            raise WireError("the body of a batch is damaged: an object without a shape")
        holders = [{number for number, shape in enumerate(shapes) if place in shape} for place in range(len(keys))]
        columns = [iter(read_column(reader, sum([one in some for one in which]), depth)) for some in holders]
    return _assemble(keys, shapes, which, columns)


def _assemble(keys: list[str], shapes: list[list[int]], which: list[int], columns: list[Any]) -> list[Any]:
    """Put the objects together again, each with its keys in its order."""
    if len(set(keys)) != len(keys):
        raise WireError("the body of a batch is damaged: a key that comes twice")
    if len(shapes) == 1:
        if not keys:
            return [{} for _ in which]
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
    named = [[(keys[place], columns[place]) for place in shape] for shape in shapes]
    return [{key: next(column) for key, column in named[number]} for number in which]


def _read_shapes(reader: Reader, keys: int) -> list[list[int]]:
    count = reader.unsigned()
    first = reader.unsigned()
    if not count or first > keys or (count == 1 and first != keys):
        raise WireError("the body of a batch is damaged: an object without a shape")
    shapes = [list(range(first))]
    for _ in range(count - 1):
        length = reader.unsigned()
        reader.budget.take_values(length + 1)
        shape = [reader.unsigned() for _ in range(length)]
        if len(set(shape)) != length or (shape and max(shape) >= keys):
            raise WireError("the body of a batch is damaged: an object without a shape")
        shapes.append(shape)
    return shapes


def _write_maps(writer: Writer, objects: Sequence[dict[str, Any]], depth: int) -> None:
    """Write objects that hardly share keys as lists of keys and of values."""
    writer.control.append(MAP)
    write_integers(writer, list(map(len, objects)))
    keys = list(chain.from_iterable(objects))
    for key in keys:
        _key(key)
    write_column(writer, keys, depth)
    write_column(writer, list(chain.from_iterable([values.values() for values in objects])), depth)


def _read_maps(reader: Reader, count: int, depth: int) -> list[Any]:
    lengths = _read_lengths(reader, count)
    keys = read_column(reader, sum(lengths), depth)
    values = read_column(reader, sum(lengths), depth)
    if not all(type(key) is str for key in keys):
        raise WireError("the body of a batch is damaged: a key that is no text")
    pairs = zip(keys, values, strict=True)
    objects = [dict(islice(pairs, length)) for length in lengths]
    if sum(map(len, objects)) != len(keys):
        raise WireError("the body of a batch is damaged: a key that comes twice")
    return objects


def _read_lengths(reader: Reader, count: int) -> list[int]:
    lengths = read_integers(reader, count)
    if min(lengths) < 0:
        raise WireError("the body of a batch is damaged: a length below 0")
    return lengths


_NESTED: Final[dict[int, Callable[[Reader, int, int], list[Any]]]] = {
    LIST: _read_lists, TUPLE: _read_tuples, OBJECT: _read_objects, MAP: _read_maps, MIXED: _read_mixed
}  # fmt: skip
