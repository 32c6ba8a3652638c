"""The body of a batch: a table for each stream, and for every record its number, its time, its urgency, its release."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from skerry.spec.errors import WireError
from skerry.wire.columns import read_column, write_column
from skerry.wire.integers import read_integers, write_integers
from skerry.wire.limits import Limits
from skerry.wire.record import Moment, WireRecord
from skerry.wire.streams import Reader, Writer

T = TypeVar("T")
_DIGEST: Final = re.compile("sha256:[0-9a-f]{64}")
_DIGEST_BITS = 256
_BOOT_BITS = 128


def encode_body(records: Sequence[WireRecord], first: int, boot: str, limits: Limits) -> bytes:
    """Return the records, packed; ``first`` and ``boot`` are those of the header, and are not repeated.

    Raises ``WireError`` when a record cannot be sent, and says which.
    """
    try:
        return _encode(records, first, boot, limits)
    except WireError as error:
        if len(records) == 1:
            raise WireError(
                error.message,
                where=f"record {records[0].seq} of {records[0].stream}",
                expected=error.expected,
                hint=error.hint or "large things are blobs, not records",
            ) from error
        for record in records:
            encode_body([record], record.seq, boot, limits)
        raise WireError(error.message, expected=error.expected, hint="send fewer records in a batch") from error


def _encode(records: Sequence[WireRecord], first: int, boot: str, limits: Limits) -> bytes:
    writer = Writer(limits)
    try:
        write_integers(writer, [record.seq - first for record in records])
        _write_few(writer, [record.stream for record in records], _write_stream)
        _write_few(writer, [record.release for record in records], _write_release)
        _write_few(writer, [record.moment for record in records], lambda out, moment: _write_moment(out, moment, boot))
        write_integers(writer, [record.priority for record in records])
        write_integers(writer, [record.mono_us for record in records])
        tables: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            tables.setdefault(record.stream, []).append(record.fields)
        for fields in tables.values():
            if set(map(type, fields)) != {dict}:
                raise WireError("the fields of a record are no object")
            write_column(writer, fields, limits.depth)
        return writer.pack(limits)
    except UnicodeEncodeError as error:
        raise WireError(
            "a lone surrogate, which no encoding of text can carry",
            hint="decode the text that it came from with errors='replace'",
        ) from error
    except (TypeError, AttributeError, OverflowError) as error:
        raise WireError(f"this is not made of JSON values: {error}") from error
    except RecursionError as error:
        raise WireError("lists and objects nested too deep") from error


def decode_body(data: bytes, count: int, first: int, boot: str, limits: Limits) -> list[WireRecord]:
    """Read ``count`` records; raises ``WireError`` for anything but what :func:`encode_body` returns."""
    try:
        return _decode(Reader(data, limits), count, first, boot, limits.depth)
    except RecursionError as error:
        raise WireError("lists and objects nested too deep") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # what no check above has foreseen
        raise WireError(f"the body of a batch is damaged: {error}") from error


def _decode(reader: Reader, count: int, first: int, boot: str, depth: int) -> list[WireRecord]:
    numbers = [first + offset for offset in read_integers(reader, count)]
    streams = _read_few(reader, count, _read_stream)
    releases = _read_few(reader, count, _read_release)
    moments = _read_few(reader, count, lambda source: _read_moment(source, boot))
    priorities = read_integers(reader, count)
    times = read_integers(reader, count)
    tables = {}
    for stream, held in Counter(streams).items():
        fields = read_column(reader, held, depth)
        if set(map(type, fields)) != {dict}:
            raise WireError("the body of a batch is damaged: the fields of a record are no object")
        tables[stream] = iter(fields)
    reader.finish()
    parts = zip(numbers, streams, times, moments, priorities, releases, strict=True)
    return [
        WireRecord(number, stream, next(tables[stream]), time, moment, priority, release)
        for number, stream, time, moment, priority, release in parts
    ]


def _write_few(writer: Writer, values: list[T], write: Callable[[Writer, T], None]) -> None:
    """Write the different values, and where there are several, which one each record has."""
    if values.count(values[0]) == len(values):  # mostly, and much faster than to hash each
        writer.control.append(1)
        write(writer, values[0])
        return
    different = dict.fromkeys(values)
    writer.unsigned(len(different))
    for value in different:
        write(writer, value)
    places = {value: place for place, value in enumerate(different)}
    write_integers(writer, [places[value] for value in values])


def _read_few(reader: Reader, count: int, read: Callable[[Reader], T]) -> list[T]:
    size = reader.unsigned()
    if not 0 < size <= count:
        raise WireError("the body of a batch is damaged: more values than records")
    different = [read(reader) for _ in range(size)]
    if size == 1:
        return different * count
    places = read_integers(reader, count)
    if not 0 <= min(places) <= max(places) < size:
        raise WireError("the body of a batch is damaged: a value is missing")
    return [different[place] for place in places]


def _write_stream(writer: Writer, stream: str) -> None:
    writer.texts.append(stream.encode())


def _read_stream(reader: Reader) -> str:
    return reader.strings(1)[0]


def _write_release(writer: Writer, release: str) -> None:
    """Write nothing for nothing, 32 bytes for a digest, and a string for anything else."""
    if not release:
        writer.control.append(0)
    elif _DIGEST.fullmatch(release):
        writer.control.append(1)
        writer.bits.append(format(int(release[7:], 16), f"0{_DIGEST_BITS}b"))
    else:
        writer.control.append(2)
        writer.texts.append(release.encode())


def _read_release(reader: Reader) -> str:
    form = reader.byte()
    if form == 0:
        return ""
    if form == 1:
        return f"sha256:{reader.number(_DIGEST_BITS):064x}"
    if form == 2:
        return reader.strings(1)[0]
    raise WireError("the body of a batch is damaged: a release of an unknown form")


def _write_moment(writer: Writer, moment: Moment, boot: str) -> None:
    """Write the clocks, and the boot where it is not the one in which the batch was made."""
    same = moment.boot == boot
    writer.control.append(moment.synced | same << 1)
    writer.signed(moment.offset_ms)
    if not same:
        if not re.fullmatch("[0-9a-f]{32}", moment.boot):
            raise WireError(f"a boot {moment.boot[:40]!r}", expected="32 hex digits")
        writer.bits.append(format(int(moment.boot, 16), f"0{_BOOT_BITS}b"))


def _read_moment(reader: Reader, boot: str) -> Moment:
    flags = reader.byte()
    offset_ms = reader.signed()
    if flags > 3:
        raise WireError("the body of a batch is damaged: a moment of an unknown form")
    return Moment(boot if flags & 2 else f"{reader.number(_BOOT_BITS):032x}", offset_ms, synced=bool(flags & 1))
