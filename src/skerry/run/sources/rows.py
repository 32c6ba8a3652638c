"""Rows: what a stream of jsonl, csv, parquet or plain text holds, with the place after each row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal

import msgspec

from skerry.run.sources.places import spooled
from skerry.run.sources.rotation import COMPRESSED
from skerry.spec.errors import DependencyError, SpecError
from skerry.spec.ports import Fields

Format = Literal["jsonl", "csv", "parquet", "text"]
FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".txt": "text", ".text": "text", ".log": "text",
}  # fmt: skip
PARQUET_ROWS = 1024
"""Rows that are decoded at once: enough to be fast, few enough for a device's memory."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.?[0-9]+)([eE][+-]?[0-9]+)?")


class Row(msgspec.Struct, frozen=True):
    """One row: its fields, or what is wrong with it; its number from 1; its size and the place after it in bytes."""

    fields: Fields | str
    number: int
    size: int
    end: int


def format_of(name: str) -> Format:
    """Return the format that a file's name says; raises ``SpecError`` when it says none."""
    path = PurePosixPath(name)
    suffix = (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()
    if suffix not in FORMATS:
        raise SpecError(
            f"{name} does not tell its format", expected=f"an ending of {', '.join(FORMATS)}, or the option format"
        )
    return FORMATS[suffix]


def read_rows(
    stream: BinaryIO, kind: Format, *, row: int, offset: int, delimiter: str, numbers: bool, max_row: int
) -> Iterator[Row]:
    """Yield the rows after the first ``row`` of them, which end at the byte ``offset``."""
    if kind == "parquet":
        yield from _parquet(stream, row)
        return
    lines = TextLines(stream, max_row)
    if kind == "csv":
        yield from _csv(lines, row, offset, delimiter, numbers)
        return
    lines.skip_to(offset)
    for number, line in enumerate(lines, row + 1):
        if kind == "text":
            fields: Fields | str = "the row is longer than max_row" if line is None else {"text": line.rstrip("\r\n")}
        elif line is not None and not line.strip():
            continue
        else:
            fields = "the row is longer than max_row" if line is None else _json_object(line)
        yield Row(fields, number, lines.size, lines.offset)


class TextLines(Iterator["str | None"]):
    """The lines of a stream as text, with their line ends; ``None`` for one over ``max_row`` bytes.

    A byte order mark is left out, and what is not UTF-8 is replaced.
    """

    def __init__(self, stream: BinaryIO, max_row: int) -> None:
        self.offset = 0
        """Bytes read so far."""
        self.size = 0
        """Bytes of the last line."""
        self._stream = stream
        self._max_row = max_row

    def skip_to(self, offset: int) -> None:
        """Pass over the bytes up to ``offset``, by seeking where the stream can."""
        if self._stream.seekable():
            self._stream.seek(offset)
            self.offset = offset
        while self.offset < offset:
            chunk = self._stream.read(min(1 << 20, offset - self.offset))
            if not chunk:
                return
            self.offset += len(chunk)

    def __next__(self) -> str | None:
        start = self.offset
        line = self._stream.readline(self._max_row + 1)
        if not line:
            raise StopIteration
        self.offset += len(line)
        whole = len(line) <= self._max_row
        while not line.endswith(b"\n") and len(line) > self._max_row:
            line = self._stream.readline(self._max_row + 1)
            self.offset += len(line)
        self.size = self.offset - start
        if not whole:
            return None
        return line.decode("utf-8-sig" if start == 0 else "utf-8", errors="replace")


def _json_object(line: str) -> Fields | str:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        return str(error)
    return value if isinstance(value, dict) else f"it is not an object but {type(value).__name__}"


def _csv(lines: TextLines, row: int, offset: int, delimiter: str, numbers: bool) -> Iterator[Row]:
    header = next(_cells(lines, delimiter), None)
    if header is None:
        return
    names, broken = header
    if broken:
        raise ValueError(f"the header cannot be read: {broken}")
    if offset > lines.offset:
        lines.skip_to(offset)
    start = lines.offset
    for number, (cells, why) in enumerate(_cells(lines, delimiter), row + 1):
        fields: Fields | str = why
        if not why and len(cells) != len(names):
            fields = f"it has {len(cells)} cells, and the header {len(names)}"
        elif not why:
            fields = dict(zip(names, map(_number, cells) if numbers else cells, strict=True))
        yield Row(fields, number, lines.offset - start, lines.offset)
        start = lines.offset


def _cells(lines: TextLines, delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Yield the cells of each row, or what is wrong with it; rows without any cell are left out."""
    too_long = False

    def texts() -> Iterator[str]:
        nonlocal too_long
        for line in lines:
            too_long = too_long or line is None
            yield "\n" if line is None else line

    reader = csv.reader(texts(), delimiter=delimiter)
    while True:
        try:
            cells, why = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            cells, why = [], str(error)
        if too_long:
            cells, why, too_long = [], "the row is longer than max_row", False
        if cells or why:
            yield cells, why


def _number(cell: str) -> int | float | str:
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell


def _parquet(stream: BinaryIO, row: int) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError("a parquet file needs the package pyarrow", hint="pip install 'skerry[files]'") from error
    seekable = spooled(stream)
    try:
        table = pyarrow.parquet.ParquetFile(seekable)
        groups, first = _groups_from(table.metadata, row)
        number = first
        for batch in table.iter_batches(batch_size=PARQUET_ROWS, row_groups=groups):
            size = batch.nbytes // max(1, batch.num_rows)
            for fields in batch.to_pylist():
                number += 1
                if number > row:
                    yield Row(fields, number, size, 0)
    finally:
        seekable.close()


def _groups_from(metadata: Any, row: int) -> tuple[list[int], int]:
    """Return the row groups that hold rows after the first ``row``, and the number of rows before those groups."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if before + rows > row:
            return list(range(group, metadata.num_row_groups)), before
        before += rows
    return [], before
