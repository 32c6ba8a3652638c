"""The file source: reads files that are complete, row by row, from this machine or any file system of fsspec."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from http.client import HTTPException
from lzma import LZMAError
from typing import Any, BinaryIO, ClassVar, Literal

import msgspec

from skerry.run.sources.delivery import Complaints, deliver, read_position
from skerry.run.sources.places import Place, find_places
from skerry.run.sources.rows import Format, Row, format_of, read_rows
from skerry.spec.errors import SourceError, SourceUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Emit, Options, Stop
from skerry.spec.units import Duration, Size


class FileOptions(Options, frozen=True, kw_only=True):
    """What is read, and how.

    Parameters
    ----------
    url:
        A place elsewhere instead of a path here: ``s3://bucket/*.parquet``, ``https://…/x.jsonl.gz``.
    format:
        ``auto`` goes by the ending of the name, a ``.gz``, ``.bz2``, ``.xz`` or ``.zst`` after it left out.
    bad_rows:
        Whether a row that cannot be read is logged and skipped, or stops the source with ``SourceError``.
    delimiter:
        Between the cells of a csv.
    numbers:
        Make numbers of the cells of a csv that look like one; otherwise they stay text, as leading zeros need it.
    max_row:
        The most bytes of one row of text, which bounds the memory; a longer one is a bad row.
    timeout:
        How long an http server may be silent; half a minute is more than any that still works needs.
    storage:
        Options for the file system of ``url``, handed to fsspec as they are.
    """

    url: str | None = None
    format: Literal["auto", "jsonl", "csv", "parquet", "text"] = "auto"
    bad_rows: Literal["skip", "stop"] = "skip"
    delimiter: str = ","
    numbers: bool = False
    max_row: Size = Size(16 * 2**20)
    timeout: Duration = Duration(30.0)
    storage: dict[str, Any] = msgspec.field(default_factory=dict)


class FilePosition(msgspec.Struct, frozen=True):
    """How far: a file, rows of it that are done, and the byte after them in its decompressed text."""

    file: str
    row: int
    offset: int

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"file": self.file, "row": self.row, "offset": self.offset}


class FileSource:
    """``file://data/*.jsonl``, or ``file:`` with the option ``url``; files are read in the order of their names.

    A row becomes an item: the object of a jsonl line, the cells of a csv or parquet row by the names of their columns,
    ``{"text": line}`` of a text. A position is ``{"file", "row", "offset"}``.
    """

    Options: ClassVar[type[Options]] = FileOptions
    live: ClassVar[bool] = False

    def __init__(self, address: Address, options: FileOptions) -> None:
        if bool(address.path) == bool(options.url):
            raise SpecError(
                f"{address.text!r} needs either a path or the option url", expected="file://data/*.jsonl or file:?url=…"
            )
        if len(options.delimiter) != 1:
            raise SpecError(f"the delimiter {options.delimiter!r} is not one character", expected="such as ; or a tab")
        self._address = address
        self._options = options
        self._places: list[Place] = []
        self._start: FilePosition | None = None

    def open(self, context: Context, position: Any | None) -> None:
        """List the files and find the one to go on with.

        Raises ``SourceUnavailableError`` when there are none, ``SpecError`` for a name without a known format and for
        a url that is plain text beyond loopback, ``DependencyError`` when the file system needs another package.
        """
        self._context = context
        self._start = read_position(position, FilePosition, context.log)
        options = self._options
        places = find_places(
            options.url or str(context.home / self._address.path),
            storage=options.storage, timeout_s=float(options.timeout), insecure=context.insecure,
        )  # fmt: skip
        if not places:
            raise SourceUnavailableError(
                f"no file matches {options.url or self._address.path}", expected=f"files, looked for in {context.home}"
            )
        for place in places:
            self._format(place)
        self._places = places

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit every row; raises ``SourceError`` for a damaged file, and for a bad row with ``bad_rows: stop``."""
        complaints = Complaints(self._context.log, "bad row")
        for place in self._places:
            start = self._start
            if start is not None and place.name < start.file:
                continue
            resumed = start if start is not None and start.file == place.name else FilePosition(place.name, 0, 0)
            for row in self._rows(place, resumed):
                if stop.is_set():
                    return
                if isinstance(row.fields, str):
                    self._complain(complaints, f"{place.name}, row {row.number}", row.fields)
                    continue
                reached = FilePosition(place.name, row.number, row.end)
                if not deliver(emit, stop, row.fields, size=row.size, position=reached.plain()):
                    return
                self._start = reached

    def commit(self, position: Any) -> None:
        """Do nothing: nobody has to be told."""

    def close(self) -> None:
        """Forget the files; none of them stays open between rows of two of them."""
        self._places = []

    def _format(self, place: Place) -> Format:
        return format_of(place.name) if self._options.format == "auto" else self._options.format

    def _rows(self, place: Place, start: FilePosition) -> Iterator[Row]:
        options = self._options
        stream: BinaryIO | None = None
        try:
            stream = place.open()
            yield from read_rows(
                stream, self._format(place), row=start.row, offset=start.offset, delimiter=options.delimiter,
                numbers=options.numbers, max_row=int(options.max_row),
            )  # fmt: skip
        except (OSError, EOFError, ValueError, LZMAError, HTTPException, zlib.error) as error:
            raise SourceError(f"{place.name} cannot be read: {error}", expected="a whole file") from error
        finally:
            if stream is not None:
                stream.close()

    def _complain(self, complaints: Complaints, where: str, why: str) -> None:
        if self._options.bad_rows == "stop":
            raise SourceError(f"a bad row: {why}", where=where, hint="bad_rows: skip goes on after it")
        complaints.add(where, why)
