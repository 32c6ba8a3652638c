"""Lines: a stream of bytes, in chunks of any size, cut at its newlines within bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from skerry.spec.ports import Fields

Line = tuple[Fields, int, int]
"""The fields of a line, its size in bytes as kept, and the offset in bytes of what comes after it."""


class LineSplitter:
    """Cuts chunks into lines.

    A line ends at ``\\n``; a ``\\r`` before it and NULs at the beginning of a line (the holes that a truncated log
    gets) are left out. Of a line longer than ``max_line`` bytes only the beginning is kept, marked ``truncated``;
    bytes that are not UTF-8 are replaced, and the line is marked ``invalid_utf8``.

    Parameters
    ----------
    offset:
        Where the first chunk lies in the file, in bytes; the beginning of a line.
    max_line:
        The most bytes that are kept of one line, which bounds the memory.
    path:
        What the field ``path`` of every line is to say.
    """

    def __init__(self, offset: int, max_line: int, path: str) -> None:
        self.line_start = offset
        """Where the line begins whose end has not been seen; resuming there loses nothing."""
        self.read_to = offset
        """Where the next chunk lies."""
        self._max_line = max_line
        self._path = path
        self._held = bytearray()
        self._cut = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Take the next chunk and yield the lines that end in it."""
        self.read_to += len(chunk)
        first, *whole = chunk.split(b"\n")
        self._hold(first)
        if not whole:
            return
        last = whole.pop()
        yield self._finish(self.read_to - len(last) - sum(map(len, whole)) - len(whole))
        for line in whole:
            end = self.line_start + len(line) + 1
            if len(line) > self._max_line or line[:1] == b"\0":
                self._hold(line)
                yield self._finish(end)
            else:
                self.line_start = end
                yield self._line(line, end, cut=False)
        self._hold(last)

    def flush(self) -> Iterator[Line]:
        """Yield what is held as a line of its own: no more will follow it."""
        if self._held:
            yield self._finish(self.read_to)

    def _hold(self, piece: bytes) -> None:
        """Keep the next part of a line, as far as ``max_line`` allows."""
        if not self._held:
            piece = piece.lstrip(b"\0")
        room = self._max_line - len(self._held)
        if len(piece) > room:
            self._cut = True
            piece = piece[:room]
        self._held += piece

    def _finish(self, end: int) -> Line:
        """Make a line of what is held; the next one begins at ``end``."""
        line, cut = bytes(self._held), self._cut
        self._held.clear()
        self._cut = False
        self.line_start = end
        return self._line(line, end, cut=cut)

    def _line(self, line: bytes, end: int, *, cut: bool) -> Line:
        if not cut and line[-1:] == b"\r":
            line = line[:-1]
        fields: Fields = {"text": "", "path": self._path}
        if cut:
            fields["truncated"] = True
        try:
            # Where a line was cut, its last character may be cut as well: that is no fault of the writer's.
            fields["text"] = codecs.utf_8_decode(line, "strict", not cut)[0]
        except UnicodeDecodeError:
            fields["text"] = codecs.utf_8_decode(line, "replace", not cut)[0]
            fields["invalid_utf8"] = True
        return fields, len(line), end
