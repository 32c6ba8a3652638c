"""A followed log: one path, read through its rotations, truncations and absences without losing a line."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skerry.run.sources.lines import Line, LineSplitter
from skerry.run.sources.rotation import PREFIX, Mark, carries, find, fingerprint, generations
from skerry.spec.errors import SpecError
from skerry.spec.ports import Fields, Log

CHUNK = 256 * 1024
"""Bytes per read: large enough that the system call costs nothing per line, small enough for a device."""

Step = tuple[Fields, int, dict[str, Any]]
"""A line's fields, its size in bytes, and the place after it: a mark in plain JSON values."""


class OpenLog:
    """One file of a log, open, with the place that was read to."""

    def __init__(self, path: Path, name: str, max_line: int, offset: int = 0) -> None:
        # Without O_NONBLOCK, opening a pipe would wait for its writer.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._changed = (-1, -1)
        self._prefix = b""
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise SpecError(f"{path} is not a regular file", expected="a log file")
        self.inode = status.st_ino
        self.lines = LineSplitter(offset, max_line, name)
        self._learn_prefix()

    @property
    def size(self) -> int:
        """Bytes that the file has now."""
        return os.fstat(self._descriptor).st_size

    def mark(self) -> Mark:
        """Return the place of the first line that was not emitted."""
        return Mark(self.inode, self.lines.line_start, self._fingerprint)

    def carries(self, mark: Mark) -> bool:
        """Tell whether this is the marked file, still reaching as far."""
        return mark.inode == self.inode and carries(self._descriptor, mark)

    def was_cut(self) -> bool:
        """Tell whether the file lost what was read of it: it is shorter now, or begins differently."""
        status = os.fstat(self._descriptor)
        if status.st_size < self.lines.read_to:
            return True
        changed = (status.st_size, status.st_mtime_ns)
        if changed == self._changed:
            return False
        self._changed = changed
        return os.pread(self._descriptor, len(self._prefix), 0) != self._prefix

    def read(self) -> Iterator[Step]:
        """Read one chunk and yield the lines that end in it; nothing at the end of the file."""
        chunk = os.pread(self._descriptor, CHUNK, self.lines.read_to)
        if not chunk:
            return
        if len(self._prefix) < PREFIX:
            self._learn_prefix()
        yield from self._steps(self.lines.feed(chunk))

    def flush(self) -> Iterator[Step]:
        """Yield the last line, which has no newline and will get none."""
        yield from self._steps(self.lines.flush())

    def go_to(self, offset: int) -> None:
        """Go on reading at ``offset``, the beginning of a line."""
        self.lines.line_start = self.lines.read_to = offset

    def go_to_end(self, max_line: int) -> None:
        """Go on at the end, or at the beginning of the last line if that has no newline yet."""
        size = self.size
        start = max(0, size - max_line)
        newline = os.pread(self._descriptor, size - start, start).rfind(b"\n")
        self.go_to(start + newline + 1 if newline >= 0 or start == 0 else size)

    def go_back(self, history: int, max_line: int) -> None:
        """Go on at the first line that begins in the last ``history`` bytes; a longer rest of a line is passed over."""
        start = self.size - history
        if start <= 0:
            return
        before = os.pread(self._descriptor, max_line, start - 1)
        newline = before.find(b"\n")
        if newline >= 0:
            self.go_to(start + newline)
        else:
            self.go_to_end(max_line)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _steps(self, lines: Iterator[Line]) -> Iterator[Step]:
        inode, print_of_file = self.inode, self._fingerprint
        for fields, size, end in lines:
            yield fields, size, {"inode": inode, "offset": end, "fingerprint": print_of_file}

    def _learn_prefix(self) -> None:
        self._prefix = os.pread(self._descriptor, PREFIX, 0)
        self._fingerprint = fingerprint(self._prefix)


class FollowedLog:
    """A log by its path.

    Files that still have unread lines stand in a row, the oldest first; the last of them is what the path names now.

    Parameters
    ----------
    path:
        The log.
    name:
        The path as it is told in the items.
    max_line:
        The most bytes kept of one line.
    linger_s:
        Seconds for which a rotated file is still read after its last byte, since its writer may not have let go of it.
    """

    def __init__(self, path: Path, name: str, *, max_line: int, linger_s: float, log: Log) -> None:
        self.path = path
        self.name = name
        self.gone_since_s: float | None = None
        """Since when the path names nothing, on the monotonic clock."""
        self._max_line = max_line
        self._linger_s = linger_s
        self._log = log
        self._row: deque[OpenLog] = deque()
        self._idle_since_s: float | None = None

    def open(self, mark: Mark | None, *, at_end: bool, history: int | None = None) -> None:
        """Begin at ``mark``; without one, at the end or the beginning, or ``history`` bytes before the end.

        Raises ``OSError`` when the path is absent.
        """
        if mark is not None:
            self._resume(mark)
            return
        newest = self._open(self.path)
        if at_end:
            newest.go_to_end(self._max_line)
        elif history is not None:
            newest.go_back(history, self._max_line)
        self._row.append(newest)

    def mark(self) -> Mark | None:
        """Return the place of the first line that was not emitted, where a file is open."""
        return self._row[0].mark() if self._row else None

    def step(self) -> Iterator[Step]:
        """Yield the next lines, at most a chunk of them; nothing when there is nothing new."""
        if not self._row:
            self._take_path()
        while self._row:
            newest = len(self._row) == 1
            if newest and self._row[0].was_cut():
                yield from self._after_cut()
                continue
            before = self._row[0].lines.read_to
            yield from self._row[0].read()
            if self._row[0].lines.read_to > before:
                self._idle_since_s = None
                return
            if newest and not self._line_up_newer():
                return
            if self._lingers():
                return
            yield from self._leave_oldest()

    def drain(self) -> Iterator[Step]:
        """Yield all that is there now, the last line without a newline included."""
        self._linger_s = 0.0
        while self._row:
            before = self._row[0].mark(), self._row[0].lines.read_to, len(self._row)
            yield from self.step()
            if self._row and (self._row[0].mark(), self._row[0].lines.read_to, len(self._row)) == before:
                yield from self._row[0].flush()
                return

    def close(self) -> None:
        """Close every file; safe to call twice."""
        while self._row:
            self._row.popleft().close()

    def _open(self, path: Path, offset: int = 0) -> OpenLog:
        return OpenLog(path, self.name, self._max_line, offset)

    def _resume(self, mark: Mark) -> None:
        """Go on at ``mark``: in the file itself, in its rotated remains, or, if both are gone, at the beginning."""
        older = generations(self.path)
        newest = self._open_path()
        if newest is not None and newest.carries(mark):
            newest.go_to(mark.offset)
            self._row.append(newest)
            return
        self._row.extend(self._remains(mark, older))
        if newest is not None:
            self._row.append(newest)
        if not self._row:
            raise FileNotFoundError(f"{self.path} does not exist")

    def _remains(self, mark: Mark, older: list[Path]) -> list[OpenLog]:
        """Open what was rotated away since ``mark``: the rest of its file, and every generation after it."""
        found = find(mark, older)
        if found is None:
            if mark.offset > 0:
                self._log.warning("%s was replaced, and what it held is not found beside it", self.path)
            return []
        opened = []
        for path in older[older.index(found) :]:
            try:
                opened.append(self._open(path, mark.offset if path == found else 0))
            except OSError as error:
                self._log.warning("a rotated log cannot be read: %s", error)
        return opened

    def _take_path(self) -> None:
        """Open the path if it names a file (again)."""
        newest = self._open_path()
        if newest is not None:
            self._row.append(newest)

    def _open_path(self) -> OpenLog | None:
        try:
            newest = self._open(self.path)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            # A new log may be there a moment before its reader is allowed to read it.
            if self.gone_since_s is None:
                self.gone_since_s = time.monotonic()
            return None
        self.gone_since_s = None
        return newest

    def _line_up_newer(self) -> bool:
        """Open what came after the one open file, if the path names another one now; tell whether it does.

        While the path names nothing, the file that it named is kept: it may still be written to.
        """
        try:
            inode = self.path.stat().st_ino
        except OSError:
            if self.gone_since_s is None:
                self._log.warning("%s is gone; waiting for it to come back", self.path)
                self.gone_since_s = time.monotonic()
            return False
        self.gone_since_s = None
        if inode == self._row[0].inode:
            return False
        self._row.extend(self._between(self._row[0].inode))
        self._take_path()
        return True

    def _between(self, inode: int) -> list[OpenLog]:
        """Open the generations that are newer than the file ``inode``: it was rotated more than once."""
        older = generations(self.path)
        inodes = [_inode(path) for path in older]
        newer = older[inodes.index(inode) + 1 :] if inode in inodes else []
        opened = []
        for path in newer:
            try:
                opened.append(self._open(path))
            except OSError as error:
                self._log.warning("a rotated log cannot be read: %s", error)
        return opened

    def _lingers(self) -> bool:
        """Tell whether the oldest file, read to its end, is to be watched a little longer."""
        now_s = time.monotonic()
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        return now_s - self._idle_since_s < self._linger_s

    def _leave_oldest(self) -> Iterator[Step]:
        """Yield the last line of the oldest file and close it."""
        oldest = self._row[0]
        yield from oldest.flush()
        self._row.popleft()
        oldest.close()
        self._idle_since_s = None

    def _after_cut(self) -> Iterator[Step]:
        """The file was cut to nothing: read the rest of its copy, if there is one, then it from the beginning."""
        cut = self._row[0]
        remains = self._remains(cut.mark(), generations(self.path))
        if not remains:
            self._log.warning("%s was cut to nothing", self.path)
            yield from cut.flush()
        self._row.clear()
        cut.close()
        self._row.extend(remains)
        self._take_path()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1
