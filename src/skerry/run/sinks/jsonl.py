"""JSON lines: a file with one record per line, which rotates and survives a crash."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from skerry.run.encoding import ARRAY_ITEMS, Encoder
from skerry.run.sinks.whole import sink_error, write_whole
from skerry.spec.errors import SinkUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Log, Options
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size


class JsonlOptions(Options, frozen=True, kw_only=True):
    """When the file rotates and what a line holds.

    Parameters
    ----------
    rotate:
        The size at which a new file is begun; default 100 MB, so that a forgotten sink does not fill a device.
        A file holds at least one write, however large.
    rotate_every:
        The age, counted from its first line, at which a new file is begun at the next write; default never.
    keep:
        How many rotated files (``NAME.1`` is the newest) stay beside the one at work; default 5. 0 keeps none.
    gzip:
        Whether rotated files are compressed (``NAME.1.gz``); default no. The file at work never is.
    envelope:
        Whether each line also says ``source`` and ``sequence`` under the key ``skerry``; default no.
    array_items:
        The largest array that is written out, in numbers; default 64.
    """

    rotate: Size = Size(100e6)
    rotate_every: Duration | None = None
    keep: int = 5
    gzip: bool = False
    envelope: bool = False
    array_items: int = ARRAY_ITEMS


class JsonlSink:
    """Appends records to a file; a flush is an fsync.

    A line that a crash left unfinished is cut off when the file is opened, and a write that meets a full disk is
    undone, so every line of the file is a whole record. One process at a time may write to a file.
    """

    Options: ClassVar[type[JsonlOptions]] = JsonlOptions
    blocking: ClassVar[bool] = True

    def __init__(self, address: Address, options: JsonlOptions) -> None:
        if not address.path.strip("/"):
            raise SpecError(f"{address.text!r} names no file", expected="jsonl://folder/events.jsonl")
        if options.keep < 0 or options.rotate < 1:
            raise SpecError("`keep` is at least 0 and `rotate` at least 1B", where=address.text)
        self._given = address.path
        self._options = options
        self._encoder = Encoder(options.array_items)
        self._file: _LineFile | None = None

    def open(self, context: Context) -> None:
        """Open the file for appending and repair its end.

        Raises ``SinkUnavailableError`` when it cannot be opened or another process writes to it.
        """
        self.close()
        path = context.home / self._given
        self._file = _LineFile(path, self._options, context.state / "started", context.log)

    def write(self, records: Sequence[Record]) -> None:
        """Append the records; raises ``SinkFullError`` on a full disk, with the file as it was before."""
        if self._file is None:
            raise SinkUnavailableError(f"{self._given} is not open")
        if records:
            self._file.append(self._encoder.encode_lines([self._line(record) for record in records]))

    def _line(self, record: Record) -> dict[str, Any]:
        if not self._options.envelope:
            return record.fields
        return {**record.fields, "skerry": {"source": record.source, "sequence": record.sequence}}

    def flush(self) -> None:
        """Make every line durable (fsync)."""
        if self._file is None:
            raise SinkUnavailableError(f"{self._given} is not open")
        self._file.sync()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


class _LineFile:
    """The file at work and its rotated predecessors."""

    def __init__(self, path: Path, options: JsonlOptions, started: Path, log: Log) -> None:
        self._path, self._options, self._started, self._log = path, options, started, log
        self._descriptor = -1
        self._open()

    def append(self, data: bytes) -> None:
        try:
            if self._moved_away():
                self._log.info("%s was moved away; a new one is begun", self._path)
                self.close()
            if self._descriptor < 0:
                self._open()
            size = os.fstat(self._descriptor).st_size
            if size and (size + len(data) > self._options.rotate or self._is_old()):
                self._rotate()
                size = 0
        except OSError as error:
            raise sink_error(error, str(self._path)) from error
        write_whole(self._descriptor, data, what=str(self._path))
        if size == 0:
            self._note_start()

    def sync(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise sink_error(error, str(self._path)) from error

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.fsync(descriptor)
            os.close(descriptor)

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = not self._path.exists()
            if not new and not self._path.is_file():
                raise SinkUnavailableError(f"{self._path} is in the way: it is no regular file")
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise sink_error(error, str(self._path)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _repair(descriptor, self._path, self._log)
            if new:
                _sync_folder(self._path.parent)
        except BlockingIOError:
            os.close(descriptor)
            raise SinkUnavailableError(f"another process writes to {self._path}") from None
        except OSError as error:
            os.close(descriptor)
            raise sink_error(error, str(self._path)) from error
        self._descriptor = descriptor

    def _moved_away(self) -> bool:
        """Tell whether the path is no longer the open file: somebody else rotated or deleted it."""
        if self._descriptor < 0:
            return False
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _is_old(self) -> bool:
        if self._options.rotate_every is None:
            return False
        try:
            age = time.time() - float(self._started.read_text())
        except (OSError, ValueError):
            self._note_start()
            return False
        return age >= self._options.rotate_every

    def _note_start(self) -> None:
        """Remember when the file got its first line: no file system keeps that for us, and a run may end earlier."""
        if self._options.rotate_every is None:
            return
        try:
            self._started.write_text(str(time.time()))
        except OSError as error:
            self._log.warning("the age of %s is not kept: %s", self._path, error)

    def _rotate(self) -> None:
        """Shift NAME.1 to NAME.2 and so on, the oldest first, so that a crash in between leaves only a gap."""
        self.close()
        for number in range(self._options.keep, 0, -1):
            for ending in ("", ".gz"):
                old = self._rotated(number, ending)
                if not old.exists():
                    continue
                if number == self._options.keep:
                    old.unlink()
                else:
                    old.replace(self._rotated(number + 1, ending))
        if self._options.keep == 0:
            self._path.unlink()
        else:
            first = self._rotated(1)
            self._path.replace(first)
            if self._options.gzip:
                _compress(first, self._log)
        _sync_folder(self._path.parent)
        self._open()

    def _rotated(self, number: int, ending: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{ending}")


def _repair(descriptor: int, path: Path, log: Log) -> None:
    """End the file with a whole line: cut off an unfinished one, or end one that only lacks its line feed."""
    size = os.fstat(descriptor).st_size
    end = _end_of_last_line(descriptor, size)
    if end == size:
        return
    if size - end <= _LARGEST_TAIL and _is_object(os.pread(descriptor, size - end, end)):
        write_whole(descriptor, b"\n", what=str(path))
        log.warning("the last line of %s had no line feed; it was added", path)
        return
    os.ftruncate(descriptor, end)
    log.warning("the last line of %s was unfinished; its %d bytes were cut off", path, size - end)


_LARGEST_TAIL = 16 * 2**20
"""Bytes of an unended line that are looked into; no record that was honestly written is larger."""


def _is_object(tail: bytes) -> bool:
    import msgspec

    try:
        return isinstance(msgspec.json.decode(tail), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _end_of_last_line(descriptor: int, size: int) -> int:
    """Return the offset after the last line feed, reading backwards; 0 when there is none."""
    end = size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _compress(path: Path, log: Log) -> None:
    """Replace a file by its gzip; a failure leaves it as it is, which loses nothing."""
    half, whole = path.with_name(path.name + ".gz.half"), path.with_name(path.name + ".gz")
    try:
        with path.open("rb") as plain, half.open("wb") as target:
            with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=6, filename=path.name) as packed:
                shutil.copyfileobj(plain, packed, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        half.replace(whole)
        path.unlink()
    except OSError as error:
        log.warning("%s stays uncompressed: %s", path, error)
        half.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, so that a power cut does not take a new or renamed file with it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
